"""NP6 push notification events as daily Parquet, and exact reactivity rates, with Dagster."""
