"""Write event files as materializations write them, and compute rates from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from np6_assets.events.kinds import KINDS
from np6_assets.rates.compute import QueryRunner, compute_rates
from np6_assets.rates.feeds import Feeds
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import open_partitioned_dataset
from np6_assets_tests.support.oracle import Row, compute_day_bounds, list_columns
from np6_assets_tests.support.tables import build_table

ALL = tuple(kind.asset for kind in KINDS)
Days = Mapping[str, Mapping[date, list[Row] | None]]


def list_days_from(first: date, number: int) -> list[date]:
    return [first + timedelta(days=ahead) for ahead in range(number)]


def write_feeds(
    root: Path,
    feeds: Days,
    tz: str,
    is_closed: Callable[[str, date], bool] = lambda kind, day: True,
    missing_ids: Mapping[tuple[str, date], Collection[int]] | None = None,
    due: datetime | None = None,
) -> Feeds:
    """Write the files that materializations write; a day that is not closed was fetched before its end."""
    for kind, days in feeds.items():
        for day, rows in days.items():
            if rows is None:
                continue
            end = datetime.fromtimestamp(compute_day_bounds(day, tz)[1] / 1000, UTC)
            until = end if is_closed(kind, day) else end - timedelta(milliseconds=1)
            metadata = {"np6.fetched_until": until.isoformat()}
            if ids := (missing_ids or {}).get((kind, day)):
                metadata["np6.missing_ids"] = json.dumps(ids)
            table = build_table(rows, list_columns(kind)).replace_schema_metadata(metadata)
            path = root / kind / f"event_date={day}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(table, path)
    keys = sorted({day.isoformat() for days in feeds.values() for day in days})
    datasets = {
        kind.asset: open_partitioned_dataset(Folder(str(root)), kind.asset, kind.schema, "event_date", keys)
        for kind in KINDS
    }
    return Feeds(datasets, tz, due)


def compute_tables(run: QueryRunner, feeds: Feeds, cohorts: list[date], window: int) -> dict[date, pa.Table]:
    """Compute the rates of each cohort, in the order of computation."""
    keys = [f"{cohort}" for cohort in cohorts]
    return {date.fromisoformat(key): rows for key, rows in compute_rates(run, feeds, keys, window)}


def list_rows(rates: pa.Table, day: date) -> list[Row]:
    """List the rows of a cohort as the oracle writes them."""
    return [{"activation_date": day, **row} for row in rates.to_pylist()]
