"""Whether a cohort's rates can be, and are those of the event files. What the checks are is in `checks.py`."""

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
from np6_assets.partitions import ACTIVATION_DATE, EVENT_DATE, Day, day_of
from np6_assets.rates.checks import ASSET, CHECKS, ORPHANS
from np6_assets.rates.columns import SCHEMA, with_status
from np6_assets.rates.counting import COUNTED, Counts, recount
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
"""The rates that are above 1 where the events say so: of sends without an activation, or that bounced and reacted."""


NOT_KEPT = Finding(True, "its events are not kept any more: nothing to compare with")


def examine(
    settings: Settings, folder: Folder, keys: Sequence[str], records: Records
) -> Iterator[tuple[str, Mapping[str, Finding]]]:
    """What each check finds in each of the cohorts that are there, by the check's name."""
    activations = EventStore(folder, ACTIVATIONS, settings)

    @cache
    def is_sent(day: Day) -> bool:
        return (stored := activations.stored(day)) is not None and stored.is_closed(day)

    files = {key: parquet.file_of(ASSET, ACTIVATION_DATE, key) for key in keys}
    days = []
    for day in (day_of(key, settings.timezone) for key, file in files.items() if folder.exists(file)):
        if settings.retention_days is None or _has_events(folder, day):
            days.append(day)
        else:
            yield day.key, {check.name: NOT_KEPT for check in CHECKS}
    made = records.newest(ASSET, keys)
    computed = set(parquet.days_stored(folder, ASSET, ACTIVATION_DATE))
    for day, counted, placement in recount(folder, days, settings):
        rates = _read(folder, files[day.key])
        all_sent = all(map(is_sent, _window(day, settings)))
        yield (
            day.key,
            {
                "rates_within_0_and_1": within_0_and_1(rates, all_sent),
                "counts_reconciled": reconciled(
                    totals(rates),
                    counted,
                    partial(_changed_since, day, made.get(day.key), records, settings),
                ),
                "orphans_few": orphans(rates, all_sent),
                "events_counted": placement.finding(computed),
            },
        )


def _has_events(folder: Folder, day: Day) -> bool:
    """Whether a day's events are there; of those that are not kept any more the rates stay, and cannot be counted."""
    return any(folder.exists(parquet.file_of(kind.asset, EVENT_DATE, day.key)) for kind in KINDS)


def _read(folder: Folder, file: str) -> pa.Table:
    with folder.open(file) as opened:
        return with_status(pq.ParquetFile(opened).read())


def _window(day: Day, settings: Settings) -> list[Day]:
    """The event days of a cohort."""
    days = (day.date + timedelta(days=ahead) for ahead in range(settings.window_days + 1))
    return [day_of(one.isoformat(), settings.timezone) for one in days]


def within_0_and_1(rates: pa.Table, is_sent: bool) -> Finding:
    """Whether the rates can be. NaN and infinity cannot."""
    wrong, unexplained = {}, False
    for name in (*_WITHIN_0_AND_1, _AT_LEAST_1):
        values = _numbers(rates, name)
        fine = values >= 1 if name == _AT_LEAST_1 else (values >= 0) & (values <= 1)
        out = np.isinf(values) | ~fine & rates.column(name).is_valid().to_numpy()
        if count := int(np.count_nonzero(out)):
            wrong[name] = count
            part, whole = (_numbers(rates, counted) for counted in _SHARE_OF.get(name, (name, name)))
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


def _numbers(rates: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column as floats; NaN where it is null."""
    numbers: npt.NDArray[np.float64] = rates.column(name).cast(pa.float64()).to_numpy()
    return numbers


def orphans(rates: pa.Table, is_sent: bool) -> Finding:
    """Whether the activations know nearly all sends that reacted, of the rows that are not incomplete."""
    if not is_sent:
        return Finding(True, "the cohort's activations are not all closed: nothing to compare with")
    rates = rates.filter(pc.field("status") != "incomplete")
    lost = pc.sum(rates.column("orphan_reactions")).as_py() or 0
    reacting = pc.sum(rates.column("reacting_activations")).as_py() or 0
    share = lost / reacting if reacting else 0.0
    text = f"{lost} of {reacting} reacting sends have no activation"
    return Finding(share <= ORPHANS, text, {"orphan_reactions": lost, "share": share})


def totals(rates: pa.Table) -> Counts:
    """The sums of the stored counts."""
    sums = {name: pc.sum(rates.column(name)).as_py() for name in COUNTED}
    return sums if rates.num_rows else dict.fromkeys(sums, 0)


def reconciled(stored: Counts, counted: Counts, changed_since: Callable[[], list[str]]) -> Finding:
    """Whether the stored sums are those that were counted anew."""
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


def _changed_since(day: Day, made: dg.EventLogRecord | None, records: Records, settings: Settings) -> list[str]:
    """The event assets that were materialized, for a day that the cohort needs, after its rates."""
    if made is None:
        return []
    days = [other.key for other in _window(day, settings)]
    return [
        kind.asset
        for kind in KINDS
        if any(record.storage_id > made.storage_id for record in records.newest(kind.asset, days).values())
    ]
