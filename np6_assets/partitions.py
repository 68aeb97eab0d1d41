"""Event days and cohort windows: what a partition is, and which ones a cohort needs.

All arithmetic is done on instants: a day in Europe/Paris has 23, 24 or 25 hours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

EVENT_DATE = "event_date"
ACTIVATION_DATE = "activation_date"


@dataclass(frozen=True)
class Day:
    """A calendar day in a time zone: `key` is YYYY-MM-DD, `start` and `end` are instants in UTC, half open."""

    key: str
    start: datetime
    end: datetime

    @property
    def start_ms(self) -> int:
        """`start` in ms since the epoch."""
        return to_epoch_ms(self.start)

    @property
    def end_ms(self) -> int:
        """`end` in ms since the epoch."""
        return to_epoch_ms(self.end)

    @property
    def date(self) -> date:
        """The calendar date."""
        return date.fromisoformat(self.key)


def to_epoch_ms(instant: datetime) -> int:
    """Convert an instant to ms since the epoch."""
    return round(instant.timestamp() * 1000)


def parse_day(key: str, timezone: str) -> Day:
    """Parse a partition key."""
    first = date.fromisoformat(key)
    return Day(key, _midnight(first, timezone), _midnight(first + timedelta(days=1), timezone))


def day_at(instant: datetime, timezone: str) -> Day:
    """Return the day of an instant."""
    return parse_day(instant.astimezone(ZoneInfo(timezone)).date().isoformat(), timezone)


def partition_day(folder: str, column: str = EVENT_DATE) -> date | None:
    """Parse the day of a folder `<column>=YYYY-MM-DD`; None for other folders, such as other programs leave."""
    name, _, day = folder.partition("=")
    try:
        found = date.fromisoformat(day) if name == column else None
    except ValueError:
        return None
    return found if str(found) == day else None


def consecutive(days: Iterable[date]) -> list[list[date]]:
    """Days in order, those that follow one another together."""
    runs: list[list[date]] = []
    for day in days:
        if runs and day - runs[-1][-1] == timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


def _midnight(day: date, timezone: str) -> datetime:
    return datetime.combine(day, time.min, ZoneInfo(timezone)).astimezone(UTC)


def daily(start_date: date, timezone: str) -> dg.DailyPartitionsDefinition:
    """One partition a day from `start_date` to today, today included."""
    return dg.DailyPartitionsDefinition(start_date.isoformat(), timezone=timezone, end_offset=1)


def backfill_policy(days_per_run: int | None) -> dg.BackfillPolicy:
    """How a backfill is cut into runs: all its days in one where no number is given."""
    return dg.BackfillPolicy.single_run() if days_per_run is None else dg.BackfillPolicy.multi_run(days_per_run)


def event_days(cohort: str, window_days: int) -> list[str]:
    """List the event days that a cohort needs, in order."""
    first = date.fromisoformat(cohort)
    return [str(first + timedelta(days=ahead)) for ahead in range(window_days + 1)]


def days_ahead(days: int) -> dg.TimeWindowPartitionMapping:
    """Map day D to the days D to D + `days`, the last of which may be in the future."""
    return dg.TimeWindowPartitionMapping(start_offset=0, end_offset=days, allow_nonexistent_upstream_partitions=True)
