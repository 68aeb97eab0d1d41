"""Ingest with the simplest script, httpx, json, pandas.json_normalize and to_parquet: URL FILE."""

import json
import sys

import httpx
import pandas as pd

url, file = sys.argv[1:]
response = httpx.get(url, headers={"X-Key": "any"}, timeout=60)
response.raise_for_status()
pd.json_normalize(json.loads(response.content)).to_parquet(file)
