"""What the UI shows of a materialization of the rates: a cohort's own, and those of the cohorts up to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from itertools import dropwhile
from typing import Any

import dagster as dg
import pyarrow as pa

from np6_assets.partitions import ACTIVATION_DATE
from np6_assets.rates import pictures
from np6_assets.rates.columns import SCHEMA, with_status
from np6_assets.rates.lineage import COLUMN_LINEAGE, column_lineage
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

_CHARTED_COHORTS = 30


def metadata_of(rates: pa.Table, names: Mapping[int, str]) -> dict[str, Any]:
    """What the UI shows of a cohort: its own rates, which Dagster plots over the partitions, and its notifications."""
    rows = rates.select(pictures.COLUMNS).to_pylist()
    metadata: dict[str, Any] = {
        "activations": pictures.sends_of(rows),
        "status": pictures.status_of(rows) if rows else None,
        **{measure.column: measure.of(rows).rate for measure in pictures.MEASURES},
        "notifications": dg.MetadataValue.md(pictures.notifications_markdown(rows, names)),
    }
    return {name: value for name, value in metadata.items() if value is not None}


def notification_names(folder: Folder) -> dict[int, str]:
    """The notifications' names, as far as `notifications` is materialized.

    No dependency of the rates: a notification that gets another name must not make every cohort stale.
    """
    if not folder.exists(parquet.file_of("notifications")):
        return {}
    schema = pa.schema([("activation_id", pa.int64()), ("name", pa.string())])
    table = parquet.dataset(folder, "notifications", schema).to_table().to_pydict()
    return {key: name for key, name in zip(table["activation_id"], table["name"], strict=True) if name}


def _can_draw() -> bool:
    """Whether what draws is installed: the rates do without."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def overview(folder: Folder, key: str, rates: pa.Table, settings: Settings) -> dict[str, Any]:
    """What the UI shows of the newest cohorts, one of which is not stored yet, and where the columns come from.

    The UI shows what the last materialization says, and that may be one of an old cohort.
    """
    own = date.fromisoformat(key)
    days = {own, *parquet.days_stored(folder, "reactivity_rates", ACTIVATION_DATE)}
    newest = [day for day in days if day > max(days) - timedelta(days=_CHARTED_COHORTS)]
    others = [day.isoformat() for day in newest if day != own]
    stored = parquet.partitioned_dataset(folder, "reactivity_rates", SCHEMA, ACTIVATION_DATE, others)
    rows = with_status(stored.to_table()).select([ACTIVATION_DATE, *pictures.COLUMNS]).to_pylist()
    if own in newest:
        rows += [{ACTIVATION_DATE: own, **row} for row in rates.select(pictures.COLUMNS).to_pylist()]
    # cohorts before the first known sends have reactions alone, and no rate
    cohorts = list(dropwhile(_has_no_rate, pictures.cohorts_of(rows)))
    chart = {"chart": dg.MetadataValue.md(pictures.chart_markdown(cohorts))} if cohorts and _can_draw() else {}
    return {COLUMN_LINEAGE: column_lineage(settings), **chart}


def _has_no_rate(cohort: pictures.Cohort) -> bool:
    return all(share.rate is None for share in cohort.shares.values())
