"""The rates in SQL: `views.sql`, the queries beside it, and what opens DuckDB with them (`np6-assets sql`)."""
