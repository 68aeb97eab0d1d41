"""Notifications that did not answer when a day was closed: when they are asked again, alone and ever more rarely.

What is stored says it all: each day's file names them, and Dagster's record of the day says when they were asked last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from np6_assets.events.kinds import ACTIVATIONS
from np6_assets.partition_checks import Records
from np6_assets.partitions import day_of
from np6_assets.refresh.lateness import fetched_at
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity

if TYPE_CHECKING:
    from np6_assets.refresh.event_files import EventFiles

WHY = "notifications that did not answer are asked again"

FIRST_PAUSE = timedelta(hours=1)


def due(days: Sequence[date], records: Records, settings: Settings, now: datetime) -> list[date]:
    """Those of some incomplete days whose missing notifications are to be asked again by now."""
    newest = records.newest(ACTIVATIONS.asset, [str(day) for day in days])
    return [day for day in days if now >= next_at(day, newest.get(str(day)), settings.timezone)]


def next_at(day: date, newest: dg.EventLogRecord | None, timezone: str) -> datetime:
    """When a closed day's are asked again: each time the day is twice as old as when they were asked last."""
    end = day_of(str(day), timezone).end
    last = fetched_at(newest, day, timezone) if newest is not None else None
    return end if last is None else last + max(last - end, FIRST_PAUSE)


def incomplete(files: EventFiles, folder: Folder, settings: Settings) -> list[date]:
    """The closed days that lack sends of notifications that the API may still have, oldest first.

    `files` has looked at what is there.
    """
    identity = Identity.read(folder)
    gone = set(identity.gone if identity is not None else ())
    return [
        day.date
        for key, stored in files.all_stored(folder, ACTIVATIONS.asset).items()
        if stored.missing - gone and stored.is_closed(day := day_of(key, settings.timezone))
    ]
