"""Convert a local file with DuckDB's COPY, without download, sorting, checks or deduplication: BODY FILE ASSET."""

import sys

import duckdb

from benchmarks.contenders.columns import COLUMNS

body, file, asset = sys.argv[1:]
has_link = asset == "hits"
TEXT = "VARCHAR"
LINK = f', link STRUCT("type" {TEXT}, "label" {TEXT}, uri {TEXT})' if has_link else ""
STRUCTURE = f"""{{
    id: '{TEXT}', timestamp: 'BIGINT', identity: 'STRUCT(agency {TEXT}, customer {TEXT})',
    source: 'STRUCT(detail STRUCT(
        activation STRUCT(
            id BIGINT, version {TEXT}, kind {TEXT}, application {TEXT}, subscription {TEXT},
            receiver STRUCT("type" {TEXT}, "value" STRUCT(id {TEXT})),
            stamp STRUCT(id {TEXT}, thread {TEXT}, "time" BIGINT),
            channel {TEXT}, urgent BOOLEAN, expiration {TEXT}
        )
        {LINK}
    ))'
}}"""

TIMES = {"event_time": "epoch_ms({})", "activated_at": "epoch_ms({})", "expires_at": "try_cast({} AS TIMESTAMP)"}
fields = ", ".join(
    f"{TIMES.get(name, '{}').format('.'.join(path))} AS {name}"
    for name, path in COLUMNS.items()
    if has_link or not name.startswith("link_")
)
with duckdb.connect() as database:
    database.execute(
        f"COPY (SELECT {fields} FROM read_json('{body}', format = 'array', columns = {STRUCTURE})) "
        f"TO '{file}' (FORMAT parquet, COMPRESSION zstd)"
    )
