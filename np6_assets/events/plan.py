"""Plans: which requests the days of a run need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from np6_assets.events.kinds import EventKind
from np6_assets.events.store import Stored
from np6_assets.np6.request import Request
from np6_assets.partitions import Day, milliseconds

DAYS_PER_REQUEST = 31
"""The most days of one request."""

EVENTS_PER_REQUEST = 20_000
"""About how many events a request for several days brings at most."""

Asks = Literal["all", "active", "missing"]
"""Which notifications are asked for activations: all that are known, those that may have sent, or those alone that did
not answer before."""

SMALL_DAYS = 7
"""So many days before have to be small for others to be taken to be: weekdays differ."""


@dataclass(frozen=True)
class DayPlan:
    """A day to fetch: from `start` on, which is its own start or, for an incremental fetch, a later instant.

    `stored` is what its file says; None where the day was never fetched. `replaces`: what is fetched takes its place.
    `asks`: of which notifications activations are asked.
    """

    day: Day
    start: datetime
    stored: Stored | None = None
    replaces: bool = False
    asks: Asks = "all"

    @property
    def is_full(self) -> bool:
        """Whether all of the day is fetched."""
        return self.start == self.day.start

    @property
    def kept(self) -> Stored | None:
        """What is merged with what is fetched."""
        return None if self.replaces else self.stored


@dataclass(frozen=True)
class Batch:
    """Days that are fetched together: consecutive ones, each but the first in full."""

    plans: Sequence[DayPlan]

    @property
    def edges(self) -> tuple[int, ...]:
        """The window's start, the ends of its days but the last, and its end, in ms."""
        return milliseconds(self.plans[0].start), *(plan.day.end_ms for plan in self.plans)

    @property
    def whole_edges(self) -> tuple[int, ...]:
        """The same from the first day's start on."""
        return self.plans[0].day.start_ms, *self.edges[1:]

    def request(self, kind: EventKind, path: str, edges: tuple[int, ...] = ()) -> Request:
        """The request for these days of one feed."""
        return Request(
            path,
            kind.start_parameter,
            kind.end_parameter,
            edges or self.edges,
            is_whole_feed=not kind.per_notification,
            is_patient=self.plans[0].asks != "missing",
        )


def plan_day(
    kind: EventKind,
    day: Day,
    stored: Stored | None,
    lookback: timedelta,
    now: datetime,
    *,
    full: bool,
    replaces: bool = False,
    missing_only: bool = False,
) -> DayPlan:
    """An incremental fetch of an open day, less the lookback; a full one of any other day.

    A day that closes asks every notification for its activations, from the day's start. `missing_only` counts for a
    closed day: an open one would be taken to be complete until now.
    """
    is_closed = stored is not None and stored.is_closed(day)
    asks: Asks = "all" if replaces or (now >= day.end + lookback and not is_closed) else "active"
    if missing_only and is_closed and not replaces:
        asks = "missing"
    start = day.start
    is_whole = full or replaces or is_closed or (asks == "all" and kind.per_notification)
    if stored is not None and stored.watermark is not None and not is_whole:
        start = max(stored.watermark - lookback, day.start)
    return DayPlan(day, start, stored, replaces, asks)


def batches(plans: Iterable[DayPlan], rows: Sequence[int] | None) -> Iterator[Batch]:
    """Consecutive days in batches, as many as a request may have.

    Of a whole feed, only full fetches of days that are small, as stored or else by the `rows` of days before.
    """
    waiting: list[DayPlan] = []
    for plan in plans:
        joined = [*waiting, replace(plan, start=plan.day.start)]
        is_next = waiting and waiting[-1].day.end == plan.day.start and len(waiting) < DAYS_PER_REQUEST
        fits = joined[0].asks == plan.asks if rows is None else plan.is_full and _are_small(joined, rows)
        if is_next and fits:
            waiting = joined
            continue
        if waiting:
            yield Batch(waiting)
        waiting = [plan]
    if waiting:
        yield Batch(waiting)


def _are_small(plans: Sequence[DayPlan], rows: Sequence[int]) -> bool:
    most = max(rows) if len(rows) >= SMALL_DAYS else EVENTS_PER_REQUEST
    events = sum(plan.stored.rows if plan.stored is not None else most for plan in plans)
    return plans[0].is_full and events <= EVENTS_PER_REQUEST
