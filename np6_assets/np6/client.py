"""The API client: requests, retries, and resuming where a download was cut.

The caller's `Receiver` takes the parts of an answer.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Generic, TypeVar

from np6_assets.np6.connection import Connection
from np6_assets.np6.errors import (
    AccessError,
    BadResponseError,
    CancelledError,
    CutResponseError,
    ForbiddenError,
    GaveUpError,
    NoConnectionError,
    PermanentError,
    TransientError,
    UnreachableError,
    WrongBodyError,
)
from np6_assets.np6.request import Answer, R, Request
from np6_assets.np6.retry import RetryPolicy
from np6_assets.np6.stream import ArrayScanner, PartWriter
from np6_assets.np6.timestamps import to_milliseconds

LONGEST_LIST = 64 * 2**20
"""Bytes of the longest list of notifications."""

FAILURES_IN_A_ROW = 3
"""After so many failed days in a row the API is out of order: give up."""

UNANSWERED_SECONDS = 20.0
"""If nothing has ever answered at the address, no retry starts later than this after the first attempt."""

T = TypeVar("T")


class NP6Client(Connection):
    """The API of one account. Safe to share between threads; close it after use."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        retry: RetryPolicy = RetryPolicy(),
        concurrency: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(base_url, api_key, concurrency=concurrency, **options)
        self._retry = retry
        self._concurrency = concurrency
        self._sorted_feeds: dict[str, bool] = {}

    def get_list(self, path: str) -> list[Any]:
        """Get a short JSON array. Raises PermanentError or GaveUpError."""
        return self._call_with_retries(path, lambda: self._download_list(path))

    def has_events(self, request: Request) -> bool:
        """Whether a request's window holds any event; reads no more than the first.

        Raises PermanentError or GaveUpError.
        """
        parameters = request.build_parameters(self._now())
        first = self._call_with_retries(request.path, lambda: self._download_first_event(request.path, parameters))
        time = _read_timestamp(first)
        return first is not None and (time is None or request.start <= time < request.end)

    def fetch(self, request: Request, open_receiver: Callable[[], R]) -> list[Answer[R]]:
        """Download a request's answer; a request of several days that fails is halved, down to single days.

        Halves get one retry, until FAILURES_IN_A_ROW days have failed. Raises AccessError and UnreachableError.
        """
        answers: list[Answer[R]] = []
        pending = [request]
        while pending:
            part = pending.pop()
            failed = [answer.error for answer in answers[-FAILURES_IN_A_ROW:] if answer.error is not None]
            if len(failed) == FAILURES_IN_A_ROW:
                answers.append(Answer(part, None, failed[-1]))
                continue
            answer = self._fetch(part, open_receiver, None if part is request and not request.retry_once else 1)
            if answer.error is None or not part.halves:
                answers.append(answer)
            else:
                pending += reversed(part.halves)
        return answers

    def fetch_all(self, requests: Iterable[tuple[Request, Callable[[], R]]]) -> Generator[list[Answer[R]]]:
        """Yield the answers to each request, in order; `concurrency` requests are fetched ahead.

        Each request comes with the function that opens its receivers.
        """
        ahead: deque[Future[list[Answer[R]]]] = deque()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="np6") as pool:
            try:
                for request, open_receiver in requests:
                    if len(ahead) > self._concurrency:
                        yield _take_first_result(ahead)
                    ahead.append(pool.submit(self.fetch, request, open_receiver))
                while ahead:
                    yield _take_first_result(ahead)
            except BaseException:
                self.cancel()
                for future in ahead:
                    future.cancel()
                raise

    def _fetch(self, request: Request, open_receiver: Callable[[], R], most_retries: int | None) -> Answer[R]:
        download = _Download(request, open_receiver)
        try:
            attempt, failed = partial(self._download, download), partial(self._prepare_retry, download)
            self._call_with_retries(request.path, attempt, failed, most_retries)
        except BaseException as error:
            download.receiver.discard()
            if not isinstance(error, GaveUpError | PermanentError):
                raise
            if _is_fatal(error, request):
                raise
            return Answer(request, None, error)
        return Answer(request, download.receiver)

    def _download(self, download: _Download[R]) -> None:
        path, request = download.request.path, download.request
        writer = PartWriter(download.receiver.add)
        try:
            with self.open_body(path, request.build_parameters(self._now(), download.start)) as (chunks, stall):
                for chunk in chunks:
                    writer.feed(chunk)
                    stall.record_events(writer.events)
            writer.finish()
            download.receiver.finish()
        except CutResponseError:
            writer.hand_over_whole_events()
            raise
        finally:
            writer.close()

    def _prepare_retry(self, download: _Download[R], error: TransientError) -> bool:
        """Resume after the last event received if the API sorts the feed, else start again.

        Returns whether there was progress.
        """
        if not isinstance(error, BadResponseError):
            return False  # a status: nothing of this attempt was received
        span = download.receiver.resume_from() if isinstance(error, CutResponseError) else None
        if span is not None and self._is_sorted(download.request, *span):
            before, download.start = download.start, span[1]
            return download.start > before
        download.restart()
        return False

    def _is_sorted(self, request: Request, first: int, last: int) -> bool:
        """Whether the API sorts this feed: its newest event is not before the last one received.

        An answer sorted in groups would lose the groups to come. An API that ignores `sort` returns the first event
        received again.
        """
        if request.path not in self._sorted_feeds:
            try:
                newest = self._download_first_event(request.path, request.build_parameters(self._now(), sort="desc"))
            except (TransientError, PermanentError):
                return False
            time = _read_timestamp(newest)
            self._sorted_feeds[request.path] = time is not None and time >= last and time > first
        return self._sorted_feeds[request.path]

    def _download_first_event(self, path: str, parameters: Mapping[str, str]) -> bytes | None:
        """Download the bytes of the first event of an answer; None if it is empty."""
        scanner, found = ArrayScanner(), b""
        # not compressed: gzip may hold the first event back until much more of the body arrived
        with self.open_body(path, parameters, chunk_bytes=1, encoding="identity") as (chunks, _):
            for chunk in chunks:
                end = scanner.next_event_end(chunk)
                scanner.feed(chunk[:end])
                found += chunk[:end]
                if end is not None:
                    return found.partition(b"[")[2]
        scanner.finish()
        return None

    def _download_list(self, path: str) -> list[Any]:
        scanner, body = ArrayScanner(), bytearray()
        with self.open_body(path, {}) as (chunks, stall):
            for chunk in chunks:
                scanner.feed(chunk)
                stall.record_events(scanner.events)
                body += chunk
                if len(body) > LONGEST_LIST:
                    raise WrongBodyError(f"the list has more than {LONGEST_LIST >> 20} MiB")
        scanner.finish()
        if not isinstance(found := _parse_json(bytes(body)), list):
            raise BadResponseError("the body is not JSON")
        return found

    def _call_with_retries(
        self,
        path: str,
        attempt: Callable[[], T],
        failed: Callable[[TransientError], bool] = lambda error: False,
        most_retries: int | None = None,
    ) -> T:
        """Call `attempt` until it succeeds or too many attempts in a row have failed.

        The one retry loop. `failed` prepares the next attempt and returns whether the failed one made progress.
        """
        failures, begun = 0, time.monotonic()
        while True:
            try:
                return attempt()
            except TransientError as error:
                failures = 1 if failed(error) else failures + 1
                self._back_off(path, error, failures, most_retries, begun)

    def _back_off(
        self, path: str, error: TransientError, failures: int, most_retries: int | None, begun: float
    ) -> None:
        """Wait before the next attempt. Raises GaveUpError if there is none."""
        if self.closed.is_set():
            raise CancelledError("the client is closed") from None
        bounds = (self._retry.retries, error.most_retries, most_retries)
        retries = min(bound for bound in bounds if bound is not None)
        seconds = self._retry.compute_wait(failures, error.wait, random.random())
        if isinstance(error, NoConnectionError) and not self.answered.is_set():
            if failures > retries or time.monotonic() + seconds > begun + UNANSWERED_SECONDS:
                raise UnreachableError(f"{error}; GET {path} given up after {failures} attempts") from None
        elif failures > retries:
            raise GaveUpError(
                f"{error}; GET {path} given up after {failures} attempts in a row without progress"
            ) from None
        with self._lock:
            self.traffic.retries += 1
        self._log(f"{error}; retrying GET {path} in {seconds:.1f} s ({failures} of {retries})")
        if self.closed.wait(seconds):
            raise CancelledError("the client is closed") from None


