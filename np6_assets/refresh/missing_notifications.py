"""When to retry the notifications that did not answer when their day was closed: alone, and ever more rarely.

Each day's file names them, and Dagster's record of the day says when they were requested last.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

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


def find_days_to_retry(
    files: EventFiles,
    folder: Folder,
    records: Records,
    settings: Settings,
    now: datetime,
    is_wanted: Callable[[date], bool] = lambda day: True,
) -> list[date]:
    """Find the closed days whose missing sends are due for a retry, oldest first. `files` has listed the folder.

    A notification that was deleted is not retried. Each time the day is twice as old as at the last fetch.
    """
    identity = Identity.read(folder)
    gone = set(identity.gone if identity is not None else ())
    days = [
        day
        for key, stored in files.read_all(folder, ACTIVATIONS.asset).items()
        if stored.missing_ids - gone
        and stored.is_closed(day := parse_day(key, settings.timezone))
        and is_wanted(day.date)
    ]
    newest = records.newest(ACTIVATIONS.asset, [day.key for day in days])
    due = []
    for day in days:
        last = read_fetch_time(newest.get(day.key), day.key, settings.timezone)
        if last is None or now >= last + max(last - day.end, FIRST_PAUSE):
            due.append(day.date)
    return due
