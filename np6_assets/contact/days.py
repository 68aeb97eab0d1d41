"""The days that may be fetched and computed: from the first that is kept to today."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from np6_assets.settings import Settings

DAY_TAG = "dagster/partition"
FIRST_DAY_TAG = "dagster/asset_partition_range_start"
LAST_DAY_TAG = "dagster/asset_partition_range_end"
"""Dagster's tags of a run's partition, or range of partitions."""


def get_today(settings: Settings, now: datetime) -> date:
    """Return the calendar day in the configured time zone."""
    return now.astimezone(ZoneInfo(settings.timezone)).date()


def get_first_retained(settings: Settings, now: datetime) -> date | None:
    """Return the first day that NP6_RETENTION_DAYS keeps; None if it keeps all."""
    return (
        None if settings.retention_days is None else get_today(settings, now) - timedelta(days=settings.retention_days)
    )


def get_first_allowed(settings: Settings, now: datetime) -> date:
    """Return the first day that is fetched: NP6_START_DATE, or later because of the retention."""
    return max(settings.start_date, get_first_retained(settings, now) or settings.start_date)


def read_run_days(tags: Mapping[str, str]) -> list[str]:
    """Read the days of a run from its tags; empty if they name none."""
    first = tags.get(FIRST_DAY_TAG, tags.get(DAY_TAG, ""))
    last = tags.get(LAST_DAY_TAG, first)
    if not (first and last):
        return []
    count = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    return [str(date.fromisoformat(first) + timedelta(days=ahead)) for ahead in range(count)]


def check_run_days(tags: Mapping[str, str], settings: Settings, now: datetime) -> None:
    """Raise a Failure without retries if a run's tags name a day that may not be fetched or computed."""
    days = read_run_days(tags)
    kept, newest = str(get_first_allowed(settings, now)), str(get_today(settings, now))
    if not days or (kept <= days[0] and days[-1] <= newest):
        return
    first, last = days[0], days[-1]
    if last > newest:
        why = f"{last} has not begun (today is {newest}, {settings.timezone})"
    elif first < str(settings.start_date):
        why = f"{first} is before NP6_START_DATE={settings.start_date}"
    else:
        why = f"{first} is not kept any more (NP6_RETENTION_DAYS={settings.retention_days})"
    raise dg.Failure(f"{why}; launch days from {kept} to {newest}", allow_retries=False)
