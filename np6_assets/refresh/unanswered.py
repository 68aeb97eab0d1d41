"""Notifications that did not answer when a day was closed: when they are asked again, alone and ever more rarely.

What is stored says it all: each day's file names them, and Dagster's record of the day says when they were asked last.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta

import dagster as dg

from np6_assets.events.kinds import ACTIVATIONS
from np6_assets.partition_checks import Records
from np6_assets.partitions import EVENT_DATE, day_of
from np6_assets.refresh.lateness import fetched_at
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity

WHY = "notifications that did not answer are asked again"

FIRST_PAUSE = timedelta(hours=1)

_FOOTERS_AT_ONCE = 8


def due(days: Sequence[date], records: Records, settings: Settings, now: datetime) -> list[date]:
    """Those of some incomplete days whose missing notifications are to be asked again by now."""
    newest = records.newest(ACTIVATIONS.asset, [str(day) for day in days])
    return [day for day in days if now >= next_at(day, newest.get(str(day)), settings.timezone)]


def next_at(day: date, newest: dg.EventLogRecord | None, timezone: str) -> datetime:
    """When a closed day's are asked again: each time the day is twice as old as when they were asked last."""
    end = day_of(str(day), timezone).end
    last = fetched_at(newest, day, timezone) if newest is not None else None
    return end if last is None else last + max(last - end, FIRST_PAUSE)


def incomplete(folder: Folder, settings: Settings) -> list[date]:
    """The closed days that lack sends of notifications that the API may still have, oldest first."""
    from np6_assets.events.store import EventStore
    from np6_assets.storage.parquet import days_stored

    identity = Identity.read(folder)
    gone = set(identity.gone if identity is not None else ())
    store = EventStore(folder, ACTIVATIONS, settings)
    days = [day_of(str(day), settings.timezone) for day in days_stored(folder, ACTIVATIONS.asset, EVENT_DATE)]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="np6-footers") as pool:
        found = zip(days, pool.map(store.stored, days), strict=True)
        return [day.date for day, stored in found if stored and stored.is_closed(day) and stored.missing - gone]
