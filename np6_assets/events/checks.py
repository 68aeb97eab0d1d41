"""The check of an event asset. It judges the facts of a day's fetch and merge; it reads no rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import dagster as dg

from np6_assets.events.kinds import EventKind
from np6_assets.partition_checks import Check, Finding, Records, build_partition_checks
from np6_assets.partitions import Day, parse_day
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity

if TYPE_CHECKING:
    from np6_assets.events.store import StoredDay

WEEKS, LEAST_WEEKS = 8, 4
"""How many weeks back a day's volume is compared; with fewer than LEAST_WEEKS of them it is not judged."""

USUAL_FACTOR = 3
"""The usual range is that of those weeks, without the least and the greatest, widened by this factor.

So one outage or one great campaign does not make another one usual.
"""

DEVIATIONS = 5
"""The range is widened by at least so many square roots: small numbers vary by chance."""

BUSY_EVENTS = 100
"""A closed day without events is a warning if the median of the seven days before is above this."""

KEPT_EVENTS, KEPT_SHARE = 10, 0.01
"""More kept events than this, and a greater share, are a warning: the API no longer returns them."""

MOST_DAYS = 12
"""The most days that a finding names."""

CHECK = Check(
    "events_as_expected",
    "No event was rejected, unreadable in part or published before its send; no field is unknown; no day is stored "
    "under another NP6_CONTACT_DATA; the API still has "
    f"what it had ({KEPT_EVENTS} events or {KEPT_SHARE:.0%} may be missing); and a closed day has as many events as "
    f"its weekday in the {WEEKS} weeks before, within {USUAL_FACTOR} times their range.",
)


def build_event_checks(kind: EventKind, settings: Settings) -> dg.AssetsDefinition:
    """Build the check of an event asset."""

    def examine(folder: Folder, keys: Sequence[str], records: Records) -> Iterator[tuple[str, Mapping[str, Finding]]]:
        from np6_assets.events.store import EventStore

        store = EventStore(folder, kind, settings)
        stored_of = cache(store.read_day)  # each day is looked at for those after it, too
        newest = records.newest(kind.asset, keys)
        untreated = list(find_untreated_days(folder, kind, settings))
        for key in keys:
            day = parse_day(key, settings.timezone)
            if (stored := stored_of(day)) is None:
                continue
            materialization = newest[key].asset_materialization if key in newest else None
            facts = {name: one.value for name, one in (materialization.metadata if materialization else {}).items()}
            rows = stored.rows if stored.is_closed(day) else None
            weeks = _read_rows_before(stored_of, day, settings.timezone, [7 * week for week in range(1, WEEKS + 1)])
            days = _read_rows_before(stored_of, day, settings.timezone, range(1, 8)) if rows == 0 else []
            findings = [*check_metadata(facts), *check_empty_day(rows, days), *untreated, check_volume(rows, weeks)]
            yield key, {CHECK.name: combine_findings(findings)}

    return build_partition_checks(kind.asset, (CHECK,), settings, examine)


def check_metadata(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Check what a materialization's metadata says of the fetch; "unknown" for a file of version 0.1."""
    if "events_kept" not in facts:
        yield Finding(True, "unknown what its fetch found out: version 0.1, or another program, wrote the day")
        return
    kept = facts["events_kept"]
    if rejected := facts["quarantined"]:
        yield Finding(False, f"{rejected} events were rejected; the quarantine says why", {"quarantined": rejected})
    if fields := list(facts["unknown_fields"]):
        yield Finding(False, f"unknown fields: {', '.join(fields)}", {"unknown_fields": fields})
    if counts := dict(facts["unreadable_values"]):
        text = ", ".join(f"{column} in {count} events" for column, count in sorted(counts.items()))
        yield Finding(False, f"unreadable values, stored as null: {text}", {"unreadable_values": counts})
    if early := facts["events_before_send"]:
        seconds = facts["seconds_before_send"]
        text = f"{early} events were published before their send, by up to {seconds:.0f} s"
        yield Finding(False, text, {"events_before_send": early, "seconds_before_send": seconds})
    if missing := list(facts.get("notifications_missing", [])):
        text = f"notifications that did not answer, whose sends are not complete: {', '.join(map(str, missing))}"
        yield Finding(False, text, {"notifications_missing": missing})
    if kept > KEPT_EVENTS and kept > KEPT_SHARE * facts.get("dagster/partition_row_count", 0):
        text = f"the API did not bring {kept} events that are stored; they are kept"
        yield Finding(False, text, {"events_kept": kept})


def find_untreated_days(folder: Folder, kind: EventKind, settings: Settings) -> Iterator[Finding]:
    """Find the days that were stored under another contact policy, and may hold contact data."""
    from np6_assets.events.file_policy import read_policies

    if settings.contact.mode == "keep":
        return
    identity = Identity.read(folder)
    if identity is not None and identity.contact == settings.contact.fingerprint:
        return
    stored = read_policies(folder, (kind.asset, kind.quarantine))
    days = sorted({day for day, stored_as in stored if stored_as != settings.contact.fingerprint})
    if days:
        shown = ", ".join(days[:MOST_DAYS]) + (f" and {len(days) - MOST_DAYS} more" if len(days) > MOST_DAYS else "")
        text = f"stored under another NP6_CONTACT_DATA, and may hold contact data (launch treat_contact_data): {shown}"
        yield Finding(False, text, {"days_to_treat": days})


def check_empty_day(rows: int | None, past: Sequence[int]) -> Iterator[Finding]:
    """Check whether a day closed without events although the days of the week before had many."""
    if rows == 0 and past and (median := statistics.median(past)) > BUSY_EVENTS:
        yield Finding(False, f"no event, where the days of the week before had {median:g} in the middle", {"events": 0})


def check_volume(rows: int | None, past: Sequence[int]) -> Finding:
    """Compare a closed day's number of rows with those of the same weekday; None for an open day."""
    if rows is None or len(past) < LEAST_WEEKS:
        return Finding(True, "not closed" if rows is None else f"{rows} events")
    others = sorted(past)[1:-1]
    least = min(others[0] / USUAL_FACTOR, others[0] - DEVIATIONS * max(others[0], 1) ** 0.5)
    most = max(others[-1] * USUAL_FACTOR, others[-1] + DEVIATIONS * max(others[-1], 1) ** 0.5)
    median = statistics.median(past)
    figures: dict[str, Any] = {"events": rows, "median": median, "least": round(max(least, 0.0)), "most": round(most)}
    if least <= rows <= most:
        return Finding(True, f"{rows} events, {median:g} on the same weekday in the weeks before", figures)
    text = (
        f"{rows} events, not within {max(least, 0):.0f} to {most:.0f}: the weekday had {median:g} in the weeks before"
    )
    return Finding(False, text, figures)


def combine_findings(findings: Sequence[Finding]) -> Finding:
    """Combine all findings to one, which passes if each does."""
    passed = all(finding.passed for finding in findings)
    shown = [finding for finding in findings if passed or not finding.passed]
    figures = {name: value for finding in findings for name, value in finding.metadata.items()}
    return Finding(passed, "; ".join(finding.text for finding in shown), figures)


def _read_rows_before(
    stored_of: Callable[[Day], StoredDay | None], day: Day, timezone: str, days: Sequence[int]
) -> list[int]:
    """Read the row counts of the days that are so many days earlier, if stored and closed."""
    others = [parse_day((day.date - timedelta(days=ago)).isoformat(), timezone) for ago in days]
    return [stored.rows for one in others if (stored := stored_of(one)) is not None and stored.is_closed(one)]
