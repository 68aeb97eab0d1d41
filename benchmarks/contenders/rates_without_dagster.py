"""Compute the rates of a cohort with this project, without Dagster's run: FOLDER DAY FILE."""

import sys
from datetime import date, timedelta

import pyarrow.parquet as pq

from np6_assets.events.kinds import KINDS
from np6_assets.partitions import EVENT_DATE
from np6_assets.rates.compute import build_duckdb_runner, compute_rates, open_duckdb
from np6_assets.rates.feeds import Feeds
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import open_partitioned_dataset

WINDOW_DAYS = 7

folder, day, file = sys.argv[1:]
days = [str(date.fromisoformat(day) + timedelta(days=ahead)) for ahead in range(WINDOW_DAYS + 1)]
datasets = {
    kind.asset: open_partitioned_dataset(Folder(folder), kind.asset, kind.schema, EVENT_DATE, days) for kind in KINDS
}
with open_duckdb() as database:
    [(_, rows)] = compute_rates(build_duckdb_runner(database), Feeds(datasets, "UTC", None), [day], WINDOW_DAYS)
    pq.write_table(rows, file)
