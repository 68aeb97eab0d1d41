"""Which days to confirm: each is fetched once more, for the events that arrive late.

A day is confirmed once all its assets were fetched when it was at least `confirmation_age` days old: the window of its
cohort has closed by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import dagster as dg

from np6_assets.partition_checks import Records, read_metadata
from np6_assets.partitions import EVENT_DATE, parse_day
from np6_assets.refresh.jobs import EVENT_ASSETS
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

OLDEST = 31
"""The age, in days, up to which a day is fetched again to confirm it."""


def confirmation_age(settings: Settings) -> int:
    """Return the age, in days, from which on a day is confirmed."""
    return min(settings.window_days + 1, OLDEST - 1)


def list_days_to_confirm(folder: Folder, settings: Settings, today: date) -> list[date]:
    """List the stored days that are old enough to confirm, oldest first."""
    from np6_assets.storage.parquet import list_days

    stored = set[date]().union(*(list_days(folder, asset, EVENT_DATE) for asset in EVENT_ASSETS))
    return sorted(day for day in stored if confirmation_age(settings) <= (today - day).days <= OLDEST)


def select_unconfirmed(days: Sequence[date], records: Records, settings: Settings) -> list[date]:
    """Select the days of which some asset was not fetched since they are old enough."""
    newest = [records.newest(asset, list(map(str, days))) for asset in EVENT_ASSETS]
    age = timedelta(days=confirmation_age(settings))

    def is_confirmed(day: date, record: dg.EventLogRecord | None) -> bool:
        fetched_at = read_fetch_time(record, str(day), settings.timezone)
        return fetched_at is not None and fetched_at >= parse_day(str(day + age), settings.timezone).start

    return [day for day in days if not all(is_confirmed(day, found.get(str(day))) for found in newest)]


def read_fetch_time(record: dg.EventLogRecord | None, day: str, timezone: str) -> datetime | None:
    """Read from a day's record when it was fetched; None where the record is of no fetch."""
    hours = read_metadata(record, "hours_after_end")
    return None if hours is None else parse_day(day, timezone).end + timedelta(hours=hours)
