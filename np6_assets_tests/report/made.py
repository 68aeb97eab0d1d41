"""Reports on rates that are made by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from np6_assets.events.kinds import KINDS
from np6_assets.rates.columns import SCHEMA
from np6_assets.report.page import render
from np6_assets.report.queries import find
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import dataset, partitioned_dataset
from np6_assets_tests.support.oracle import RATE_COLUMNS, Row
from np6_assets_tests.support.tables import table_of

NOTIFICATIONS = pa.schema([("activation_id", pa.int64()), ("name", pa.string()), ("type", pa.string())])


def sends(
    day: date,
    activation_id: int,
    activations: int | None,
    *,
    version: str = "v",
    bounced: int = 0,
    status: str = "final",
    **counts: int,
) -> Row:
    """A row of the rates: the counts that are given, 0 for the others."""
    zeros = {name: 0 for name, type_ in RATE_COLUMNS.items() if type_ == "int64"}
    return {
        **dict.fromkeys(RATE_COLUMNS),
        **zeros,
        "activation_date": day,
        "agency": "DEMO",
        "customer": "028",
        "activation_id": activation_id,
        "activation_version": version,
        "application_id": "app",
        "activations": activations,
        "bounced": bounced,
        "delivered": None if activations is None else activations - bounced,
        "window_days": 7,
        "days_loaded": 8,
        "status": status,
        "is_final": status == "final",
        **counts,
    }


def make(root: Path, rows: Iterable[Row], names: Mapping[int, str]) -> None:
    """Store the rows and the names of notifications."""
    by_day = defaultdict(list)
    for row in rows:
        by_day[row["activation_date"]].append(row)
    for day, of_day in by_day.items():
        _write(root / "reactivity_rates" / f"activation_date={day}", table_of(of_day, RATE_COLUMNS))
    listing = [{"activation_id": key, "name": name, "type": "push"} for key, name in names.items()]
    _write(root / "notifications", pa.Table.from_pylist(listing, NOTIFICATIONS))


def report(root: Path, rows: Iterable[Row], names: Mapping[int, str] | None = None, cohorts: int = 90) -> str:
    """The report on the rows; there are no events."""
    rows = list(rows)
    make(root, rows, names or {})
    return rendered(root, sorted({row["activation_date"] for row in rows}), cohorts)


def rendered(root: Path, cohort_days: Iterable[date], cohorts: int = 90) -> str:
    """The report on what is stored of these cohorts."""
    folder = Folder(str(root))
    days = [str(day) for day in cohort_days]
    events: dict[str, Any] = {
        kind.asset: partitioned_dataset(folder, kind.asset, kind.schema, "event_date", []) for kind in KINDS
    }
    findings = find(
        partitioned_dataset(folder, "reactivity_rates", SCHEMA, "activation_date", days),
        dataset(folder, "notifications", NOTIFICATIONS),
        events["hits"],
        events["bounces"],
        timezone="Europe/Paris",
        cohorts=cohorts,
    )
    return render(findings, datetime(2026, 4, 1, tzinfo=UTC), "Europe/Paris")


def _write(folder: Path, table: pa.Table) -> None:
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "part-0.parquet")
