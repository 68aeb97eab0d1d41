"""Check whether a cohort's rates are possible, and match the event files. The checks are declared in `checks.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import dagster as dg
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from np6_assets.events.kinds import KINDS
from np6_assets.partition_checks import Finding, Records
from np6_assets.partitions import ACTIVATION_DATE, event_days
from np6_assets.rates import counting
from np6_assets.rates.checks import ASSET, CHECKS, ORPHANS
from np6_assets.rates.columns import SCHEMA, fill_status
from np6_assets.rates.compute import group_cohorts, open_duckdb
from np6_assets.rates.counting import Counts
from np6_assets.rates.feeds import open_feeds
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

_AT_LEAST_1 = "hits_per_hit_activation"
_WITHIN_0_AND_1 = [field.name for field in SCHEMA if field.type == pa.float64() and field.name != _AT_LEAST_1]
_SHARE_OF = {
    "hit_rate": ("hit_activations", "delivered"),
    "optout_rate": ("optout_activations", "delivered"),
    "bounce_rate": ("bounced", "activations"),
    "hard_bounce_rate": ("bounces_hard", "activations"),
    "impression_rate": ("impression_activations", "delivered"),
}
"""Rates that may exceed 1 because of the events: sends without an activation, or that bounced and reacted."""


NOT_KEPT = Finding(True, "its events are no longer stored: nothing to compare with")


def check_cohorts(
    settings: Settings, folder: Folder, keys: Sequence[str], records: Records
) -> Iterator[tuple[str, Mapping[str, Finding]]]:
    """Check each of the stored cohorts; gives the findings by the check's name."""
    needed = sorted({day for key in keys for day in event_days(key, settings.window_days)})
    feeds = open_feeds(folder, needed, settings)
    files = {key: parquet.build_path(ASSET, ACTIVATION_DATE, key) for key in keys}
    cohorts = []
    for key in (key for key, file in files.items() if folder.exists(file)):
        # after retention the rates of a day remain
        if settings.retention_days is None or any(feeds.has_day(asset, key) for asset in feeds.datasets):
            cohorts.append(key)
        else:
            yield key, {check.name: NOT_KEPT for check in CHECKS}
    made = records.newest(ASSET, keys)
    computed = set(parquet.list_days(folder, ASSET, ACTIVATION_DATE))
    with open_duckdb() as database:
        for chunk in group_cohorts(feeds, cohorts, settings.window_days, counting.ROWS_AT_ONCE):
            placed = counting.place_events(database, feeds, chunk)
            counts = counting.recount_cohorts(database, feeds, chunk, settings.window_days)
            for key in chunk:
                window = event_days(key, settings.window_days)
                sends = [feeds.stored("activations", day) for day in window]
                all_sent = all(one is not None and one.is_closed for one in sends)
                rates = _read_rates(folder, files[key])
                changed_since = partial(_find_changed_assets, window, made.get(key), records)
                yield (
                    key,
                    {
                        "rates_within_0_and_1": check_range(rates, all_sent),
                        "counts_reconciled": check_counts(_sum_columns(rates, counts[key]), counts[key], changed_since),
                        "orphans_few": check_orphans(rates, all_sent),
                        "events_counted": counting.check_placement(placed[key], settings, computed),
                    },
                )


def _sum_columns(rates: pa.Table, names: Iterable[str]) -> Counts:
    return {name: pc.sum(rates.column(name)).as_py() if rates.num_rows else 0 for name in names}


def _read_rates(folder: Folder, file: str) -> pa.Table:
    with folder.open(file) as opened:
        return fill_status(pq.ParquetFile(opened).read())


def check_range(rates: pa.Table, is_sent: bool) -> Finding:
    """Check that each rate is within its range, and neither NaN nor infinite."""
    wrong, unexplained = {}, False
    for name in (*_WITHIN_0_AND_1, _AT_LEAST_1):
        low, high = (1, np.finfo(float).max) if name == _AT_LEAST_1 else (0, 1)
        values = _read_column(rates, name)
        out = ~((values >= low) & (values <= high)) & rates.column(name).is_valid().to_numpy()
        if out.any():
            wrong[name] = int(np.count_nonzero(out))
            part, whole = (_read_column(rates, counted) for counted in _SHARE_OF.get(name, (name, name)))
            unexplained |= bool(np.any(out & ~(part > whole)))
    if not wrong:
        return Finding(True, f"all rates of {rates.num_rows} rows are in their range", {"rows": rates.num_rows})
    columns = ", ".join(f"{name} in {count} rows" for name, count in wrong.items())
    if not is_sent:
        why = "the cohort's activations are not all closed, so this can pass"
    elif unexplained:
        why = "the counts say otherwise; materialize the rates again"
    else:
        why = "so are the counts: sends reacted that have no activation, or that bounced"
    tolerated = not is_sent or not unexplained
    return Finding(False, f"out of range: {columns}; {why}", {"rows_out_of_range": wrong}, tolerated=tolerated)


def _read_column(rates: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Read a column as floats; NaN where it is null."""
    numbers: npt.NDArray[np.float64] = rates.column(name).cast(pa.float64()).to_numpy()
    return numbers


def check_orphans(rates: pa.Table, is_sent: bool) -> Finding:
    """Check that nearly all reacting sends have an activation; incomplete rows do not count."""
    if not is_sent:
        return Finding(True, "the cohort's activations are not all closed: nothing to compare with")
    rates = rates.filter(pc.field("status") != "incomplete")
    lost = pc.sum(rates.column("orphan_reactions")).as_py() or 0
    reacting = pc.sum(rates.column("reacting_activations")).as_py() or 0
    share = lost / reacting if reacting else 0.0
    text = f"{lost} of {reacting} reacting sends have no activation"
    return Finding(share <= ORPHANS, text, {"orphan_reactions": lost, "share": share})


def check_counts(stored: Counts, counted: Counts, changed_since: Callable[[], list[str]]) -> Finding:
    """Check that the stored sums equal the recounted ones."""
    nothing = not any(counted.values())
    wrong = {
        name: f"{stored[name]} stored, {number} counted"
        for name, number in counted.items()
        if stored[name] != number and not (nothing and not stored[name])
    }
    if not wrong:
        return Finding(True, "the counts are those of the event files", {name: n for name, n in counted.items() if n})
    changed = changed_since()
    if changed:
        why = f"{', '.join(changed)} were materialized again since; materialize the rates again"
    else:
        why = "the event files say otherwise; materialize the rates again"
    text = "; ".join(f"{name}: {both}" for name, both in wrong.items())
    return Finding(False, f"{text}: {why}", {"differences": wrong}, tolerated=bool(changed))


def _find_changed_assets(days: Sequence[str], made: dg.EventLogRecord | None, records: Records) -> list[str]:
    """Find the event assets of which one of the days was materialized after the rates."""
    if made is None:
        return []
    return [
        kind.asset
        for kind in KINDS
        if any(record.storage_id > made.storage_id for record in records.newest(kind.asset, days).values())
    ]
