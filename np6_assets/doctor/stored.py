"""What is stored: whose events, days that are open though they could be closed, notifications that did not answer.

And, from Dagster's records, the stored events that the API did not bring again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg

from np6_assets.contact.days import today
from np6_assets.doctor.finding import Finding
from np6_assets.events.belonging import identity_of
from np6_assets.events.kinds import KINDS
from np6_assets.events.store import EventStore, Stored
from np6_assets.np6.clock import WITHOUT_DATE
from np6_assets.partition_checks import Records
from np6_assets.partitions import EVENT_DATE, Day, day_of
from np6_assets.refresh.lateness import OLDEST, number_of
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity, IdentityError
from np6_assets.storage.parquet import days_stored

MOST_SHOWN = 5
"""Days that a line names."""


def examine(settings: Settings, now: datetime) -> Iterator[Finding]:
    """The findings about the data folder's files."""
    folder = Folder(settings.data_dir).listed()
    yield _identity(folder, settings)
    late: dict[str, list[str]] = {}
    missing: dict[str, list[int]] = {}
    deleted: dict[str, list[int]] = {}
    gone = _gone(folder)
    days = 0
    for kind in KINDS:
        for day, stored in _days(folder, EventStore(folder, kind, settings), kind.asset, settings):
            days += 1
            if not stored.is_closed(day) and now >= day.end + settings.lookback + WITHOUT_DATE:
                late.setdefault(kind.asset, []).append(day.key)
            for found, ids in ((missing, stored.missing - gone), (deleted, stored.missing & gone)):
                if ids:
                    found[f"{kind.asset} {day.key}"] = sorted(ids)
    if not late:
        yield Finding("stored days", "ok", f"{days} days of {len(KINDS)} assets; none waits to be closed", "")
    else:
        text = "; ".join(f"{asset}: {_listed(keys)}" for asset, keys in late.items())
        advice = "Materialize these days, or turn on the sensor np6_refresh or the schedule daily_ingest."
        yield Finding("stored days", "warning", f"open, though they could be closed: {text}", advice, {"open": late})
    if missing:
        text = f"notifications did not answer for {_listed(sorted(missing))}"
        advice = (
            "The sensor np6_refresh and the schedule daily_ingest ask them again, ever more rarely. To ask at once, "
            "materialize activations for these days; NP6 knows why the key may not read them."
        )
        yield Finding("missing sends", "warning", text, advice, {"missing": missing})
    if deleted:
        text = f"notifications were deleted before all their sends were stored: {_listed(sorted(deleted))}"
        advice = "There is nothing to press: what is stored stays, and the API has no more."
        yield Finding("deleted sends", "warning", text, advice, {"deleted": deleted})


def kept_events(settings: Settings, now: datetime, instance: dg.DagsterInstance) -> Finding:
    """Stored events that the newest fetches of the last days did not bring again, by Dagster's records."""
    folder, records = Folder(settings.data_dir), Records(instance, settings)
    first = today(settings, now) - timedelta(days=OLDEST)
    kept: dict[str, int] = {}
    for kind in KINDS:
        days = [str(day) for day in days_stored(folder, kind.asset, EVENT_DATE) if day >= first]
        for day, record in sorted(records.newest(kind.asset, days).items() if days else ()):
            if number := number_of(record, "events_kept"):
                kept[f"{kind.asset} {day}"] = int(number)
    if not kept:
        return Finding("kept events", "ok", f"none in the newest fetches of the last {OLDEST} days", "")
    text = f"{sum(kept.values())} stored events did not come again: {_listed([*kept])}"
    advice = (
        "They stay, and count. Materialize these days again, as the API may have answered with less for once; if it "
        "does not bring them, tell NP6. Only replace: true in the run's config would drop them."
    )
    return Finding("kept events", "warning", text, advice, {"kept": kept})


def _gone(folder: Folder) -> set[int]:
    """The notifications that the API does not know any more."""
    try:
        identity = Identity.read(folder)
    except IdentityError:
        identity = None
    return set(identity.gone if identity is not None else ())


def _identity(folder: Folder, settings: Settings) -> Finding:
    subject = "np6.json"
    try:
        stored = Identity.read(folder)
        if stored is None:
            return Finding(subject, "ok", "not there: the first run writes it", "")
        stored.check(folder, identity_of(settings))
    except IdentityError as error:
        return Finding(subject, "wrong", str(error), "Until then every run is refused.")
    agencies = ", ".join(stored.agencies) or "no agency yet"
    return Finding(subject, "ok", f"days of {stored.timezone}, events of {agencies}", "")


def _days(folder: Folder, store: EventStore, asset: str, settings: Settings) -> Iterator[tuple[Day, Stored]]:
    for date in days_stored(folder, asset, EVENT_DATE):
        day = day_of(str(date), settings.timezone)
        if (stored := store.stored(day)) is not None:
            yield day, stored


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more
