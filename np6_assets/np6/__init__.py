"""The NP6 API over HTTP: client, streams cut into parts, retries, errors, and the Dagster resource of it."""
