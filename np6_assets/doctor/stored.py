"""Judge what is stored: whose events, days that are open though they could be closed, sends that are missing.

And, from Dagster's records, the stored events that the API did not bring again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from np6_assets.contact.days import get_today
from np6_assets.doctor import machine
from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.events.folder_identity import build_identity
from np6_assets.events.kinds import KINDS
from np6_assets.events.store import EventStore
from np6_assets.np6.clock import WITHOUT_DATE
from np6_assets.partition_checks import Records
from np6_assets.partitions import EVENT_DATE, parse_day
from np6_assets.refresh.confirmation import OLDEST, read_number
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity, IdentityError
from np6_assets.storage.parquet import list_days

MOST_SHOWN = 5
"""Days that a line names."""


@dataclass
class StoredDays:
    """The stored days: how many; by asset, those open though they could be closed; by file, ids that are missing.

    `missing` are ids that the API may still have, `deleted` those that it has no more.
    """

    count: int = 0
    open: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[int]] = field(default_factory=dict)
    deleted: dict[str, list[int]] = field(default_factory=dict)


def judge_files(settings: Settings, now: datetime) -> Iterator[Diagnosis]:
    """Judge the data folder's files."""
    folder = Folder(settings.data_dir).cache_listing()
    yield _judge_identity(folder, settings)
    yield from _judge_days(_read_days(folder, settings, now))


def _read_days(folder: Folder, settings: Settings, now: datetime) -> StoredDays:
    found, gone = StoredDays(), _read_deleted(folder)
    for kind in KINDS:
        store = EventStore(folder, kind, settings)
        for date in list_days(folder, kind.asset, EVENT_DATE):
            day = parse_day(str(date), settings.timezone)
            stored = store.read_day(day)
            if stored is None:
                continue
            found.count += 1
            if not stored.is_closed(day) and now >= day.end + settings.lookback + WITHOUT_DATE:
                found.open.setdefault(kind.asset, []).append(day.key)
            for by_file, ids in (
                (found.missing, stored.missing_ids - gone),
                (found.deleted, stored.missing_ids & gone),
            ):
                if ids:
                    by_file[f"{kind.asset} {day.key}"] = sorted(ids)
    return found


def _judge_days(days: StoredDays) -> Iterator[Diagnosis]:
    if not days.open:
        yield Diagnosis("stored days", "ok", f"{days.count} days of {len(KINDS)} assets; none waits to be closed")
    else:
        text = "; ".join(f"{asset}: {_list_names(keys)}" for asset, keys in days.open.items())
        advice = "Materialize these days, or turn on the sensor np6_refresh or the schedule daily_ingest."
        values = {"open": days.open}
        yield Diagnosis("stored days", "warning", f"open, though they could be closed: {text}", advice, values)
    if days.missing:
        text = f"notifications did not answer for {_list_names(sorted(days.missing))}"
        advice = (
            "The sensor np6_refresh and the schedule daily_ingest retry them, ever more rarely. To retry at once, "
            "materialize activations for these days; NP6 knows why the key may not read them."
        )
        yield Diagnosis("missing sends", "warning", text, advice, {"missing": days.missing})
    if days.deleted:
        text = f"notifications were deleted before all their sends were stored: {_list_names(sorted(days.deleted))}"
        advice = "Nothing can be done: what is stored stays, and the API has no more."
        yield Diagnosis("deleted sends", "warning", text, advice, {"deleted": days.deleted})


def judge_records(settings: Settings, now: datetime, home: Path) -> Diagnosis:
    """Judge the last fetches by Dagster's records, which there are."""
    try:
        with machine.open_records(home) as instance:
            return _judge_kept_events(settings, now, instance)
    except Exception as error:  # noqa: BLE001 -- every storage has errors of its own
        text = f"Dagster's records in {home} could not be read: {type(error).__name__}"
        return Diagnosis("kept events", "unknown", text, "See DAGSTER_HOME.")


def _judge_kept_events(settings: Settings, now: datetime, instance: dg.DagsterInstance) -> Diagnosis:
    """Judge the stored events that the newest fetches of the last days did not bring again."""
    folder, records = Folder(settings.data_dir), Records(instance, settings)
    first = get_today(settings, now) - timedelta(days=OLDEST)
    kept: dict[str, int] = {}
    for kind in KINDS:
        days = [str(day) for day in list_days(folder, kind.asset, EVENT_DATE) if day >= first]
        for day, record in sorted(records.newest(kind.asset, days).items() if days else ()):
            if number := read_number(record, "events_kept"):
                kept[f"{kind.asset} {day}"] = int(number)
    if not kept:
        return Diagnosis("kept events", "ok", f"none in the newest fetches of the last {OLDEST} days", "")
    text = f"{sum(kept.values())} stored events did not come again: {_list_names([*kept])}"
    advice = (
        "They stay, and count. Materialize these days again, as the API may have answered with less for once; if it "
        "does not bring them, tell NP6. Only replace: true in the run's config would drop them."
    )
    return Diagnosis("kept events", "warning", text, advice, {"kept": kept})


def _read_deleted(folder: Folder) -> set[int]:
    """Read which notifications the API has no more."""
    try:
        identity = Identity.read(folder)
    except IdentityError:
        identity = None
    return set(identity.gone if identity is not None else ())


def _judge_identity(folder: Folder, settings: Settings) -> Diagnosis:
    subject = "np6.json"
    try:
        stored = Identity.read(folder)
        if stored is None:
            return Diagnosis(subject, "ok", "missing: the first run writes it", "")
        stored.check_run(folder, build_identity(settings))
    except IdentityError as error:
        return Diagnosis(subject, "wrong", str(error), "Until then every run is refused.")
    agencies = ", ".join(stored.agencies) or "no agency yet"
    return Diagnosis(subject, "ok", f"days of {stored.timezone}, events of {agencies}", "")


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more
