"""Ingestion: from the days that are wanted to each day's rows, ready to be written.

What belongs here: which requests the days of a kind need, decoding their answers as they come, and sorting the rows
into days. Bounded in memory whatever the size of a day; on disk only in anonymous files.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from np6_assets.events.decode import IDENTITY, NO_TIME, Decoded, Decoder
from np6_assets.events.json_sql import ID_HASH
from np6_assets.events.kinds import EventKind
from np6_assets.events.ordering import ROWS_IN_MEMORY, Known, Ordering, OutOfOrderError
from np6_assets.np6.client import NP6Client, Request
from np6_assets.np6.errors import BadResponseError, RetriesUsedUpError
from np6_assets.np6.spool import Part
from np6_assets.partitions import Day, milliseconds

DAYS_PER_REQUEST = 31
"""The most days that one request asks for."""

EVENTS_PER_REQUEST = 20_000
"""About how many events one request for several days brings, where the days are small."""

DAYS_TO_JUDGE_BY = 7
"""So many days have to be there before others are taken to be as small: weekdays differ."""

DECODERS = 2
"""Parts decoded at once."""


@dataclass(frozen=True)
class Wanted:
    """A day that is to be fetched: all of it, or from `since` on in addition to the rows that are `known`.

    `rows_before` is how many rows were there before, whether or not they are of use; None where the day is new.
    """

    day: Day
    since: datetime
    known: Known | None = None
    rows_before: int | None = None

    @classmethod
    def in_full(cls, day: Day, rows_before: int | None = None) -> Wanted:
        """All of a day."""
        return cls(day, day.start, rows_before=rows_before)


class DayEvents:
    """One day's events. `asked_at` is when the first of the requests that brought them was made, or earlier."""

    def __init__(
        self, day: Day, asked_at: datetime, known: Known | None = None, rows_in_memory: int = ROWS_IN_MEMORY
    ) -> None:
        self.day = day
        self.asked_at = asked_at
        self.unknown_fields: set[str] = set()
        self.events = Ordering("event_id", ID_HASH, rows_in_memory, known)
        self.misfits = Ordering(IDENTITY, rows_in_memory=rows_in_memory)

    def absorb(self, other: DayEvents) -> None:
        """Take over what another request brought for the same day."""
        self.asked_at = min(self.asked_at, other.asked_at)
        self.unknown_fields |= other.unknown_fields
        self.events.absorb(other.events)
        self.misfits.absorb(other.misfits)

    def close(self) -> None:
        """Give memory and disk back."""
        self.events.close()
        self.misfits.close()


@dataclass(frozen=True)
class Arrival:
    """One day's events, which may still be on their way.

    `whole` waits until they are all there; `so_far` gives what is being filled, which may be given up for another.
    Both raise what the client raises.
    """

    wanted: Wanted
    whole: Callable[[], DayEvents]
    so_far: Callable[[], DayEvents]

    def tables(self) -> Iterator[pa.Table]:
        """The rows, sorted and unique, as they come in.

        Raises OutOfOrderError where they turn out to have come in another order: then `whole` has them right.
        """
        filling = self.so_far()
        yield from filling.events.tables_so_far()
        if self.whole() is not filling:
            raise OutOfOrderError


@dataclass(frozen=True)
class Ingestion:
    """How the days of one event kind are fetched."""

    kind: EventKind
    client: NP6Client
    decoder: Decoder
    now: Callable[[], datetime]

    def days(self, days: Iterable[Wanted]) -> Generator[Arrival]:
        """Each day's events. A day is gone when the next one is asked for.

        In the order of the days; those that were asked for together in vain come at the end.
        """
        return self._together(days) if self.kind.per_notification else self._each(days)

    def _each(self, days: Iterable[Wanted], *, joined: bool = True) -> Generator[Arrival]:
        """The days, each asked for with one request and given while it is on its way; small ones several at once.

        Where the answer for several days leaves open which of them something belongs to, a failure or an event that
        does not fit, they are asked for again, one by one.
        """
        rows: deque[int] = deque(maxlen=DAYS_TO_JUDGE_BY)  # of the last days that came in full
        again: list[Wanted] = []

        def is_small(day: Wanted, before: int) -> bool:
            if not joined or again or day.known is not None or len(rows) < DAYS_TO_JUDGE_BY:
                return False
            return before < DAYS_PER_REQUEST and (before + 1) * max(rows) <= EVENTS_PER_REQUEST

        chunks = _chunks(days, is_small)
        with self._asking(self._question(self.kind.path, chunk, chunk[0].known) for chunk in chunks) as answers:
            for question, finished in answers:
                try:
                    if len(question.days) > 1 and not _is_clear(finished):
                        again += question.days
                        continue
                    for wanted in question.days:
                        yield _on_its_way(wanted, question, finished)
                    with suppress(RetriesUsedUpError):  # its consumer knows
                        answer = finished()
                        rows += [answer.days[each.day].events.rows for each in question.days if each.known is None]
                finally:
                    question.close()
        if again:
            yield from self._each(again, joined=False)

    def _together(self, days: Iterable[Wanted]) -> Generator[Arrival]:
        """The days, DAYS_PER_REQUEST of them asked for with one request a notification, once they are all there."""
        asked_at = self.now()
        paths = [self.kind.path.format(id=id_) for id_, *_ in notifications(self.client)]
        chunks = list(_chunks(days, lambda _, before: before < DAYS_PER_REQUEST))
        with self._asking(self._question(path, chunk) for chunk in chunks for path in paths) as answers:
            for chunk in chunks:
                together = {
                    wanted.day: DayEvents(
                        wanted.day, asked_at, self._hashed(wanted.known), ROWS_IN_MEMORY // len(chunk)
                    )
                    for wanted in chunk
                }
                try:
                    failure = _gather(islice(answers, len(paths)), together)
                    for wanted in chunk:
                        yield _arrived(wanted, together[wanted.day], failure)
                finally:
                    for events in together.values():
                        events.close()

    def _question(self, path: str, days: Sequence[Wanted], known: Known | None = None) -> _Question:
        start, end = days[0].since, days[-1].day.end
        request = Request(
            path, self.kind.start_parameter, self.kind.end_parameter, milliseconds(start), milliseconds(end)
        )
        hashed = self._hashed(known)
        each = [wanted.day for wanted in days]
        return _Question(request, days, lambda pool: Answer(self.decoder, pool, request, each, self.now(), hashed))

    def _hashed(self, known: Known | None) -> Known | None:
        if known is None:
            return None
        return lambda columns: map(self.decoder.hashed, known(columns))

    @contextmanager
    def _asking(self, questions: Iterable[_Question]) -> Iterator[Iterator[tuple[_Question, Callable[[], Answer]]]]:
        """Ask, and give each question with a function that waits for its answer, in the order of the questions."""
        asked: dict[Request, _Question] = {}
        waiting: deque[_Question] = deque()

        def requests() -> Iterator[Request]:
            for question in questions:
                asked[question.request] = question
                waiting.append(question)
                yield question.request

        with (
            ThreadPoolExecutor(DECODERS, thread_name_prefix="np6-decode") as pool,
            closing(self.client.fetch_all(requests(), lambda request: asked[request].open(pool))) as answers,
        ):
            yield ((waiting.popleft(), finished) for finished in answers)


