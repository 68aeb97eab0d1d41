"""Fetching: requests are downloaded, their parts decoded while the next arrive, and days given as they are complete."""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from np6_assets.events.decode import Decoded, Decoder, Edges
from np6_assets.events.found import FetchedDay, Found
from np6_assets.events.kinds import EventKind
from np6_assets.events.merge import EVENTS, QUARANTINE, ROWS_IN_MEMORY, Run, RunStore
from np6_assets.events.plan import SMALL_DAYS, Batch, DayPlan, batches, joins_all, joins_small
from np6_assets.events.reject import exact_integer
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import BadResponseError, NP6Error
from np6_assets.np6.request import Answer, Request
from np6_assets.np6.stream import PART_BYTES, Part

DECODERS = 2
"""Parts decoded at once."""

LEAST_SORTED = 10
"""Fewer events may be in order by chance: a cut answer of fewer is fetched again from its start."""

SMALL_ANSWER = 2**20
"""Bytes of an answer that shares a part with others."""


@dataclass(frozen=True)
class Fetcher:
    """Fetches days of one event kind."""

    kind: EventKind
    client: NP6Client
    decoder: Decoder
    now: Callable[[], datetime]

    def days(self, plans: Iterable[DayPlan]) -> Generator[FetchedDay]:
        """Each day, in order. What it brought is gone when the next one is taken. Raises AccessError."""
        rows: deque[int] = deque(maxlen=SMALL_DAYS)  # of the last days that were fetched in full
        asked: deque[_Collected] = deque()
        with (
            ThreadPoolExecutor(DECODERS, thread_name_prefix="np6-decode") as pool,
            closing(self._collected(plans, rows, asked, pool)) as collected,
        ):
            for batch in collected:
                with closing(batch):
                    for day in batch.days():
                        yield day
                        if day.plan.is_full and day.error is None:
                            rows.append(day.received)

    def _collected(
        self, plans: Iterable[DayPlan], rows: deque[int], asked: deque[_Collected], pool: ThreadPoolExecutor
    ) -> Generator[_Collected]:
        """Batches of days whose requests have all been answered."""
        if self.kind.per_notification:
            paths = [self.kind.path.format(id=id_) for id_, *_ in notifications(self.client)]
            planned = batches(plans, joins_all)
        else:
            paths, planned = [self.kind.path], batches(plans, joins_small(rows))

        def requests() -> Iterator[tuple[Request, Callable[[], _Receiver]]]:
            for batch in planned:
                asked.append(_Collected(batch, self.decoder, pool, self.now(), shares=self.kind.per_notification))
                for path in paths:
                    yield batch.request(self.kind, path), asked[-1].receiver

        try:
            with closing(self.client.fetch_all(requests())) as answers:
                for answer in answers:
                    asked[0].take(answer)
                    if asked[0].taken == len(paths):
                        yield asked.popleft()
            while asked:  # of an account without notifications
                yield asked.popleft()
        finally:
            for collected in asked:
                collected.close()


class _Collected:
    """What the requests for one batch of days bring."""

    def __init__(
        self, batch: Batch, decoder: Decoder, pool: ThreadPoolExecutor, asked_at: datetime, *, shares: bool
    ) -> None:
        self._batch = batch
        self._decoder = decoder
        self._pool = pool
        self._asked_at = asked_at
        self._shares = shares
        self._lock = threading.Lock()
        self._small: list[tuple[bytes, int]] = []
        self._together = _Receiver(self, shares=False, carries=False)
        self._found = Found()
        self._errors: dict[int, NP6Error] = {}
        self._events, self._quarantine = RunStore(EVENTS), RunStore(QUARANTINE)
        self.edges: Edges = batch.edges
        self.taken = 0
        self._is_large = False

    def receiver(self) -> _Receiver:
        """A receiver for one answer."""
        return _Receiver(self, shares=self._shares, carries=True)

    def decode(self, part: Part) -> Future[tuple[Decoded, Run | None]]:
        """Decode a part on another thread, and keep its rows as a run."""
        return self._pool.submit(self._decode, part)

    def keep_rejected(self, rejected: pa.Table) -> list[Run]:
        """Rejected events as runs."""
        run = self._quarantine.add(rejected)
        return [] if run is None else [run]

    def share(self, part: Part) -> None:
        """Collect a small answer for a part that is shared."""
        with self._lock, closing(part):
            self._small.append((part.read(), part.events))
            if sum(len(text) for text, _ in self._small) >= PART_BYTES:
                self._add_shared()

    def take(self, answers: list[Answer[_Receiver]]) -> None:
        """Take the answers to one of the requests."""
        self.taken += 1
        for answer in answers:
            if answer.receiver is not None:
                self._found += answer.receiver.found
            elif answer.error is not None:
                for number, plan in enumerate(self._batch.plans):
                    if answer.request.start < plan.day.end_ms <= answer.request.end:
                        self._errors.setdefault(number, answer.error)

    def days(self) -> Iterator[FetchedDay]:
        """The days, once all requests have been answered."""
        self._add_shared()
        self._together.finish()
        self._found += self._together.found
        if self._is_large:
            self._decoder.release()
        for number, plan in enumerate(self._batch.plans):
            yield FetchedDay(plan, self._asked_at, self._found, number, self._errors.get(number))

    def close(self) -> None:
        """Give memory and disk back."""
        self._events.close()
        self._quarantine.close()

    def _decode(self, part: Part) -> tuple[Decoded, Run | None]:
        decoded = self._decoder.decode(part, self.edges)
        run = self._events.add(decoded.rows)
        self._is_large |= decoded.rows.num_rows > ROWS_IN_MEMORY
        return replace(decoded, rows=decoded.rows.schema.empty_table()), run

    def _add_shared(self) -> None:
        if self._small:
            events = accumulate((events for _, events in self._small), initial=0)
            places = accumulate((len(text) + len(",") for text, _ in self._small), initial=0)
            *answers, (count, _) = zip(events, places, strict=True)
            self._together.add(Part.of(b",".join(text for text, _ in self._small), count, tuple(answers)))
            self._small = []


