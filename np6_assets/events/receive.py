"""Receive answers: their parts are decoded while the next ones arrive, and collected for a batch of days."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from np6_assets.events.decode import DecodedEvents, DecodedPart, Decoder
from np6_assets.events.fanout import FanOut
from np6_assets.events.kinds import EventKind
from np6_assets.events.merge import EVENTS, QUARANTINE, RunStore
from np6_assets.events.plan import DayBatch, DayPlan
from np6_assets.events.unknown_fields import MOST_SHOWN
from np6_assets.np6.clock import RequestTime
from np6_assets.np6.errors import BadResponseError, NP6Error, PermanentError
from np6_assets.np6.request import Answer, Request
from np6_assets.np6.stream import PART_BYTES, Part

DECODERS = 2
"""Parts that are decoded at the same time."""

LEAST_SORTED = 10
"""Fewer events may be in order by chance: an answer that is cut before so many is downloaded again from its start."""

SMALL_ANSWER = 2**20
"""An answer of at most so many bytes shares a part with others."""

MOST_OF_UNKNOWN_AGENCIES = 10
"""If an answer has more events of unknown agencies, and no others, it is of another account: the days are refused."""


@dataclass(frozen=True)
class FetchedDay:
    """What the requests for a day returned.

    Attributes:
        requested_at: when the first of the requests was sent, or earlier.
        events: of all days of the batch; this day has the number `number` there.
        error: why the day is not complete.
        requested_ids: of activations, the notifications that were requested, with the reasons.
        answered_ids: the notifications that answered; None for a feed that is not requested by notification.
        missing_ids: the notifications whose sends of the day are not complete.
        gone_ids: the notifications that the API does not know (404).
    """

    plan: DayPlan
    requested_at: RequestTime
    events: DecodedEvents
    number: int
    error: NP6Error | None = None
    requested_ids: Mapping[int, str] | None = None
    answered_ids: frozenset[int] | None = None
    missing_ids: frozenset[int] = frozenset()
    gone_ids: frozenset[int] = frozenset()

    @property
    def received(self) -> int:
        """The number of events of the day, duplicates included."""
        return self.events.received[self.number]

    @property
    def outside_window(self) -> int:
        """The number of events outside the window; counted only for the first day of a batch."""
        return 0 if self.number else self.events.outside_window

    @property
    def erased_count(self) -> int:
        """The number of events of the day whose receiver was erased."""
        return self.events.erased_counts[self.number]

    @property
    def unknown_fields(self) -> list[str]:
        """The first MOST_SHOWN unknown fields, and how many more there are."""
        paths = sorted(path for day, path in self.events.unknown_fields if day == self.number)
        more = [f"and {len(paths) - MOST_SHOWN} more"] if len(paths) > MOST_SHOWN else []
        return paths[:MOST_SHOWN] + more

    @property
    def unreadable_values(self) -> dict[str, int]:
        """The number of unreadable values by column."""
        return {column: count for (day, column), count in self.events.unreadable_values.items() if day == self.number}


class BatchDownload:
    """Collects the answers to the requests for one batch of days."""

    def __init__(
        self,
        batch: DayBatch,
        decoder: Decoder,
        pool: ThreadPoolExecutor,
        requested_at: Callable[[], RequestTime],
        fanout: FanOut | None,
    ) -> None:
        self._batch = batch
        self._fanout = fanout
        self._edges = batch.edges if fanout is None else batch.full_edges
        self._decoder = decoder
        self._pool = pool
        self._requested_at = requested_at
        self._lock = threading.Lock()
        self._small_answers: list[tuple[bytes, int]] = []
        self._shared_receivers: list[AnswerReceiver] = []
        self._decoded = DecodedEvents()
        self._errors: dict[int, NP6Error] = {}
        self._events, self._quarantine = RunStore(EVENTS), RunStore(QUARANTINE)
        self._unanswered = 1 if fanout is None else len(fanout.ids)

    def build_requests(self, kind: EventKind) -> Iterator[Request]:
        """Build the requests: one, or one for each notification."""
        if self._fanout is None:
            return iter([self._batch.build_request(kind, kind.path)])
        return self._fanout.build_requests()

    def is_answered(self) -> bool:
        """Whether all requests have been answered."""
        return self._unanswered == 0

    def open_receiver(self) -> AnswerReceiver:
        """Make the receiver of one answer."""
        return AnswerReceiver(self, may_share=self._fanout is not None)

    def submit_part(self, part: Part) -> Future[DecodedPart]:
        """Decode a part on another thread."""
        return self._pool.submit(self._decoder.decode, part, self._edges, self._events)

    def add_rejected(self, part: DecodedPart, time_before: int) -> None:
        """Store the rejected events of a part; those before its first event with a time get `time_before` (ms)."""
        if part.rejected:
            rows = [row | {"placed": row["placed"] or time_before or self._edges[0]} for row in part.rejected]
            part.events.rejected = self._quarantine.add(self._decoder.build_quarantine_rows(rows, stored=False))

    def add_small_answer(self, part: Part) -> None:
        """Put a small answer into a part that several share."""
        with self._lock, closing(part):
            self._small_answers.append((part.read(), part.events))
            if sum(len(text) for text, _ in self._small_answers) >= PART_BYTES:
                self._decode_small_answers()

    def add_answers(self, answers: list[Answer[AnswerReceiver]]) -> None:
        """Add what the next request returned: one answer, or several if the request was halved."""
        errors: dict[int, NP6Error] = {}
        for answer in answers:
            if answer.receiver is not None:
                self._decoded += answer.receiver.events
            elif answer.error is not None:
                for number, plan in enumerate(self._batch.plans):
                    if answer.request.start < plan.day.end_ms <= answer.request.end:
                        errors[number] = answer.error
        if self._fanout is None:
            self._errors = errors
        else:
            self._fanout.add_result(errors)
        self._unanswered -= 1

    def complete_days(self) -> Iterator[FetchedDay]:
        """Yield the days, once all requests have been answered."""
        self._decode_small_answers()
        for receiver in self._shared_receivers:
            receiver.finish()
            self._decoded += receiver.events
        if self._events.is_on_disk:
            self._decoder.release_memory()
        refusal = _check_agencies(self._decoded)
        for number, plan in enumerate(self._batch.plans):
            error = refusal or self._errors.get(number)
            day = FetchedDay(plan, self._requested_at(), self._decoded, number, error)
            if (fanout := self._fanout) is not None:
                day = replace(
                    day,
                    error=error or fanout.find_error(number),
                    requested_ids=fanout.ids,
                    answered_ids=fanout.find_answered(number),
                    missing_ids=fanout.find_missing(number),
                    gone_ids=fanout.find_gone(number),
                )
            yield day

    def close(self) -> None:
        """Free memory and disk space."""
        self._events.close()
        self._quarantine.close()

    def _decode_small_answers(self) -> None:
        if self._small_answers:
            events = accumulate((events for _, events in self._small_answers), initial=0)
            places = accumulate((len(text) + len(",") for text, _ in self._small_answers), initial=0)
            *answers, (count, _) = zip(events, places, strict=True)
            text = b",".join(text for text, _ in self._small_answers)
            self._shared_receivers.append(AnswerReceiver(self, may_share=False))
            self._shared_receivers[-1].add(Part.from_elements(text, count, tuple(answers)))
            self._small_answers = []


class AnswerReceiver:
    """Receives one answer, see `np6.request.Receiver`. With `may_share` a small one shares a part with others."""

    def __init__(self, batch: BatchDownload, *, may_share: bool) -> None:
        self._batch = batch
        self._may_share = may_share
        self._small: Part | None = None
        self._decoding: deque[Future[DecodedPart]] = deque()
        self._is_resumed = False
        self._ascends = True
        self._span: tuple[int, int] | None = None
        self._last_time = 0
        self.events = DecodedEvents()

    def add(self, part: Part) -> None:
        """Take a part."""
        self._submit_small_part()
        if self._may_share and part.size <= SMALL_ANSWER:
            self._small = part
        else:
            self._submit_part(part)
        self._may_share = False

    def resume_from(self) -> tuple[int, int] | None:
        """Return the times of the first and last event received before a cut; None if they do not ascend."""
        self._submit_small_part()
        self._collect_decoded(0)
        self._is_resumed = True
        is_sorted = self._ascends and self.events.received.total() + self.events.outside_window >= LEAST_SORTED
        return self._span if is_sorted else None

    def finish(self) -> None:
        """End the answer. Raises BadResponseError if it was resumed and its events do not ascend."""
        if self._small is not None:
            self._batch.add_small_answer(self._small)
        self._small = None
        self._collect_decoded(0)
        if self._is_resumed and not self._ascends:
            raise BadResponseError("the download was cut, and cannot be resumed as the API did not sort it")

    def discard(self) -> None:
        """Drop what was received."""
        if self._small is not None:
            self._small.close()
        for future in self._decoding:
            future.cancel()

    def _submit_small_part(self) -> None:
        if self._small is not None:
            self._submit_part(self._small)
        self._small = None

    def _submit_part(self, part: Part) -> None:
        self._collect_decoded(DECODERS - 1)
        self._decoding.append(self._batch.submit_part(part))

    def _collect_decoded(self, pending: int) -> None:
        """Collect the decoded parts in order, until `pending` are left."""
        while len(self._decoding) > pending:
            part = self._decoding.popleft().result()
            self._batch.add_rejected(part, self._last_time)
            self.events += part.events
            self._last_time = part.last_time or self._last_time
            if (times := part.times).size:
                first, last = self._span or (int(times[0]), int(times[0]))
                self._ascends &= bool((np.diff(times, prepend=last) >= 0).all())
                self._span = first, int(times[-1])


def _check_agencies(events: DecodedEvents) -> NP6Error | None:
    """Return an error if there are many events, and all are of agencies that the folder does not know."""
    count, agencies = events.unknown_agencies.total(), ", ".join(sorted(events.unknown_agencies))
    if count <= MOST_OF_UNKNOWN_AGENCIES or events.received.total():
        return None
    return PermanentError(
        f"all {count} events are of an agency that np6.json does not know ({agencies}): NP6_API_KEY is another "
        "account's; if it is not, add the agency to np6.json"
    )