class _Download(Generic[R]):
    """The state of one request's attempts: where the next one starts, and the receiver of its parts."""

    def __init__(self, request: Request, open_receiver: Callable[[], R]) -> None:
        self.request = request
        self._open_receiver = open_receiver
        self.start = request.start
        self.receiver = open_receiver()

    def restart(self) -> None:
        """Drop what was received and start again."""
        self.receiver.discard()
        self.start = self.request.start
        self.receiver = self._open_receiver()


def _is_fatal(error: BaseException, request: Request) -> bool:
    """Whether other requests would fail in the same way: no key, no right to a whole feed, no connection."""
    if isinstance(error, ForbiddenError):
        return request.is_whole_feed
    return isinstance(error, AccessError | UnreachableError)


def _parse_json(body: bytes) -> Any:
    """Parse a body; None if it is not JSON. The error, which quotes the body, ends here."""
    try:
        return json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _read_timestamp(event: bytes | None) -> int | None:
    """When an event says that it was published, in ms; None where it does not say so in a number, or is none."""
    value = _parse_json(event or b"")
    time = value.get("timestamp") if isinstance(value, dict) else None
    return to_milliseconds(time) if isinstance(time, int) and not isinstance(time, bool) else None


def _take_first_result(ahead: deque[Future[list[Answer[R]]]]) -> list[Answer[R]]:
    """Take the first one's result; raise what ends the whole range from whichever of them has it first."""
    while True:
        for future in ahead:
            if future.done() and future.exception() is not None:
                future.result()
        if ahead[0].done():
            return ahead.popleft().result()
        wait([future for future in ahead if not future.done()], return_when=FIRST_COMPLETED)
