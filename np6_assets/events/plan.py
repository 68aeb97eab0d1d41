"""Plan which requests the days of a run need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from np6_assets.events.kinds import EventKind
from np6_assets.events.store import StoredDay
from np6_assets.np6.request import Request
from np6_assets.partitions import Day, to_epoch_ms

DAYS_PER_REQUEST = 31
"""The most days of one request."""

EVENTS_PER_REQUEST = 20_000
"""About how many events a request for several days returns at most."""

NotificationScope = Literal["all", "active", "missing"]
"""Which notifications are requested: all known ones, those that may have sent, or those that did not answer before."""

SMALL_DAYS = 7
"""Only if so many days before are small is a day without a file taken to be small: weekdays differ."""


@dataclass(frozen=True)
class DayPlan:
    """A day to fetch from `start` on: the day's start, or for an incremental fetch a later time.

    Attributes:
        stored: what its file says; None if it was never fetched.
        replaces: the fetched rows replace the stored ones.
        scope: the notifications whose activations are requested.
    """

    day: Day
    start: datetime
    stored: StoredDay | None = None
    replaces: bool = False
    scope: NotificationScope = "all"

    @property
    def is_full(self) -> bool:
        """Whether this is a full fetch."""
        return self.start == self.day.start

    @property
    def stored_to_merge(self) -> StoredDay | None:
        """The stored day that is merged with the fetched rows."""
        return None if self.replaces else self.stored


@dataclass(frozen=True)
class DayBatch:
    """Consecutive days that are fetched together; all but the first are full fetches."""

    plans: Sequence[DayPlan]

    @property
    def edges(self) -> tuple[int, ...]:
        """The window's start, the ends of its days but the last, and its end, in ms."""
        return to_epoch_ms(self.plans[0].start), *(plan.day.end_ms for plan in self.plans)

    @property
    def full_edges(self) -> tuple[int, ...]:
        """The same edges from the first day's start on."""
        return self.plans[0].day.start_ms, *self.edges[1:]

    def build_request(self, kind: EventKind, path: str, edges: tuple[int, ...] = ()) -> Request:
        """Build the request of these days to one feed."""
        return Request(
            path,
            kind.start_parameter,
            kind.end_parameter,
            edges or self.edges,
            is_whole_feed=not kind.per_notification,
            retry_once=self.plans[0].scope == "missing",
        )


def plan_day(
    kind: EventKind,
    day: Day,
    stored: StoredDay | None,
    lookback: timedelta,
    now: datetime,
    *,
    full: bool,
    replaces: bool = False,
    missing_only: bool = False,
) -> DayPlan:
    """Plan an incremental fetch of an open day, from the watermark less the lookback; else a full one.

    A day that closes requests the activations of every notification, from the day's start. `missing_only` applies to
    closed days alone: an open one would count as complete until now.
    """
    is_closed = stored is not None and stored.is_closed(day)
    scope: NotificationScope = "active"
    if missing_only and is_closed and not replaces:
        scope = "missing"
    elif replaces or (now >= day.end + lookback and not is_closed):
        scope = "all"
    is_full = full or replaces or is_closed or (scope == "all" and kind.per_notification)
    start = day.start
    if stored is not None and stored.watermark is not None and not is_full:
        start = max(stored.watermark - lookback, day.start)
    return DayPlan(day, start, stored, replaces, scope)


def batch_days(plans: Iterable[DayPlan], rows: Sequence[int] | None) -> Iterator[DayBatch]:
    """Group consecutive days into batches, as many as a request may have.

    For a feed without fan-out, only full fetches of small days: small as stored, else by the `rows` of the days before.
    """
    waiting: list[DayPlan] = []
    for plan in plans:
        joined = [*waiting, replace(plan, start=plan.day.start)]
        is_next = waiting and waiting[-1].day.end == plan.day.start and len(waiting) < DAYS_PER_REQUEST
        fits = joined[0].scope == plan.scope if rows is None else plan.is_full and _are_small(joined, rows)
        if is_next and fits:
            waiting = joined
            continue
        if waiting:
            yield DayBatch(waiting)
        waiting = [plan]
    if waiting:
        yield DayBatch(waiting)


def _are_small(plans: Sequence[DayPlan], rows: Sequence[int]) -> bool:
    most = max(rows) if len(rows) >= SMALL_DAYS else EVENTS_PER_REQUEST
    events = sum(plan.stored.rows if plan.stored is not None else most for plan in plans)
    return plans[0].is_full and events <= EVENTS_PER_REQUEST
