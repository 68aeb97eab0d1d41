"""Fetching: requests are downloaded, their parts decoded while the next arrive, and days given as they are complete."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import accumulate

import numpy as np

from np6_assets.events import notifications
from np6_assets.events.decode import Decoded, Decoder, Found
from np6_assets.events.kinds import EventKind
from np6_assets.events.merge import EVENTS, QUARANTINE, RunStore
from np6_assets.events.plan import SMALL_DAYS, Batch, DayPlan, batches
from np6_assets.np6.client import NP6Client
from np6_assets.np6.clock import AskedAt
from np6_assets.np6.errors import BadResponseError, NP6Error, PermanentError
from np6_assets.np6.request import Answer, Request
from np6_assets.np6.stream import PART_BYTES, Part

DECODERS = 2
"""Parts decoded at once."""

LEAST_SORTED = 10
"""Fewer events may be in order by chance: a cut answer of fewer is fetched again from its start."""

MOST_FOREIGN = 10
"""More events of unknown agencies, and no others, are another account's: the days are refused."""

SMALL_ANSWER = 2**20
"""Bytes of an answer that shares a part with others."""


@dataclass(frozen=True)
class FetchedDay:
    """What the requests for a day brought: day `number` of what is `found`.

    `asked` is when the first of the requests was made, or earlier. `error` says why the day is not complete.
    """

    plan: DayPlan
    asked: AskedAt
    found: Found
    number: int
    error: NP6Error | None = None

    @property
    def received(self) -> int:
        """How many events of the day there were, repeated ones included."""
        return self.found.received[self.number]

    @property
    def outside(self) -> int:
        """How many events were outside the window; told with the first of its days."""
        return 0 if self.number else self.found.outside

    @property
    def unknown(self) -> list[str]:
        """The unknown fields."""
        return sorted(path for day, path in self.found.unknown if day == self.number)

    @property
    def unreadable(self) -> dict[str, int]:
        """How many values could not be read, by column."""
        return {column: count for (day, column), count in self.found.unreadable.items() if day == self.number}


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
        with (
            ThreadPoolExecutor(DECODERS, thread_name_prefix="np6-decode") as pool,
            closing(self._collected(plans, rows, pool)) as collected,
        ):
            for batch in collected:
                with closing(batch):
                    for day in batch.days():
                        yield day
                        if day.plan.is_full and day.error is None:
                            rows.append(day.received)

    def _collected(self, plans: Iterable[DayPlan], rows: deque[int], pool: ThreadPoolExecutor) -> Generator[_Collected]:
        """Batches of days whose requests have all been answered."""
        asked: deque[_Collected] = deque()
        shares, paths = self.kind.per_notification, [self.kind.path]
        if shares:
            paths = [self.kind.path.format(id=id_) for id_ in notifications.listed(self.client)]

        def requests() -> Iterator[tuple[Request, Callable[[], _Receiver]]]:
            for batch in batches(plans, None if shares else rows):
                asked.append(_Collected(batch, self.decoder, pool, partial(self.client.clock.asked_at, self.now())))
                for path in paths:
                    yield batch.request(self.kind, path), partial(_Receiver, asked[-1], shares=shares)

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

    def __init__(self, batch: Batch, decoder: Decoder, pool: ThreadPoolExecutor, asked: Callable[[], AskedAt]) -> None:
        self._batch = batch
        self._decoder = decoder
        self._pool = pool
        self._asked = asked
        self._lock = threading.Lock()
        self._small: list[tuple[bytes, int]] = []
        self._shared: list[_Receiver] = []
        self._found = Found()
        self._errors: dict[int, NP6Error] = {}
        self._events, self._quarantine = RunStore(EVENTS), RunStore(QUARANTINE)
        self.taken = 0

    def decode(self, part: Part) -> Future[Decoded]:
        """Decode a part on another thread."""
        return self._pool.submit(self._decoder.decode, part, self._batch.edges, self._events)

    def found(self, decoded: Decoded, before: int) -> Found:
        """What was found in a part; `before` (ms) is the time of its rejected events before the first timed one."""
        if decoded.rejected:
            rows = [row | {"placed": row["placed"] or before or self._batch.edges[0]} for row in decoded.rejected]
            decoded.found.rejected = self._quarantine.add(self._decoder.keyed(rows, stored=False))
        return decoded.found

    def share(self, part: Part) -> None:
        """Collect a small answer for a part that is shared."""
        with self._lock, closing(part):
            self._small.append((part.read(), part.events))
            if sum(len(text) for text, _ in self._small) >= PART_BYTES:
                self._decode_shared()

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
        self._decode_shared()
        for receiver in self._shared:
            receiver.finish()
            self._found += receiver.found
        if self._events.is_on_disk:
            self._decoder.release()
        refused = _refused(self._found)
        for number, plan in enumerate(self._batch.plans):
            yield FetchedDay(plan, self._asked(), self._found, number, refused or self._errors.get(number))

    def close(self) -> None:
        """Give memory and disk back."""
        self._events.close()
        self._quarantine.close()

    def _decode_shared(self) -> None:
        if self._small:
            events = accumulate((events for _, events in self._small), initial=0)
            places = accumulate((len(text) + len(",") for text, _ in self._small), initial=0)
            *answers, (count, _) = zip(events, places, strict=True)
            self._shared.append(_Receiver(self, shares=False))
            self._shared[-1].add(Part.of(b",".join(text for text, _ in self._small), count, tuple(answers)))
            self._small = []


