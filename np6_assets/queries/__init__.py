"""SQL for analysts: `views.sql`, ready queries over it, and the command that runs them (`np6-assets sql`)."""
