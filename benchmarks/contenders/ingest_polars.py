"""Ingest with httpx and Polars: URL FILE."""

import io
import sys
from functools import reduce

import httpx
import polars as pl

from benchmarks.contenders.columns import COLUMNS

url, file = sys.argv[1:]
response = httpx.get(url, headers={"X-Key": "any"}, timeout=60)
response.raise_for_status()
fields = [
    reduce(lambda field, name: field.struct.field(name), path[1:], pl.col(path[0])).alias(column)
    for column, path in COLUMNS.items()
]
pl.read_json(io.BytesIO(response.content)).select(fields).write_parquet(file, compression="zstd")
