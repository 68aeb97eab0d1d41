"""This project's computation of a cohort without Dagster's run: FOLDER DAY FILE."""

import sys
from datetime import date, timedelta

import pyarrow.parquet as pq

from np6_assets.events.kinds import KINDS
from np6_assets.partitions import EVENT_DATE
from np6_assets.rates.compute import connect, in_duckdb, rates
from np6_assets.rates.feeds import Feeds
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import partitioned_dataset

WINDOW_DAYS = 7

folder, day, file = sys.argv[1:]
days = [str(date.fromisoformat(day) + timedelta(days=ahead)) for ahead in range(WINDOW_DAYS + 1)]
datasets = {
    kind.asset: partitioned_dataset(Folder(folder), kind.asset, kind.schema, EVENT_DATE, days) for kind in KINDS
}
with connect() as database:
    [(_, rows)] = rates(in_duckdb(database), Feeds(datasets, "UTC", None), [day], WINDOW_DAYS)
    pq.write_table(rows, file)