def _chunks(days: Iterable[Wanted], joins: Callable[[Wanted, int], bool]) -> Iterator[list[Wanted]]:
    """Days that follow one another, to be asked for with one request. Those after a chunk's first come in full with it.

    `joins` is asked about a day and the number of those before it, and says whether it goes with them.
    """
    chunk: list[Wanted] = []
    for wanted in days:
        if chunk and joins(wanted, len(chunk)) and chunk[-1].day.end == wanted.day.start:
            chunk.append(Wanted.in_full(wanted.day, wanted.rows_before))
            continue
        if chunk:
            yield chunk
        chunk = [wanted]
    if chunk:
        yield chunk


def _is_clear(finished: Callable[[], Answer]) -> bool:
    """Whether an answer is there, and all that is in it belongs to one of its days for certain."""
    try:
        return not any(day.misfits.rows for day in finished().days.values())
    except RetriesUsedUpError:
        return False


def _on_its_way(wanted: Wanted, question: _Question, finished: Callable[[], Answer]) -> Arrival:
    return Arrival(wanted, lambda: finished().days[wanted.day], lambda: question.answer().days[wanted.day])


def _gather(
    answers: Iterable[tuple[_Question, Callable[[], Answer]]], together: Mapping[Day, DayEvents]
) -> RetriesUsedUpError | None:
    """Take over what all the answers hold. Gives the first failure, where one of them is not to be had."""
    failure: RetriesUsedUpError | None = None
    for _, finished in answers:
        try:
            for day, part in finished().days.items():
                together[day].absorb(part)
        except RetriesUsedUpError as error:
            failure = failure or error
    for events in together.values():
        events.events.complete()
    return failure


def _arrived(wanted: Wanted, events: DayEvents, failure: RetriesUsedUpError | None) -> Arrival:
    def whole() -> DayEvents:
        if failure is not None:
            raise failure
        return events

    return Arrival(wanted, whole, lambda: events)


class _Question:
    """A request for some days, and the newest of the answers that were opened for it."""

    def __init__(self, request: Request, days: Sequence[Wanted], make: Callable[[ThreadPoolExecutor], Answer]) -> None:
        self.request = request
        self.days = days
        self._make = make
        self._answer: Answer | None = None
        self._opened = threading.Event()

    def open(self, pool: ThreadPoolExecutor) -> Answer:
        """An answer to be filled, in place of the one before."""
        self._answer = answer = self._make(pool)
        self._opened.set()
        return answer

    def answer(self) -> Answer:
        """The answer that is being filled, or is whole. Waits for the first."""
        self._opened.wait()
        assert self._answer is not None
        return self._answer

    def close(self) -> None:
        """Give memory and disk back."""
        if self._answer is not None:
            self._answer.close()


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
    """The sink of one request: decodes parts on other threads while the next are downloaded.

    `known` are rows of the first of the days.
    """

    def __init__(
        self,
        decoder: Decoder,
        pool: ThreadPoolExecutor,
        request: Request,
        days: Sequence[Day],
        asked_at: datetime,
        known: Known | None = None,
    ) -> None:
        self._decoder = decoder
        self._pool = pool
        self._request = request
        self._starts = np.array([day.start_ms for day in days] + [days[-1].end_ms])
        self.days = {
            day: DayEvents(day, asked_at, known if day is days[0] else None, ROWS_IN_MEMORY // len(days))
            for day in days
        }
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
        for day in self.days.values():
            day.events.complete()

    def abandon(self) -> None:
        """Give memory and disk back."""
        for future in self._decoding:
            future.cancel()
        self.close()

    def close(self) -> None:
        """Give memory and disk back, once nothing is being decoded."""
        for day in self.days.values():
            day.close()

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
