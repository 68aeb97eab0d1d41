"""Which days to confirm: each is fetched once more, for the events that arrive late.

A day is confirmed once all its assets were fetched when it was at least `confirmation_age` days old: the window of its
cohort has closed by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import dagster as dg

from np6_assets.partition_checks import Records
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
    newest = [records.newest(asset, [str(day) for day in days]) for asset in EVENT_ASSETS]
    return [day for day in days if not all(_is_confirmed(day, found.get(str(day)), settings) for found in newest)]


def _is_confirmed(day: date, newest: dg.EventLogRecord | None, settings: Settings) -> bool:
    fetched_at = None if newest is None else read_fetch_time(newest, day, settings.timezone)
    old_enough_at = parse_day(str(day + timedelta(days=confirmation_age(settings))), settings.timezone).start
    return fetched_at is not None and fetched_at >= old_enough_at


def read_fetch_time(record: dg.EventLogRecord, day: date, timezone: str) -> datetime | None:
    """Read from a day's record when it was fetched; None where the record is of no fetch."""
    hours = read_number(record, "hours_after_end")
    return None if hours is None else parse_day(str(day), timezone).end + timedelta(hours=hours)


def read_number(record: dg.EventLogRecord, name: str) -> float | None:
    """Read a number from a record's metadata; None where there is none."""
    materialization = record.asset_materialization
    found = None if materialization is None else materialization.metadata.get(name)
    value = None if found is None else found.value
    return float(value) if isinstance(value, int | float) else None