class _Receiver:
    """One answer: its parts, decoded and counted in their order.

    `shares`: a small answer shares a part with others. `carries`: the parts are of one answer.
    """

    def __init__(self, batch: _Collected, *, shares: bool, carries: bool) -> None:
        self._batch = batch
        self._shares = shares
        self._carries = carries
        self._small: Part | None = None
        self._decoding: deque[Future[tuple[Decoded, Run | None]]] = deque()
        self._is_resumed = False
        self._ascends = True
        self._parts = 0
        self._first: int | None = None
        self._last: int | None = None
        self._timed: int | None = None
        self.found = Found()

    def add(self, part: Part) -> None:
        """Take a part."""
        self._decode_small()
        self._parts += 1
        if self._shares and self._parts == 1 and part.size <= SMALL_ANSWER:
            self._small = part
        else:
            self._decode(part)

    def resume_from(self) -> tuple[int | None, int | None]:
        """After a cut: the times of the first and the last event received; None where they do not ascend."""
        self._decode_small()
        self._take_all()
        self._is_resumed = True
        is_sorted = self._ascends and self.found.received.total() + self.found.outside >= LEAST_SORTED
        return (self._first, self._last) if is_sorted else (None, None)

    def finish(self) -> None:
        """The answer is complete."""
        if self._small is not None:
            self._batch.share(self._small)
            self._small = None
        self._take_all()
        if self._is_resumed and not self._ascends:
            raise BadResponseError("the download was cut, and cannot be resumed as the API did not sort it")

    def discard(self) -> None:
        """Forget what was received."""
        if self._small is not None:
            self._small.close()
        for future in self._decoding:
            future.cancel()

    def _decode_small(self) -> None:
        if self._small is not None:
            small, self._small = self._small, None
            self._decode(small)

    def _decode(self, part: Part) -> None:
        if len(self._decoding) >= DECODERS:
            self._take(self._decoding.popleft())
        self._decoding.append(self._batch.decode(part))

    def _take_all(self) -> None:
        while self._decoding:
            self._take(self._decoding.popleft())

    def _take(self, future: Future[tuple[Decoded, Run | None]]) -> None:
        decoded, run = future.result()
        before = self._timed if self._carries and self._timed is not None else self._batch.edges[0]
        self.found += Found(
            [] if run is None else [run],
            self._batch.keep_rejected(_placed(decoded.rejected, before)),
            Counter(dict(enumerate(decoded.received.tolist()))),
            decoded.outside,
            decoded.erased,
            decoded.of_erased,
            decoded.unknown,
            decoded.unreadable,
        )
        if decoded.first is not None:
            self._ascends &= decoded.ascending and decoded.first >= (self._last or decoded.first)
            self._first = decoded.first if self._first is None else self._first
            self._last = decoded.last
        self._timed = decoded.timed or self._timed


def _placed(rejected: pa.Table, before: int) -> pa.Table:
    """Rejected events, those before which no event of their part was timed at the time before the part."""
    place = rejected.schema.get_field_index("placed")
    placed = rejected.column("placed")
    return rejected.set_column(place, "placed", pc.if_else(pc.equal(placed, 0), before, placed))


def notifications(client: NP6Client) -> list[tuple[int, str | None, str | None]]:
    """Id, name and type of each notification, by id. Raises BadResponseError where one has no usable id."""
    found: dict[int, tuple[int, str | None, str | None]] = {}
    for notification in client.get_list("/notifications"):
        id_ = exact_integer(notification.get("id")) if isinstance(notification, dict) else None
        if id_ is None:
            raise BadResponseError("GET /notifications: a notification has no whole number as its id")
        found[id_] = (id_, _text(notification.get("name")), _text(notification.get("type")))
    return [found[id_] for id_ in sorted(found)]


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
