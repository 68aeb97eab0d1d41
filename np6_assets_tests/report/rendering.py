"""Write rates by hand, with or without their events, and render the report on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from np6_assets.events.kinds import KINDS
from np6_assets.rates.columns import SCHEMA
from np6_assets.report.page import render_page
from np6_assets.report.queries import ReportData, read_report_data
from np6_assets.report.sentences import write_opening
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import open_dataset, open_partitioned_dataset
from np6_assets_tests.support.oracle import RATE_COLUMNS, Row, compute_wilson
from np6_assets_tests.support.tables import build_table

NOTIFICATIONS = pa.schema([("activation_id", pa.int64()), ("name", pa.string()), ("type", pa.string())])
EVENTS = ("activations", "hits", "bounces")
TODAY = date(2026, 4, 1)


def build_row(
    day: date,
    activation_id: int,
    activations: int | None,
    *,
    version: str = "v",
    application: str = "app",
    bounced: int = 0,
    status: str = "final",
    **counts: int | None,
) -> Row:
    """Build a row of the rates with these counts, and 0 for the others."""
    zeros = {name: 0 for name, type_ in RATE_COLUMNS.items() if type_ == "int64"}
    return {
        **dict.fromkeys(RATE_COLUMNS),
        **zeros,
        "activation_date": day,
        "agency": "DEMO",
        "customer": "028",
        "activation_id": activation_id,
        "activation_version": version,
        "application_id": application,
        "activations": activations,
        "bounced": bounced,
        "delivered": None if activations is None else activations - bounced,
        "window_days": 7,
        "days_loaded": 8,
        "status": status,
        "is_final": status == "final",
        **counts,
    }


def write_rates(root: Path, rows: Iterable[Row], names: Mapping[int, str]) -> None:
    """Write the rows and the names of notifications."""
    by_day = defaultdict(list)
    for row in rows:
        by_day[row["activation_date"]].append(row)
    for day, of_day in by_day.items():
        _write(root / "reactivity_rates" / f"activation_date={day}", build_table(of_day, RATE_COLUMNS))
    listing = [{"activation_id": key, "name": name, "type": "push"} for key, name in names.items()]
    _write(root / "notifications", pa.Table.from_pylist(listing, NOTIFICATIONS))


def write_events(root: Path, rows: Iterable[Row], days_later: int = 0, assets: Sequence[str] = EVENTS) -> None:
    """Write the events of the rows: sent at 9 (UTC); hits come `days_later`."""
    events: dict[tuple[str, date], list[dict[str, Any]]] = defaultdict(list)
    for number, row in enumerate(rows):
        day = row["activation_date"]
        sent_at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
        counts = {"activations": row["activations"], "hits": row["hit_activations"], "bounces": row["bounced"]}
        for asset in assets:
            later = timedelta(days=days_later if asset == "hits" else 0)
            events[asset, day]  # a day without events has its file
            events[asset, day + later] += [
                {
                    **{name: row[name] for name in ("agency", "customer", "activation_id")},
                    **{name: row[name] for name in ("activation_version", "application_id")},
                    "event_id": f"{asset} {number} {at}",
                    "event_time": sent_at + later,
                    "activated_at": sent_at,
                    "stamp_id": f"stamp {number}",
                    # those that bounce are not those that hit
                    "subscription_id": f"{-at - 1 if asset == 'bounces' else at}",
                    **({"link_type": "redirection"} if asset == "hits" else {}),
                }
                for at in range(counts[asset] or 0)
            ]
    schemas = {kind.asset: kind.schema for kind in KINDS}
    for (asset, day), of_day in events.items():
        _write(root / asset / f"event_date={day}", pa.Table.from_pylist(of_day, schemas[asset]))


def write_report(root: Path, rows: Iterable[Row], names: Mapping[int, str] | None = None) -> str:
    """Write the rows without events, and render the report on them."""
    write_rates(root, rows, names or {})
    return render_report(root)


def read_report(root: Path, cohorts: int = 90) -> ReportData:
    """Read the data of the report on the stored rates and events."""
    folder = Folder(str(root))

    def list_stored_days(asset: str) -> list[str]:
        return sorted(path.name.partition("=")[2] for path in (root / asset).glob("*=*"))

    schemas = {kind.asset: kind.schema for kind in KINDS if kind.asset in EVENTS}
    rates = "reactivity_rates"
    stored = {
        rates: open_partitioned_dataset(folder, rates, SCHEMA, "activation_date", list_stored_days(rates)),
        "notifications": open_dataset(folder, "notifications", NOTIFICATIONS),
    }
    for asset, schema in schemas.items():
        stored[asset] = open_partitioned_dataset(folder, asset, schema, "event_date", list_stored_days(asset))
    return read_report_data(stored, "Europe/Paris", TODAY, cohorts)


def render_report(root: Path) -> str:
    """Render the report on the stored rates and events as a page."""
    report = read_report(root)
    rendered_at = datetime(TODAY.year, TODAY.month, TODAY.day, 6, tzinfo=UTC)
    return render_page(report, write_opening(report), rendered_at, "Europe/Paris")


def format_rate(part: int, whole: int) -> list[str]:
    """Format a rate and its interval as the texts of a cell."""
    if not whole:
        return ["—"]
    low, high = compute_wilson(part, whole)
    if low is None or high is None:
        return [f"{part / whole:.2%}"]
    digits = 2 if high < 0.01 else 1
    return [f"{part / whole:.2%}", f"{low * 100:.{digits}f} to {high * 100:.{digits}f}%"]


def _write(folder: Path, table: pa.Table) -> None:
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "part-0.parquet")
