"""Fetch days: download the requests of several batches at the same time, and yield each day when it is complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from np6_assets.events.decode import Decoder
from np6_assets.events.fanout import FanOut, KnownNotifications
from np6_assets.events.kinds import EventKind
from np6_assets.events.plan import SMALL_DAYS, DayPlan, batch_days
from np6_assets.events.receive import DECODERS, AnswerReceiver, BatchDownload, FetchedDay
from np6_assets.np6.client import NP6Client
from np6_assets.np6.request import Request


@dataclass(frozen=True)
class Fetcher:
    """Fetches days of one event kind. `known` is needed for a feed that is requested by notification."""

    kind: EventKind
    client: NP6Client
    decoder: Decoder
    now: Callable[[], datetime]
    known: KnownNotifications | None = None

    def fetch_days(self, plans: Iterable[DayPlan]) -> Generator[FetchedDay]:
        """Yield each day, in order; its events are freed when the next is taken. Raises AccessError."""
        rows: deque[int] = deque(maxlen=SMALL_DAYS)  # of the last days that were fetched in full
        with (
            ThreadPoolExecutor(DECODERS, thread_name_prefix="np6-decode") as pool,
            closing(self._download_batches(plans, rows, pool)) as batches,
        ):
            for batch in batches:
                with closing(batch):
                    for day in batch.complete_days():
                        yield day
                        if day.plan.is_full and day.error is None:
                            rows.append(day.received)

    def _download_batches(
        self, plans: Iterable[DayPlan], rows: deque[int], pool: ThreadPoolExecutor
    ) -> Generator[BatchDownload]:
        """Yield each batch of days when all its requests have been answered."""
        pending: deque[BatchDownload] = deque()

        def requests() -> Iterator[tuple[Request, Callable[[], AnswerReceiver]]]:
            for batch in batch_days(plans, None if self.known else rows):
                requested_at = partial(self.client.clock.get_request_time, self.now())
                fanout = None if self.known is None else FanOut(batch, self.known.read_ids(batch))
                download = BatchDownload(batch, self.decoder, pool, requested_at, fanout)
                pending.append(download)
                for request in download.build_requests(self.kind):
                    yield request, download.open_receiver

        try:
            with closing(self.client.fetch_all(requests())) as answers:
                for answer in answers:
                    while pending[0].is_answered():  # a batch without a notification to request
                        yield pending.popleft()
                    pending[0].add_answers(answer)
                    if pending[0].is_answered():
                        yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            for download in pending:
                download.close()
