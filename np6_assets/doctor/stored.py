"""Judge what is stored: whose events, days that are open though they could be closed, sends that are missing.

And, from Dagster's records, the stored events that the API did not bring again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from np6_assets.contact.days import get_today
from np6_assets.doctor.diagnosis import Diagnosis, list_names
from np6_assets.doctor.home import open_records
from np6_assets.events.folder_identity import build_identity
from np6_assets.events.kinds import KINDS
from np6_assets.events.store import EventStore
from np6_assets.np6.clock import WITHOUT_DATE
from np6_assets.partition_checks import Records, read_metadata
from np6_assets.partitions import EVENT_DATE, parse_day
from np6_assets.refresh.confirmation import OLDEST
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity, IdentityError
from np6_assets.storage.parquet import list_days


def judge_files(settings: Settings, now: datetime) -> Iterator[Diagnosis]:
    """Judge the data folder's files."""
    folder = Folder(settings.data_dir).cache_listing()
    deleted: set[int] = set()
    try:
        identity = Identity.read(folder)
        deleted = set(identity.gone if identity is not None else ())
        yield _judge_identity(identity, folder, settings)
    except IdentityError as error:
        yield Diagnosis("np6.json", "wrong", str(error), "Until then every run is refused.")
    yield from _judge_days(folder, settings, now, deleted)


def _judge_identity(identity: Identity | None, folder: Folder, settings: Settings) -> Diagnosis:
    if identity is None:
        return Diagnosis("np6.json", "ok", "missing: the first run writes it")
    identity.check_run(folder, build_identity(settings))
    agencies = ", ".join(identity.agencies) or "no agency yet"
    return Diagnosis("np6.json", "ok", f"days of {identity.timezone}, events of {agencies}")


def _judge_days(folder: Folder, settings: Settings, now: datetime, deleted: set[int]) -> Iterator[Diagnosis]:
    """Judge the event days. `deleted` are the notifications that the API has no more."""
    count = 0
    open_days: dict[str, list[str]] = defaultdict(list)
    lacking: dict[str, frozenset[int]] = {}
    for kind in KINDS:
        store = EventStore(folder, kind, settings)
        for date in list_days(folder, kind.asset, EVENT_DATE):
            day = parse_day(str(date), settings.timezone)
            if (stored := store.read_day(day)) is None:
                continue
            count += 1
            lacking[f"{kind.asset} {day.key}"] = stored.missing_ids
            if not stored.is_closed(day) and now >= day.end + settings.lookback + WITHOUT_DATE:
                open_days[kind.asset].append(day.key)
    if not open_days:
        yield Diagnosis("stored days", "ok", f"{count} days of {len(KINDS)} assets; none waits to be closed")
    else:
        text = "; ".join(f"{asset}: {list_names(keys)}" for asset, keys in open_days.items())
        advice = "Materialize these days, or turn on the sensor np6_refresh or the schedule daily_ingest."
        text = f"open, though they could be closed: {text}"
        yield Diagnosis("stored days", "warning", text, advice, {"open": dict(open_days)})
    if missing := {day: sorted(ids - deleted) for day, ids in lacking.items() if ids - deleted}:
        text = f"notifications did not answer for {list_names(sorted(missing))}"
        advice = (
            "The sensor np6_refresh and the schedule daily_ingest retry them, ever more rarely. To retry at once, "
            "materialize activations for these days; NP6 knows why the key may not read them."
        )
        yield Diagnosis("missing sends", "warning", text, advice, {"missing": missing})
    if gone := {day: sorted(ids & deleted) for day, ids in lacking.items() if ids & deleted}:
        text = f"notifications were deleted before all their sends were stored: {list_names(sorted(gone))}"
        advice = "Nothing can be done: what is stored stays, and the API has no more."
        yield Diagnosis("deleted sends", "warning", text, advice, {"deleted": gone})


def judge_records(settings: Settings, now: datetime, home: Path) -> Diagnosis:
    """Judge the last fetches by Dagster's records, which there are."""
    try:
        with open_records(home) as instance:
            return _judge_kept_events(settings, now, instance)
    except Exception as error:  # noqa: BLE001 -- every storage has errors of its own
        text = f"Dagster's records in {home} could not be read: {type(error).__name__}"
        return Diagnosis("kept events", "unknown", text, "See DAGSTER_HOME.")


def _judge_kept_events(settings: Settings, now: datetime, instance: dg.DagsterInstance) -> Diagnosis:
    folder, records = Folder(settings.data_dir), Records(instance, settings)
    first = get_today(settings, now) - timedelta(days=OLDEST)
    kept: dict[str, int] = {}
    for kind in KINDS:
        days = [str(day) for day in list_days(folder, kind.asset, EVENT_DATE) if day >= first]
        for day, record in sorted(records.newest(kind.asset, days).items()):
            if number := read_metadata(record, "events_kept"):
                kept[f"{kind.asset} {day}"] = number
    if not kept:
        return Diagnosis("kept events", "ok", f"none in the newest fetches of the last {OLDEST} days")
    text = f"{sum(kept.values())} stored events did not come again: {list_names([*kept])}"
    advice = (
        "They stay, and count. Materialize these days again, as the API may have answered with less for once; if it "
        "does not bring them, tell NP6. Only replace: true in the run's config would drop them."
    )
    return Diagnosis("kept events", "warning", text, advice, {"kept": kept})
