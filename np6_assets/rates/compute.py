"""Computes the rates of any number of cohorts from the event datasets: `rates.sql`, many cohorts at once.

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
from np6_assets.partitions import ACTIVATION_DATE, Day, day_of, event_days
from np6_assets.rates.columns import SCHEMA
from np6_assets.rates.feeds import REACTIONS, Feeds

ROWS_AT_ONCE = 2**20
"""How many events the days of cohorts that are computed together have at most; a cohort with more is computed alone."""

Run: TypeAlias = Callable[[str, Mapping[str, ds.FileSystemDataset], Mapping[str, pa.Table]], pa.Table]
"""Runs a query over datasets and tables, each by the name that SQL has for it."""

_SQL = files(__package__).joinpath("rates.sql").read_text()


def rates(run: Run, feeds: Feeds, cohorts: Sequence[str], window_days: int) -> Iterator[tuple[str, pa.Table]]:
    """The rates of each cohort, in order: one row for each notification, version and application (columns.py)."""
    for chunk in chunks(feeds, cohorts, window_days):
        table = _rates(run, feeds, chunk, window_days)
        for key in chunk:
            rows = table.filter(pc.field(ACTIVATION_DATE) == date.fromisoformat(key)).drop_columns(ACTIVATION_DATE)
            yield key, rows.cast(SCHEMA)


def chunks(feeds: Feeds, cohorts: Sequence[str], window_days: int) -> Iterator[list[str]]:
    """The cohorts, those together whose event days have at most ROWS_AT_ONCE rows."""
    chunk: list[str] = []
    days: set[str] = set()
    rows = 0
    for key in cohorts:
        window = set(event_days(key, window_days))
        more = sum(map(feeds.rows, window - days))
        if chunk and rows + more > ROWS_AT_ONCE:
            yield chunk
            chunk, days, rows, more = [], set(), 0, sum(map(feeds.rows, window))
        chunk.append(key)
        days |= window
        rows += more
    if chunk:
        yield chunk


def _rates(run: Run, feeds: Feeds, cohorts: Sequence[str], window_days: int) -> pa.Table:
    days = sorted({day for key in cohorts for day in event_days(key, window_days)})
    tables = {
        "cohorts": _cohorts(feeds, cohorts, window_days),
        "missing_ids": _missing_ids(feeds, cohorts, window_days),
        "cohort_days": _cohort_days(feeds, cohorts, window_days),
    }
    return run(_SQL, {asset: feeds.of(asset, days) for asset in feeds.datasets}, tables)


def in_duckdb(database: duckdb.DuckDBPyConnection) -> Run:
    """Let DuckDB run queries."""

    def run(sql: str, datasets: Mapping[str, ds.FileSystemDataset], tables: Mapping[str, pa.Table]) -> pa.Table:
        for name, table in tables.items():
            database.register(name, table)
        for name, data in datasets.items():
            view(database, name, data)
        # a relation over the query itself would have it planned twice, which is most of a small cohort's time
        execute_within_memory(database, f"CREATE OR REPLACE TEMP TABLE result AS {sql}")
        return database.table("result").to_arrow_table()

    return run


def execute_within_memory(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Run a statement; again on one thread, and so what follows, where memory did not suffice for several.

    Each thread has groups of its own in memory before DuckDB spills any: of ten million sends that is too many now and
    then, and shows early.
    """
    try:
        database.execute(sql)
    except duckdb.OutOfMemoryException:
        database.execute("SET threads = 1")
        database.execute(sql)


def view(database: duckdb.DuckDBPyConnection, name: str, data: ds.FileSystemDataset) -> None:
    """Let SQL read a dataset by a name, in place of what it read by it before.

    DuckDB reads the files itself: pyarrow's scanner can deadlock when it is read as a stream from a Python file system.
    """
    if not data.files:
        # what is registered would hide every later view of that name
        database.from_arrow(data.schema.empty_table()).create_view(name)
        return
    files = data.files
    if isinstance(data.filesystem, pafs.PyFileSystem):
        remote = data.filesystem.handler.fs
        protocols = {remote.protocol} if isinstance(remote.protocol, str) else set(remote.protocol)
        if protocols.isdisjoint(database.list_filesystems()):  # DuckDB takes it once
            database.register_filesystem(remote)
        files = [remote.unstrip_protocol(file) for file in files]
    database.read_parquet(files, hive_partitioning=True).create_view(name)


def connect() -> duckdb.DuckDBPyConnection:
    """A database in bounded memory, gone when it is closed."""
    # DuckDB makes this folder where memory does not suffice, and removes it
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


def _cohorts(feeds: Feeds, cohorts: Sequence[str], window_days: int) -> pa.Table:
    """The table `cohorts` of rates.sql."""
    rows = []
    for key in cohorts:
        window = event_days(key, window_days)
        rows.append(
            {
                ACTIVATION_DATE: date.fromisoformat(key),
                "window_days": window_days,
                "has_activations": feeds.has("activations", key),
                "has_impressions": feeds.has("impressions", key),
                "days_loaded": sum(all(feeds.has(asset, day) for asset in REACTIONS) for day in window),
                "status": feeds.status(window),
            }
        )
    return pa.Table.from_pylist(rows, _COHORTS)


_COHORTS = pa.schema(
    {
        ACTIVATION_DATE: pa.date32(),
        "window_days": pa.int32(),
        "has_activations": pa.bool_(),
        "has_impressions": pa.bool_(),
        "days_loaded": pa.int32(),
        "status": pa.string(),
    }
)


def _missing_ids(feeds: Feeds, cohorts: Sequence[str], window_days: int) -> pa.Table:
    """The table `missing_ids` of rates.sql."""
    pairs = [
        (date.fromisoformat(key), id_)
        for key in cohorts
        for id_ in sorted(feeds.missing_ids(event_days(key, window_days)))
    ]
    dates, ids = zip(*pairs, strict=True) if pairs else ((), ())
    return pa.table({ACTIVATION_DATE: pa.array(dates, pa.date32()), "activation_id": pa.array(ids, pa.int64())})


def _utc_dates(day: Day) -> list[date]:
    """The UTC days that a day touches."""
    first, last = day.start.date(), (day.end - timedelta(milliseconds=1)).date()
    return [first + timedelta(days=ahead) for ahead in range((last - first).days + 1)]


def _cohort_days(feeds: Feeds, cohorts: Sequence[str], window_days: int) -> pa.Table:
    """The table `cohort_days` of rates.sql."""
    rows = [
        {
            "utc_date": utc_date,
            ACTIVATION_DATE: day.date,
            "starts_at": day.start,
            "ends_at": day.end,
            "window_ends_at": day_of(event_days(day.key, window_days)[-1], feeds.timezone).end,
        }
        for day in (day_of(key, feeds.timezone) for key in cohorts)
        for utc_date in _utc_dates(day)
    ]
    return pa.Table.from_pylist(rows, _COHORT_DAYS)


_COHORT_DAYS = pa.schema(
    {
        "utc_date": pa.date32(),
        ACTIVATION_DATE: pa.date32(),
        "starts_at": TIME,
        "ends_at": TIME,
        "window_ends_at": TIME,
    }
)
