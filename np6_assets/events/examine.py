"""What is wrong with a stored event day, found in one pass over its file. What the checks are is in `checks.py`."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dagster as dg
import numpy as np

from np6_assets.events.checks import CLOCK_SKEW, LEAST_WEEKS, USUAL_FACTOR, WEEKS
from np6_assets.events.files import EventFiles, Stored
from np6_assets.events.kinds import EventKind
from np6_assets.events.ordering import Ledger
from np6_assets.partition_checks import Finding, Records
from np6_assets.partitions import EVENT_DATE, Day, day_of
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder
from np6_assets.storage.query import Query, querying

_DEVIATIONS = 5
"""Small numbers vary by chance: the range is widened by that many square roots at least."""

_SAMPLE = 5
_SUSPECTS = 1000


def examine(
    kind: EventKind, settings: Settings, folder: Folder, keys: Sequence[str], records: Records
) -> Iterator[tuple[str, Mapping[str, Finding]]]:
    """What each check finds in each of the days that are there, by the check's name. One pass over each file."""
    files = EventFiles(folder, kind, settings)
    materialized = records.newest(kind.asset, keys)
    known: dict[str, Stored | None] = {}

    def stored(key: str) -> Stored | None:
        if key not in known:
            known[key] = files.stored(day_of(key, settings.timezone))
        return known[key]

    with querying(folder) as query:
        for key in keys:
            if (one := stored(key)) is None:
                continue
            day = day_of(key, settings.timezone)
            record = materialized.get(key)
            scan = _scan(query, parquet.file_of(kind.asset, EVENT_DATE, key), day)
            yield (
                key,
                {
                    "ids_unique": _ids_unique(scan),
                    "inside_day": _inside_day(scan, day),
                    "not_before_activation": _not_before_activation(scan),
                    "quarantine_empty": _quarantine_empty(files.quarantined(day)),
                    "fields_known": _fields_known(record),
                    "volume_as_usual": volume(
                        one.rows if _is_closed(one, day) else None,
                        [
                            past.rows
                            for before in _same_weekdays(day, settings.timezone)
                            if (past := stored(before.key)) is not None and _is_closed(past, before)
                        ],
                    ),
                },
            )


def _same_weekdays(day: Day, timezone: str) -> list[Day]:
    dates = [day.date - timedelta(weeks=weeks) for weeks in range(1, WEEKS + 1)]
    return [day_of(date.isoformat(), timezone) for date in dates]


def _is_closed(stored: Stored, day: Day) -> bool:
    return stored.fetched_until is not None and stored.fetched_until >= day.end


@dataclass(frozen=True)
class _Scan:
    """What one pass over a day's file showed: numbers of rows, and ids that are there more than once."""

    rows: int
    outside: int
    early: int
    earliest: int
    repeated: list[str]


def _scan(query: Query, file: str, day: Day) -> _Scan:
    rows = outside = early = earliest = 0
    skew = CLOCK_SKEW // timedelta(milliseconds=1)
    sql = """
        SELECT hash(event_id) AS id, epoch_ms(event_time) AS time,
               coalesce(epoch_ms(event_time) - epoch_ms(activated_at), 0) AS after_send
        FROM read_parquet($file)
    """
    with closing(Ledger()) as ledger:
        for batch in query.batches(sql, file):
            ids, times, after_send = (column.to_numpy() for column in batch.columns)
            ledger.add(ids, np.arange(rows, rows + len(ids)))
            rows += len(ids)
            outside += int(np.count_nonzero((times < day.start_ms) | (times >= day.end_ms)))
            early += int(np.count_nonzero(after_send < -skew))
            earliest = min(earliest, int(after_send.min()))
        suspects = ledger.ambiguous()[:_SUSPECTS].tolist()
    return _Scan(rows, outside, early, earliest, _repeated(query, file, suspects) if suspects else [])


def _repeated(query: Query, file: str, suspects: list[int]) -> list[str]:
    """Some of the ids that are there more than once: two ids can have one hash."""
    sql = """
        SELECT event_id FROM read_parquet($file) WHERE hash(event_id) IN (SELECT unnest($suspects::UBIGINT[]))
        GROUP BY event_id HAVING count(*) > 1 ORDER BY event_id
    """
    return [str(id_) for (id_,) in query.rows(sql, file, suspects=suspects)]


def _ids_unique(scan: _Scan) -> Finding:
    if not scan.repeated:
        return Finding(True, f"{scan.rows} events, each there once", {"events": scan.rows})
    at_least = "at least " if len(scan.repeated) == _SUSPECTS else ""
    return Finding(
        False,
        f"{at_least}{len(scan.repeated)} event ids are there more than once; materialize the day with full_refresh",
        {"events": scan.rows, "repeated": len(scan.repeated), "some": scan.repeated[:_SAMPLE]},
    )


def _inside_day(scan: _Scan, day: Day) -> Finding:
    bounds = f"{day.start.isoformat()} to {day.end.isoformat()}"
    if not scan.outside:
        return Finding(True, f"all events are inside {bounds}")
    return Finding(
        False,
        f"{scan.outside} of {scan.rows} events are not inside {bounds}; was NP6_TIMEZONE changed? "
        "Materialize the day with full_refresh",
        {"events_outside": scan.outside},
    )


def _not_before_activation(scan: _Scan) -> Finding:
    if not scan.early:
        return Finding(True, "no event came before its send")
    seconds = -scan.earliest / 1000
    return Finding(
        False,
        f"{scan.early} of {scan.rows} events came before their send, by up to {seconds:.0f} s",
        {"events_early": scan.early, "seconds_early": seconds},
    )


def _quarantine_empty(quarantined: int) -> Finding:
    if not quarantined:
        return Finding(True, "no event is in quarantine")
    return Finding(
        False,
        f"{quarantined} events are in quarantine; the file there says why",
        {"quarantined": quarantined},
    )


def _fields_known(record: dg.EventLogRecord | None) -> Finding:
    materialization = None if record is None else record.asset_materialization
    said = None if materialization is None else materialization.metadata.get("unknown_fields")
    fields: list[str] = [] if said is None else list(said.value)  # type: ignore[arg-type]
    if not fields:
        return Finding(True, "all fields are known")
    return Finding(False, f"fields that nothing reads: {', '.join(fields)}", {"unknown_fields": fields})


def volume(rows: int | None, past: Sequence[int]) -> Finding:
    """Whether a closed day's number of rows is like those of the same weekday; None for a day that is not closed."""
    if rows is None:
        return Finding(True, "not closed yet: nothing to compare")
    if len(past) < LEAST_WEEKS:
        return Finding(True, f"only {len(past)} of the {WEEKS} weeks before are known: nothing to compare with")
    others = sorted(past)[1:-1]
    least = min(others[0] / USUAL_FACTOR, others[0] - _DEVIATIONS * max(others[0], 1) ** 0.5)
    most = max(others[-1] * USUAL_FACTOR, others[-1] + _DEVIATIONS * max(others[-1], 1) ** 0.5)
    median = float(statistics.median(past))
    figures: dict[str, Any] = {"events": rows, "median": median, "least": max(least, 0.0), "most": float(most)}
    if least <= rows <= most:
        return Finding(True, f"{rows} events, {median:g} on the same weekday in the weeks before", figures)
    return Finding(
        False,
        f"{rows} events, not within {max(least, 0):.0f} to {most:.0f}: the weekday had {median:g} in the weeks before",
        figures,
    )
