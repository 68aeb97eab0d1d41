"""Compute the rates of any number of cohorts from the event datasets: `rates.sql`, many cohorts at once.

The engine that runs it is DuckDB, here, or a Spark Connect server (spark.py).
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from np6_assets.events.kinds import TIME
from np6_assets.partitions import ACTIVATION_DATE, event_days, parse_day
from np6_assets.rates.columns import SCHEMA
from np6_assets.rates.feeds import REACTIONS, Feeds

ROWS_AT_ONCE = 2**20
"""Most events of cohorts that are computed together; a cohort with more is computed alone."""

QueryRunner: TypeAlias = Callable[[str, Mapping[str, ds.FileSystemDataset], Mapping[str, pa.Table]], pa.Table]
"""Runs a query over datasets and tables, given by their names in SQL."""

_SQL = files(__package__).joinpath("rates.sql").read_text()


def compute_rates(
    run: QueryRunner, feeds: Feeds, cohorts: Sequence[str], window_days: int
) -> Iterator[tuple[str, pa.Table]]:
    """Compute the rates of each cohort, in order: a row for each notification, version and application (columns.py)."""
    for chunk in group_cohorts(feeds, cohorts, window_days, ROWS_AT_ONCE):
        days = sorted({day for key in chunk for day in event_days(key, window_days)})
        datasets = {asset: feeds.select_days(asset, days) for asset in feeds.datasets}
        table = run(_SQL, datasets, _build_tables(feeds, chunk, window_days))
        for key in chunk:
            rows = table.filter(pc.field(ACTIVATION_DATE) == date.fromisoformat(key)).drop_columns(ACTIVATION_DATE)
            yield key, rows.cast(SCHEMA)


def group_cohorts(feeds: Feeds, cohorts: Sequence[str], window_days: int, most_rows: int) -> Iterator[list[str]]:
    """Group consecutive cohorts whose event days together have at most `most_rows` rows."""
    chunk: list[str] = []
    days: set[str] = set()
    for key in cohorts:
        window = set(event_days(key, window_days))
        if chunk and sum(map(feeds.count_rows, days | window)) > most_rows:
            yield chunk
            chunk, days = [], set()
        chunk.append(key)
        days |= window
    if chunk:
        yield chunk


def build_duckdb_runner(database: duckdb.DuckDBPyConnection) -> QueryRunner:
    """Build what runs queries in DuckDB."""

    def run(sql: str, datasets: Mapping[str, ds.FileSystemDataset], tables: Mapping[str, pa.Table]) -> pa.Table:
        for name, table in tables.items():
            database.register(name, table)
        for name, data in datasets.items():
            create_view(database, name, data)
        # a relation over the query itself would have it planned twice, which is most of a small cohort's time
        execute_within_memory(database, f"CREATE OR REPLACE TEMP TABLE result AS {sql}")
        return database.table("result").to_arrow_table()

    return run


def execute_within_memory(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Run a statement; if memory runs out, run it and what follows on one thread.

    Each thread keeps groups of its own in memory before DuckDB spills any: with ten million sends that is sometimes too
    many, which shows early.
    """
    try:
        database.execute(sql)
    except duckdb.OutOfMemoryException:
        database.execute("SET threads = 1")
        database.execute(sql)


def create_view(database: duckdb.DuckDBPyConnection, name: str, data: ds.FileSystemDataset) -> None:
    """Create a view of a dataset, or replace the one of that name.

    DuckDB reads the files itself: pyarrow's scanner can deadlock when it is read as a stream from a Python file system.
    """
    if not data.files:
        # a registered table would hide every later view of that name
        database.from_arrow(data.schema.empty_table()).create_view(name)
        return
    if isinstance(data.filesystem, pafs.PyFileSystem):
        remote = data.filesystem.handler.fs
        if remote.protocol not in database.list_filesystems():  # DuckDB takes it once
            database.register_filesystem(remote)
    database.read_parquet(list(data.files), hive_partitioning=True).create_view(name)


def open_duckdb() -> duckdb.DuckDBPyConnection:
    """Open a database in bounded memory; it is removed when it is closed."""
    # DuckDB makes this folder when it spills, and removes it
    spill = str(Path(tempfile.gettempdir()) / f"np6-{uuid.uuid4().hex}")
    return duckdb.connect(
        config={
            "threads": 2,
            "memory_limit": "700MB",  # of a GiB that the process has
            "temp_directory": spill,
            "autoinstall_known_extensions": False,
            "TimeZone": "UTC",
        }
    )


def _build_tables(feeds: Feeds, cohorts: Sequence[str], window_days: int) -> dict[str, pa.Table]:
    cohort_days, missing_ids = [], []
    for key in cohorts:
        day, window = parse_day(key, feeds.timezone), event_days(key, window_days)
        cohort = {
            ACTIVATION_DATE: day.date,
            "starts_at": day.start,
            "ends_at": day.end,
            "window_ends_at": parse_day(window[-1], feeds.timezone).end,
            "window_days": window_days,
            "has_activations": feeds.has_day("activations", key),
            "has_impressions": feeds.has_day("impressions", key),
            "days_loaded": sum(all(feeds.has_day(asset, one) for asset in REACTIONS) for one in window),
            "status": feeds.determine_status(window),
        }
        utc_date, last = day.start.date(), (day.end - timedelta(milliseconds=1)).date()
        while utc_date <= last:
            cohort_days.append({**cohort, "utc_date": utc_date})
            utc_date += timedelta(days=1)
        missing_ids += [{ACTIVATION_DATE: day.date, "activation_id": id_} for id_ in feeds.find_missing_ids(window)]
    return {
        "cohort_days": pa.Table.from_pylist(cohort_days, _COHORT_DAYS),
        "missing_ids": pa.Table.from_pylist(missing_ids, _MISSING_IDS),
    }


_MISSING_IDS = pa.schema({ACTIVATION_DATE: pa.date32(), "activation_id": pa.int64()})
_COHORT_DAYS = pa.schema(
    {
        "utc_date": pa.date32(),
        ACTIVATION_DATE: pa.date32(),
        "starts_at": TIME,
        "ends_at": TIME,
        "window_ends_at": TIME,
        "window_days": pa.int32(),
        "has_activations": pa.bool_(),
        "has_impressions": pa.bool_(),
        "days_loaded": pa.int32(),
        "status": pa.string(),
    }
)
