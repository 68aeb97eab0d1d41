"""Computes the rates of one cohort from the event datasets: what is loaded, what is closed, and `rates.sql`."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from np6_assets.events.kinds import TIME
from np6_assets.events.store import WATERMARK
from np6_assets.partitions import ACTIVATION_DAYS, EVENT_DATE, day_of
from np6_assets.rates.columns import SCHEMA
from np6_assets.storage.parquet import partitions_of, subset

REACTIONS = ("hits", "optouts", "bounces")
"""The assets without which a cohort's rates cannot be final."""

_SQL = files(__package__).joinpath("rates.sql").read_text()


@dataclass(frozen=True)
class Feeds:
    """The event days that are materialized, of each event asset."""

    datasets: Mapping[str, ds.FileSystemDataset]
    timezone: str

    @cached_property
    def days(self) -> Mapping[str, Mapping[str, ds.ParquetFileFragment]]:
        """Of each asset, the days that are there."""
        return {asset: partitions_of(data, EVENT_DATE) for asset, data in self.datasets.items()}

    @cached_property
    def _closed(self) -> dict[tuple[str, str], bool]:
        return {}

    def has(self, asset: str, day: str) -> bool:
        """Whether an asset is materialized for a day."""
        return day in self.days[asset]

    def is_closed(self, asset: str, day: str) -> bool:
        """Whether an asset was materialized for a day after that day had ended."""
        if not self.has(asset, day):
            return False
        if (asset, day) not in self._closed:
            until = (self.days[asset][day].metadata.metadata or {}).get(WATERMARK)
            end = day_of(day, self.timezone).end
            self._closed[asset, day] = until is not None and datetime.fromisoformat(until.decode()) >= end
        return self._closed[asset, day]

    def of(self, asset: str, days: list[str]) -> ds.FileSystemDataset:
        """Some days of an asset."""
        return subset(self.datasets[asset], [self.days[asset][day] for day in days if self.has(asset, day)])


def rates(database: duckdb.DuckDBPyConnection, feeds: Feeds, activation_date: str, window_days: int) -> pd.DataFrame:
    """The rates of the cohort of a day, one row for each notification, version and application (columns.py)."""
    window = _days(activation_date, window_days)
    sent = _days(activation_date, ACTIVATION_DAYS)
    database.register("cohort", _cohort(feeds, activation_date, window, sent))
    for asset in feeds.datasets:
        view(database, asset, feeds.of(asset, sent if asset == "activations" else window))
    # a relation over the query itself would have it planned twice, which is most of a small cohort's time
    database.execute(f"CREATE OR REPLACE TEMP TABLE rates AS {_SQL}")
    result = database.table("rates").to_arrow_table()
    frame: pd.DataFrame = result.cast(SCHEMA).to_pandas(types_mapper=pd.ArrowDtype)
    return frame


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
            "memory_limit": "1GB",
            "temp_directory": spill,
            "autoinstall_known_extensions": False,
        }
    )


def _days(first: str, more: int) -> list[str]:
    start = date.fromisoformat(first)
    return [(start + timedelta(days=ahead)).isoformat() for ahead in range(more + 1)]


def _cohort(feeds: Feeds, activation_date: str, window: list[str], sent: list[str]) -> pa.Table:
    day = day_of(activation_date, feeds.timezone)
    needed = [("activations", key) for key in sent] + [(asset, key) for asset in REACTIONS for key in window]
    return pa.table(
        {
            "activation_date": pa.array([day.date], pa.date32()),
            "starts_at": pa.array([day.start], TIME),
            "ends_at": pa.array([day.end], TIME),
            "window_days": pa.array([len(window) - 1], pa.int32()),
            "has_activations": [feeds.has("activations", activation_date)],
            "has_impressions": [feeds.has("impressions", activation_date)],
            "days_loaded": pa.array(
                [sum(all(feeds.has(asset, key) for asset in REACTIONS) for key in window)], pa.int32()
            ),
            "is_final": [all(feeds.is_closed(asset, key) for asset, key in needed)],
        }
    )
