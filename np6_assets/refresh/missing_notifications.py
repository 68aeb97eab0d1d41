"""When to retry the notifications that did not answer when their day was closed: alone, and ever more rarely.

Each day's file names them, and Dagster's record of the day says when they were requested last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from np6_assets.events.kinds import ACTIVATIONS
from np6_assets.partition_checks import Records
from np6_assets.partitions import parse_day
from np6_assets.refresh.confirmation import read_fetch_time
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity

if TYPE_CHECKING:
    from np6_assets.refresh.event_files import EventFiles

REASON = "retry of notifications that did not answer"

FIRST_PAUSE = timedelta(hours=1)


def find_incomplete_days(files: EventFiles, folder: Folder, settings: Settings) -> list[date]:
    """Find the closed days that lack sends of notifications the API may still have, oldest first.

    `files` has listed the folder.
    """
    identity = Identity.read(folder)
    gone = set(identity.gone if identity is not None else ())
    return [
        day.date
        for key, stored in files.read_all(folder, ACTIVATIONS.asset).items()
        if stored.missing_ids - gone and stored.is_closed(day := parse_day(key, settings.timezone))
    ]


def select_due(days: Sequence[date], records: Records, settings: Settings, now: datetime) -> list[date]:
    """Select those of the incomplete days whose retry is due."""
    newest = records.newest(ACTIVATIONS.asset, [str(day) for day in days])
    return [day for day in days if now >= _retry_at(day, newest.get(str(day)), settings.timezone)]


def _retry_at(day: date, newest: dg.EventLogRecord | None, timezone: str) -> datetime:
    """When to retry: each time the day is twice as old as at the last fetch."""
    end = parse_day(str(day), timezone).end
    last = read_fetch_time(newest, day, timezone) if newest is not None else None
    return end if last is None else last + max(last - end, FIRST_PAUSE)
