"""Build the metadata of a materialization of the rates: a cohort's own, and the overview of the newest cohorts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from itertools import dropwhile
from typing import Any

import dagster as dg
import pyarrow as pa

from np6_assets.partitions import ACTIVATION_DATE
from np6_assets.rates import display, measures
from np6_assets.rates.columns import SCHEMA, fill_status
from np6_assets.rates.lineage import COLUMN_LINEAGE, build_column_lineage
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

_CHARTED_COHORTS = 30


def build_metadata(rates: pa.Table, names: Mapping[int, str], *, is_over: bool) -> dict[str, Any]:
    """Build a cohort's metadata: a summary, its notifications, and what Dagster plots over the partitions.

    A day that is not over is not plotted: it would look like a decline.
    """
    rows = rates.select(measures.COLUMNS).to_pylist()
    plotted: dict[str, Any] = {
        "activations": measures.sum_sends(rows),
        **{measure.column: measure.of(rows).rate for measure in measures.MEASURES},
    }
    metadata: dict[str, Any] = {
        "rates": display.summarize_rates(rows, is_over=is_over),
        "notifications": dg.MetadataValue.md(display.write_notifications(rows, names)),
        **(plotted if is_over else {}),
        "status": measures.combine_status(rows) if rows else None,
    }
    return {name: value for name, value in metadata.items() if value is not None}


def read_notification_names(folder: Folder) -> dict[int, str]:
    """Read the notifications' names, as far as `notifications` is materialized.

    It is no dependency of the rates: a notification with a new name must not make every cohort stale.
    """
    if not folder.exists(parquet.build_path("notifications")):
        return {}
    schema = pa.schema([("activation_id", pa.int64()), ("name", pa.string())])
    table = parquet.open_dataset(folder, "notifications", schema).to_table().to_pydict()
    return {key: name for key, name in zip(table["activation_id"], table["name"], strict=True) if name}


def build_overview(folder: Folder, key: str, rates: pa.Table, settings: Settings, today: date) -> dict[str, Any]:
    """Build the overview of the newest cohorts, one of which is not stored yet, and the column lineage.

    The UI shows the last materialization, which may be one of an old cohort.
    """
    own = date.fromisoformat(key)
    days = {own, *parquet.list_days(folder, "reactivity_rates", ACTIVATION_DATE)}
    newest = [day for day in days if day > max(days) - timedelta(days=_CHARTED_COHORTS)]
    others = [day.isoformat() for day in newest if day != own]
    stored = parquet.open_partitioned_dataset(folder, "reactivity_rates", SCHEMA, ACTIVATION_DATE, others)
    rows = fill_status(stored.to_table()).select([ACTIVATION_DATE, *measures.COLUMNS]).to_pylist()
    if own in newest:
        rows += [{ACTIVATION_DATE: own, **row} for row in rates.select(measures.COLUMNS).to_pylist()]
    # cohorts before the first known sends have reactions alone, and no rate
    cohorts = measures.build_cohorts(rows)
    cohorts = list(dropwhile(lambda cohort: not any(share.whole for share in cohort.shares.values()), cohorts))
    chart = {"chart": dg.MetadataValue.md(display.write_chart(cohorts, today))} if cohorts else {}
    return {**chart, COLUMN_LINEAGE: build_column_lineage(settings)}
