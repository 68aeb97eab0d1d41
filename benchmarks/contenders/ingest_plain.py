"""What is written first: httpx, json, pandas.json_normalize and to_parquet. URL FILE."""

import json
import sys

import httpx
import pandas as pd

url, file = sys.argv[1:]
answer = httpx.get(url, headers={"X-Key": "any"}, timeout=60)
answer.raise_for_status()
pd.json_normalize(json.loads(answer.content)).to_parquet(file)