def _refused(found: Found) -> NP6Error | None:
    """What is wrong with answers that hold events of agencies alone that the folder does not know."""
    count, agencies = found.foreign.total(), ", ".join(sorted(found.foreign))
    if count <= MOST_FOREIGN or found.received.total():
        return None
    return PermanentError(
        f"all {count} events are of an agency that np6.json does not know ({agencies}): NP6_API_KEY is another "
        "account's; if it is not, add the agency to np6.json"
    )


class _Receiver:
    """One answer: its parts, decoded and counted in their order. `shares`: a small one shares a part with others."""

    def __init__(self, batch: _Collected, *, shares: bool) -> None:
        self._batch = batch
        self._shares = shares
        self._small: Part | None = None
        self._decoding: deque[Future[Decoded]] = deque()
        self._is_resumed = False
        self._ascends = True
        self._span: tuple[int, int] | None = None
        self._timed = 0
        self.found = Found()

    def add(self, part: Part) -> None:
        """Take a part."""
        self._decode_small()
        if self._shares and part.size <= SMALL_ANSWER:
            self._small = part
        else:
            self._decode(part)
        self._shares = False

    def resume_from(self) -> tuple[int, int] | None:
        """After a cut: the times of the first and the last event received; None where they do not ascend."""
        self._decode_small()
        self._take_all_but(0)
        self._is_resumed = True
        is_sorted = self._ascends and self.found.received.total() + self.found.outside >= LEAST_SORTED
        return self._span if is_sorted else None

    def finish(self) -> None:
        """The answer is complete."""
        if self._small is not None:
            self._batch.share(self._small)
        self._small = None
        self._take_all_but(0)
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
            self._decode(self._small)
        self._small = None

    def _decode(self, part: Part) -> None:
        self._take_all_but(DECODERS - 1)
        self._decoding.append(self._batch.decode(part))

    def _take_all_but(self, waiting: int) -> None:
        """Take what was decoded, but for so many of the parts."""
        while len(self._decoding) > waiting:
            decoded = self._decoding.popleft().result()
            self.found += self._batch.found(decoded, self._timed)
            self._timed = decoded.timed or self._timed
            if (times := decoded.times).size:
                first, last = self._span or (int(times[0]), int(times[0]))
                self._ascends &= bool((np.diff(times, prepend=last) >= 0).all())
                self._span = first, int(times[-1])
