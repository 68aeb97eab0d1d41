"""Check whether a cohort's rates are possible, and match the event files. The checks are declared in `checks.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache, partial

import dagster as dg
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from np6_assets.events.kinds import ACTIVATIONS, KINDS
from np6_assets.events.store import EventStore
from np6_assets.partition_checks import Finding, Records
from np6_assets.partitions import ACTIVATION_DATE, EVENT_DATE, Day, parse_day
from np6_assets.rates.checks import ASSET, CHECKS, ORPHANS
from np6_assets.rates.columns import SCHEMA, fill_status
from np6_assets.rates.counting import COUNTED, Counts, recount_cohorts
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
    activations = EventStore(folder, ACTIVATIONS, settings)

    @cache
    def is_sent(day: Day) -> bool:
        return (stored := activations.read_day(day)) is not None and stored.is_closed(day)

    files = {key: parquet.build_path(ASSET, ACTIVATION_DATE, key) for key in keys}
    days = []
    for day in (parse_day(key, settings.timezone) for key, file in files.items() if folder.exists(file)):
        if settings.retention_days is None or _has_events(folder, day):
            days.append(day)
        else:
            yield day.key, {check.name: NOT_KEPT for check in CHECKS}
    made = records.newest(ASSET, keys)
    computed = set(parquet.list_days(folder, ASSET, ACTIVATION_DATE))
    for day, counted, placement in recount_cohorts(folder, days, settings):
        rates = _read_rates(folder, files[day.key])
        all_sent = all(map(is_sent, _list_window(day, settings)))
        yield (
            day.key,
            {
                "rates_within_0_and_1": check_range(rates, all_sent),
                "counts_reconciled": check_counts(
                    sum_counts(rates),
                    counted,
                    partial(_find_changed_assets, day, made.get(day.key), records, settings),
                ),
                "orphans_few": check_orphans(rates, all_sent),
                "events_counted": placement.check(computed),
            },
        )


def _has_events(folder: Folder, day: Day) -> bool:
    """Tell whether a day's events are stored: after retention its rates remain, and cannot be recounted."""
    return any(folder.exists(parquet.build_path(kind.asset, EVENT_DATE, day.key)) for kind in KINDS)


def _read_rates(folder: Folder, file: str) -> pa.Table:
    with folder.open(file) as opened:
        return fill_status(pq.ParquetFile(opened).read())


def _list_window(day: Day, settings: Settings) -> list[Day]:
    """List the event days of a cohort."""
    days = (day.date + timedelta(days=ahead) for ahead in range(settings.window_days + 1))
    return [parse_day(one.isoformat(), settings.timezone) for one in days]


def check_range(rates: pa.Table, is_sent: bool) -> Finding:
    """Check that each rate is within its range, and neither NaN nor infinite."""
    wrong, unexplained = {}, False
    for name in (*_WITHIN_0_AND_1, _AT_LEAST_1):
        values = _read_column(rates, name)
        fine = values >= 1 if name == _AT_LEAST_1 else (values >= 0) & (values <= 1)
        out = np.isinf(values) | ~fine & rates.column(name).is_valid().to_numpy()
        if count := int(np.count_nonzero(out)):
            wrong[name] = count
            part, whole = (_read_column(rates, counted) for counted in _SHARE_OF.get(name, (name, name)))
            unexplained |= bool(np.any(out & ~(part > whole)))
    if not wrong:
        return Finding(True, f"all rates of {rates.num_rows} rows are in their range", {"rows": rates.num_rows})
    columns = ", ".join(f"{name} in {count} rows" for name, count in wrong.items())
    if not is_sent:
        why = "; the cohort's activations are not all closed, so this can pass"
    elif unexplained:
        why = "; the counts say otherwise; materialize the rates again"
    else:
        why = "; so are the counts: sends reacted that have no activation, or that bounced"
    tolerated = not is_sent or not unexplained
    return Finding(False, f"out of range: {columns}{why}", {"rows_out_of_range": wrong}, tolerated=tolerated)


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


def sum_counts(rates: pa.Table) -> Counts:
    """Sum the stored counts."""
    sums = {name: pc.sum(rates.column(name)).as_py() for name in COUNTED}
    return sums if rates.num_rows else dict.fromkeys(sums, 0)


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


def _find_changed_assets(day: Day, made: dg.EventLogRecord | None, records: Records, settings: Settings) -> list[str]:
    """Find the event assets that were materialized after the rates, for a day that the cohort needs."""
    if made is None:
        return []
    days = [other.key for other in _list_window(day, settings)]
    return [
        kind.asset
        for kind in KINDS
        if any(record.storage_id > made.storage_id for record in records.newest(kind.asset, days).values())
    ]
