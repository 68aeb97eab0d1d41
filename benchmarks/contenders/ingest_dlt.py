"""Ingest with dlt's rest_api source and filesystem destination: URL FOLDER WORK."""

import sys

import dlt
from dlt.sources.rest_api import rest_api_source

url, folder, work = sys.argv[1:]
base, _, path = url.partition("/notifications")
source = rest_api_source(
    {
        "client": {
            "base_url": base,
            "headers": {"X-Key": "any"},
            "paginator": "single_page",
        },
        "resources": [
            {
                "name": "hits",
                "endpoint": {"path": f"/notifications{path}", "data_selector": "$"},
                "write_disposition": "replace",
            }
        ],
    }
)
pipeline = dlt.pipeline(
    "np6",
    pipelines_dir=work,
    destination=dlt.destinations.filesystem(bucket_url=f"file://{folder}"),
    dataset_name="np6",
)
pipeline.run(source, loader_file_format="parquet")
