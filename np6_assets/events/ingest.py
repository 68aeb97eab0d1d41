"""Ingestion: from the days that are wanted to each day's rows, ready to be written.

What belongs here: which requests the days of a kind need, decoding their answers as they come, and sorting the rows
into days. Bounded in memory whatever the size of a day; on disk only in anonymous files.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from np6_assets.events.decode import IDENTITY, NO_TIME, Decoded, Decoder
from np6_assets.events.json_sql import ID_HASH
from np6_assets.events.kinds import EventKind
from np6_assets.events.ordering import ROWS_IN_MEMORY, Ordering
from np6_assets.np6.client import NP6Client, Request
from np6_assets.np6.errors import BadResponseError
from np6_assets.np6.spool import Part
from np6_assets.partitions import Day

DAYS_PER_REQUEST = 31
"""How many days one request for one notification's feed asks for, where there is no feed for all notifications."""

DECODERS = 2
"""Parts decoded at once."""


class DayEvents:
    """One day's events. `asked_at` is when the first of the requests that brought them was made, or earlier."""

    def __init__(self, day: Day, asked_at: datetime, rows_in_memory: int = ROWS_IN_MEMORY) -> None:
        self.day = day
        self.asked_at = asked_at
        self.unknown_fields: set[str] = set()
        self.events = Ordering("event_id", ID_HASH, rows_in_memory)
        self.misfits = Ordering(IDENTITY, rows_in_memory=rows_in_memory)

    def absorb(self, other: DayEvents) -> None:
        """Take over what another request brought for the same day."""
        self.unknown_fields |= other.unknown_fields
        self.events.absorb(other.events)
        self.misfits.absorb(other.misfits)

    def close(self) -> None:
        """Give memory and disk back."""
        self.events.close()
        self.misfits.close()


@dataclass(frozen=True)
class Ingestion:
    """How the days of one event kind are fetched."""

    kind: EventKind
    client: NP6Client
    decoder: Decoder
    now: Callable[[], datetime]

    def days(self, days: Sequence[Day]) -> Generator[DayEvents]:
        """Each day's events, in the order of the days, which follow one another.

        A day is gone when the next one is asked for.
        """
        asked_at = self.now()
        if not self.kind.per_notification:
            yield from self._fetch([[day] for day in days], [self.kind.path], asked_at)
            return
        ids = [id_ for id_, *_ in notifications(self.client)]
        paths = [self.kind.path.format(id=id_) for id_ in ids]
        chunks = [days[place : place + DAYS_PER_REQUEST] for place in range(0, len(days), DAYS_PER_REQUEST)]
        yield from self._fetch(chunks, paths, asked_at)

    def _fetch(self, chunks: Sequence[Sequence[Day]], paths: Sequence[str], asked_at: datetime) -> Iterator[DayEvents]:
        """The days of each chunk, which is asked for with one request a path."""
        days_of = {self._request(path, chunk): chunk for chunk in chunks for path in paths}
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(DECODERS, thread_name_prefix="np6-decode"))
            answers = stack.enter_context(
                closing(
                    self.client.fetch_all(
                        days_of,
                        lambda request: Answer(self.decoder, pool, request, days_of[request], asked_at),
                    )
                )
            )
            for chunk in chunks:
                together = _empty_days(chunk, asked_at)
                try:
                    for _ in paths:
                        for day, part in next(answers).days.items():
                            together[day].absorb(part)
                    yield from together.values()
                finally:
                    _close(together)

    def _request(self, path: str, days: Sequence[Day]) -> Request:
        return Request(path, self.kind.start_parameter, self.kind.end_parameter, days[0].start_ms, days[-1].end_ms)


def _empty_days(days: Sequence[Day], asked_at: datetime) -> dict[Day, DayEvents]:
    return {day: DayEvents(day, asked_at, ROWS_IN_MEMORY // len(days)) for day in days}


def _close(days: dict[Day, DayEvents]) -> None:
    for day in days.values():
        day.close()


def notifications(client: NP6Client) -> list[tuple[int, str | None, str | None]]:
    """Id, name and type of each notification, by id. Raises BadResponseError where one has no usable id."""
    found: dict[int, tuple[int, str | None, str | None]] = {}
    for notification in client.get_list("/notifications"):
        id_ = notification.get("id") if isinstance(notification, dict) else None
        if not isinstance(id_, int) or isinstance(id_, bool):
            raise BadResponseError("GET /notifications: a notification has no whole number as its id")
        found[id_] = (id_, _text(notification.get("name")), _text(notification.get("type")))
    return [found[id_] for id_ in sorted(found)]


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Answer:
    """The sink of one request: decodes parts on other threads while the next are downloaded."""

    def __init__(
        self,
        decoder: Decoder,
        pool: ThreadPoolExecutor,
        request: Request,
        days: Sequence[Day],
        asked_at: datetime,
    ) -> None:
        self._decoder = decoder
        self._pool = pool
        self._request = request
        self._starts = np.array([day.start_ms for day in days] + [days[-1].end_ms])
        self.days = _empty_days(days, asked_at)
        self._decoding: deque[Future[Decoded]] = deque()
        self._last = self._request.start
        self._sorted = True

    def add(self, part: Part) -> None:
        """Take a part. Raises BadResponseError where an earlier one turned out not to be what was asked for."""
        if len(self._decoding) >= DECODERS:
            self._take(self._decoding.popleft())
        self._decoding.append(self._pool.submit(self._decoder.decode, part))

    def finish(self, *, resumed: bool) -> None:
        """Decode what is left. Raises BadResponseError where the events are not what was asked for."""
        while self._decoding:
            self._take(self._decoding.popleft())
        if resumed and not self._sorted:
            raise BadResponseError("the download was cut, and cannot go on as the API did not sort it")

    def abandon(self) -> None:
        """Give memory and disk back."""
        for future in self._decoding:
            future.cancel()
        _close(self.days)

    def _take(self, future: Future[Decoded]) -> None:
        decoded = future.result()
        before = self._last
        times = decoded.rows.column("event_time").cast(pa.int64()).to_numpy()
        if times.size:
            if times.min() < self._request.start or times.max() >= self._request.end:
                raise BadResponseError(
                    f"GET {self._request.path}: the answer holds events outside the window asked for"
                )
            self._sorted &= bool(times[0] >= self._last and (times[1:] >= times[:-1]).all())
            self._last = int(times[-1])
        self._share_out(decoded.rows, times, misfits=False)
        places = decoded.misfits.column("event_time").cast(pa.int64()).to_numpy()
        places = np.where(places == NO_TIME, before, places)
        self._share_out(decoded.misfits, places.clip(self._request.start, self._request.end - 1), misfits=True)
        for day in self.days.values():
            day.unknown_fields |= decoded.unknown_fields

    def _share_out(self, table: pa.Table, times: np.ndarray, *, misfits: bool) -> None:
        """Give each row to the day that its time is in."""
        index = np.searchsorted(self._starts, times, side="right") - 1
        for place, day in enumerate(self.days.values()):
            mine = table if len(self.days) == 1 else table.filter(pa.array(index == place))
            (day.misfits if misfits else day.events).add(mine)


def fetched_until(day: Day, asked_at: datetime, overlap: timedelta) -> datetime:
    """Until when a day is known to be whole, if it was asked for at a time.

    The day's end once the day is closed, that is asked for later than its end by at least the overlap; before that, a
    time before the day's end.
    """
    if asked_at >= day.end + overlap:
        return day.end
    return min(asked_at, day.end - timedelta(milliseconds=1))
