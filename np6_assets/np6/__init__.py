"""The NP6 API: an HTTP client that streams, retries and resumes; only `resource.py` knows Dagster."""
