"""Plans: which requests the days of a run need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from np6_assets.events.kinds import EventKind
from np6_assets.events.store import Stored
from np6_assets.np6.request import Request
from np6_assets.partitions import Day, milliseconds

DAYS_PER_REQUEST = 31
"""The most days of one request."""

EVENTS_PER_REQUEST = 20_000
"""About how many events a request for several days brings at most."""

SMALL_DAYS = 7
"""So many days before have to be small for others to be taken to be: weekdays differ."""


@dataclass(frozen=True)
class DayPlan:
    """A day to fetch: from `start` on, which is its own start or, for an incremental fetch, a later instant.

    `stored` is what its file says; None where the day was never fetched.
    """

    day: Day
    start: datetime
    stored: Stored | None = None

    @property
    def is_full(self) -> bool:
        """Whether all of the day is fetched."""
        return self.start == self.day.start


@dataclass(frozen=True)
class Batch:
    """Days that are fetched together: consecutive ones, each but the first in full."""

    plans: Sequence[DayPlan]

    @property
    def edges(self) -> tuple[int, ...]:
        """The window's start, the ends of its days but the last, and its end, in ms."""
        return milliseconds(self.plans[0].start), *(plan.day.end_ms for plan in self.plans)

    def request(self, kind: EventKind, path: str) -> Request:
        """The request for these days of one feed."""
        return Request(path, kind.start_parameter, kind.end_parameter, self.edges, not kind.per_notification)


def plan_day(day: Day, stored: Stored | None, timezone: str, lookback: timedelta, *, full: bool) -> DayPlan:
    """An incremental fetch of an open day, less the lookback; a full one of any other day."""
    if stored is None:
        return DayPlan(day, day.start)
    start = day.start
    if stored.watermark is not None and stored.watermark < day.end and stored.timezone == timezone and not full:
        start = max(stored.watermark - lookback, day.start)
    return DayPlan(day, start, stored)


def batches(plans: Iterable[DayPlan], joins: Callable[[Sequence[DayPlan], DayPlan], bool]) -> Iterator[Batch]:
    """Days in batches. `joins` says of consecutive days whether the next one goes with those before."""
    waiting: list[DayPlan] = []
    for plan in plans:
        if waiting and waiting[-1].day.end == plan.day.start and joins(waiting, plan):
            waiting.append(DayPlan(plan.day, plan.day.start, plan.stored))
            continue
        if waiting:
            yield Batch(waiting)
        waiting = [plan]
    if waiting:
        yield Batch(waiting)


def joins_all(before: Sequence[DayPlan], plan: DayPlan) -> bool:
    """For a feed of one notification: as many days as a request may have."""
    return len(before) < DAYS_PER_REQUEST


def joins_small(rows: Sequence[int]) -> Callable[[Sequence[DayPlan], DayPlan], bool]:
    """For a whole feed: full fetches of days that are small, as stored or else by the `rows` of days before."""

    def joins(before: Sequence[DayPlan], plan: DayPlan) -> bool:
        most = max(rows) if len(rows) >= SMALL_DAYS else EVENTS_PER_REQUEST
        events = sum(one.stored.rows if one.stored is not None else most for one in (*before, plan))
        fits = events <= EVENTS_PER_REQUEST and len(before) < DAYS_PER_REQUEST
        return fits and plan.is_full and before[0].is_full

    return joins
