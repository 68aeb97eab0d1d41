"""Fetching: requests are downloaded, their parts decoded while the next arrive, and days given as they are complete."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import accumulate

from np6_assets.events.decode import Decoded, Decoder, Found
from np6_assets.events.kinds import EventKind
from np6_assets.events.known import FanOut, KnownNotifications
from np6_assets.events.merge import EVENTS, QUARANTINE, RunStore
from np6_assets.events.plan import SMALL_DAYS, Batch, DayPlan, batches
from np6_assets.events.receive import DECODERS, AnswerReceiver
from np6_assets.events.unknown_fields import MOST_SHOWN
from np6_assets.np6.client import NP6Client
from np6_assets.np6.clock import AskedAt
from np6_assets.np6.errors import NP6Error, PermanentError
from np6_assets.np6.request import Answer, Request
from np6_assets.np6.stream import PART_BYTES, Part

MOST_FOREIGN = 10
"""More events of unknown agencies, and no others, are another account's: the days are refused."""


@dataclass(frozen=True)
class FetchedDay:
    """What the requests for a day brought: day `number` of what is `found`.

    `asked` is when the first of the requests was made, or earlier. `error` says why the day is not complete.
    Of activations: the ids of the notifications that were asked, with the reasons; those that answered, None for a feed
    of all; those whose sends of the day are not complete; those that the API does not know.
    """

    plan: DayPlan
    asked: AskedAt
    found: Found
    number: int
    error: NP6Error | None = None
    asked_ids: Mapping[int, str] | None = None
    answered: frozenset[int] | None = None
    missing: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()

    @property
    def received(self) -> int:
        """How many events of the day there were, repeated ones included."""
        return self.found.received[self.number]

    @property
    def outside(self) -> int:
        """How many events were outside the window; told with the first of its days."""
        return 0 if self.number else self.found.outside

    @property
    def of_erased(self) -> int:
        """How many events of the day were kept out as their receiver was erased."""
        return self.found.of_erased[self.number]

    @property
    def unknown(self) -> list[str]:
        """The unknown fields; of very many the first, and how many more there are."""
        paths = sorted(path for day, path in self.found.unknown if day == self.number)
        more = [f"and {len(paths) - MOST_SHOWN} more"] if len(paths) > MOST_SHOWN else []
        return paths[:MOST_SHOWN] + more

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
    known: KnownNotifications | None = None

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

        def requests() -> Iterator[tuple[Request, Callable[[], AnswerReceiver]]]:
            for batch in batches(plans, None if self.known else rows):
                moment = partial(self.client.clock.asked_at, self.now())
                fanout = None if self.known is None else FanOut(batch, self.known.of(batch))
                asked.append(_Collected(batch, self.decoder, pool, moment, fanout))
                for request in asked[-1].requests(self.kind):
                    yield request, partial(AnswerReceiver, asked[-1], shares=fanout is not None)

        try:
            with closing(self.client.fetch_all(requests())) as answers:
                for answer in answers:
                    while asked[0].is_answered():  # without a notification to ask
                        yield asked.popleft()
                    asked[0].take(answer)
                    if asked[0].is_answered():
                        yield asked.popleft()
            while asked:
                yield asked.popleft()
        finally:
            for collected in asked:
                collected.close()


class _Collected:
    """What the requests for one batch of days bring."""

    def __init__(
        self,
        batch: Batch,
        decoder: Decoder,
        pool: ThreadPoolExecutor,
        asked: Callable[[], AskedAt],
        fanout: FanOut | None,
    ) -> None:
        self._batch = batch
        self._fanout = fanout
        self._edges = batch.edges if fanout is None else batch.whole_edges
        self._decoder = decoder
        self._pool = pool
        self._asked = asked
        self._lock = threading.Lock()
        self._small: list[tuple[bytes, int]] = []
        self._shared: list[AnswerReceiver] = []
        self._found = Found()
        self._errors: dict[int, NP6Error] = {}
        self._events, self._quarantine = RunStore(EVENTS), RunStore(QUARANTINE)
        self._taken = 0

    def requests(self, kind: EventKind) -> Iterator[Request]:
        """The requests whose answers belong here."""
        return iter([self._batch.request(kind, kind.path)]) if self._fanout is None else self._fanout.requests()

    def is_answered(self) -> bool:
        """Whether all requests have been answered."""
        return self._taken == (1 if self._fanout is None else len(self._fanout.ids))

    def decode(self, part: Part) -> Future[Decoded]:
        """Decode a part on another thread."""
        return self._pool.submit(self._decoder.decode, part, self._edges, self._events)

    def found(self, decoded: Decoded, before: int) -> Found:
        """What was found in a part; `before` (ms) is the time of its rejected events before the first timed one."""
        if decoded.rejected:
            rows = [row | {"placed": row["placed"] or before or self._edges[0]} for row in decoded.rejected]
            decoded.found.rejected = self._quarantine.add(self._decoder.keyed(rows, stored=False))
        return decoded.found

    def share(self, part: Part) -> None:
        """Collect a small answer for a part that is shared."""
        with self._lock, closing(part):
            self._small.append((part.read(), part.events))
            if sum(len(text) for text, _ in self._small) >= PART_BYTES:
                self._decode_shared()

    def take(self, answers: list[Answer[AnswerReceiver]]) -> None:
        """Take the answers to the next of the requests."""
        errors: dict[int, NP6Error] = {}
        for answer in answers:
            if answer.receiver is not None:
                self._found += answer.receiver.found
            elif answer.error is not None:
                for number, plan in enumerate(self._batch.plans):
                    if answer.request.start < plan.day.end_ms <= answer.request.end:
                        errors[number] = answer.error
        if self._fanout is None:
            self._errors = errors
        else:
            self._fanout.take(errors)
        self._taken += 1

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
            day = FetchedDay(plan, self._asked(), self._found, number, refused or self._errors.get(number))
            yield day if self._fanout is None else _of_notifications(day, self._fanout)

    def close(self) -> None:
        """Give memory and disk back."""
        self._events.close()
        self._quarantine.close()

    def _decode_shared(self) -> None:
        if self._small:
            events = accumulate((events for _, events in self._small), initial=0)
            places = accumulate((len(text) + len(",") for text, _ in self._small), initial=0)
            *answers, (count, _) = zip(events, places, strict=True)
            self._shared.append(AnswerReceiver(self, shares=False))
            self._shared[-1].add(Part.of(b",".join(text for text, _ in self._small), count, tuple(answers)))
            self._small = []


def _of_notifications(day: FetchedDay, fanout: FanOut) -> FetchedDay:
    number = day.number
    return replace(
        day,
        error=day.error or fanout.error(number),
        asked_ids=fanout.ids,
        answered=fanout.answered(number),
        missing=fanout.missing(number),
        gone=fanout.gone(number),
    )


def _refused(found: Found) -> NP6Error | None:
    """What is wrong with answers that hold events of agencies alone that the folder does not know."""
    count, agencies = found.foreign.total(), ", ".join(sorted(found.foreign))
    if count <= MOST_FOREIGN or found.received.total():
        return None
    return PermanentError(
        f"all {count} events are of an agency that np6.json does not know ({agencies}): NP6_API_KEY is another "
        "account's; if it is not, add the agency to np6.json"
    )
