"""The NP6 API over HTTP: client, spool of raw responses, errors, and the Dagster resource that configures them."""
