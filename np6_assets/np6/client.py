"""The API client: requests, retries, and going on where a download was cut.

What an answer's parts mean, and where they go, is for the `Receiver` that the caller hands in.
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
from np6_assets.np6.retry import Retry
from np6_assets.np6.stream import ArrayScanner, PartWriter
from np6_assets.np6.timestamps import to_milliseconds

LONGEST_LIST = 64 * 2**20
"""Bytes of the longest list of notifications."""

FAILURES_IN_A_ROW = 3
"""After so many failed days in a row the API is taken to be out of order."""

UNANSWERED_SECONDS = 20.0
"""As long as nothing has ever answered at the address, no attempt begins later than this after the first."""

T = TypeVar("T")


class NP6Client(Connection):
    """The API of one account. Safe to share between threads; close it after use."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        retry: Retry = Retry(),
        concurrency: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(base_url, api_key, concurrency=concurrency, **options)
        self._retry = retry
        self._concurrency = concurrency
        self._sorting: dict[str, bool] = {}

    def get_list(self, path: str) -> list[Any]:
        """A short JSON array, whole. Raises PermanentError or GaveUpError."""
        return self._retrying(path, lambda: self._list(path))

    def has_events(self, request: Request) -> bool:
        """Whether a request's window holds any event; no more of its answer is read than the first event.

        Raises PermanentError or GaveUpError.
        """
        parameters = request.parameters(self._now())
        first = self._retrying(request.path, lambda: self._first_event(request.path, parameters))
        time = _timestamp(first)
        return first is not None and (time is None or request.start <= time < request.end)

    def fetch(self, request: Request, open_receiver: Callable[[], R]) -> list[Answer[R]]:
        """Download a request's answer. One of several days that fails for good is halved, down to single days.

        Halves are attempted twice at most, until FAILURES_IN_A_ROW days have failed. Raises AccessError and
        UnreachableError.
        """
        answers: list[Answer[R]] = []
        pending = [request]
        while pending:
            part = pending.pop()
            failed = [answer.error for answer in answers[-FAILURES_IN_A_ROW:] if answer.error is not None]
            if len(failed) == FAILURES_IN_A_ROW:
                answers.append(Answer(part, None, failed[-1]))
                continue
            answer = self._fetch(part, open_receiver, None if part is request and request.is_patient else 1)
            if answer.error is None or not part.halves:
                answers.append(answer)
            else:
                pending += reversed(part.halves)
        return answers

    def fetch_all(self, requests: Iterable[tuple[Request, Callable[[], R]]]) -> Generator[list[Answer[R]]]:
        """The answers to each request, in the order of the requests; `concurrency` of them are fetched ahead.

        Each request comes with the function that opens its receivers.
        """
        ahead: deque[Future[list[Answer[R]]]] = deque()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="np6") as pool:
            try:
                for request, open_receiver in requests:
                    if len(ahead) > self._concurrency:
                        yield _first_result(ahead)
                    ahead.append(pool.submit(self.fetch, request, open_receiver))
                while ahead:
                    yield _first_result(ahead)
            except BaseException:
                self.cancel()
                for future in ahead:
                    future.cancel()
                raise

    def _fetch(self, request: Request, open_receiver: Callable[[], R], most_retries: int | None) -> Answer[R]:
        download = _Download(request, open_receiver)
        try:
            attempt, failed = partial(self._attempt, download), partial(self._resume, download)
            self._retrying(request.path, attempt, failed, most_retries)
        except BaseException as error:
            download.receiver.discard()
            if not isinstance(error, GaveUpError | PermanentError):
                raise
            if _ends_all(error, request):
                raise
            return Answer(request, None, error)
        return Answer(request, download.receiver)

    def _attempt(self, download: _Download[R]) -> None:
        path, request = download.request.path, download.request
        writer = PartWriter(download.receiver.add)
        try:
            with self.body(path, request.parameters(self._now(), download.start)) as (chunks, stall):
                for chunk in chunks:
                    writer.feed(chunk)
                    stall.progress(writer.events)
            writer.finish()
            download.receiver.finish()
        except CutResponseError:
            writer.hand_over_whole_events()
            raise
        finally:
            writer.close()

    def _resume(self, download: _Download[R], error: TransientError) -> bool:
        """Go on from the last event received where its answer is known to be sorted, start again elsewhere.

        Says whether that is progress.
        """
        if not isinstance(error, BadResponseError):
            return False  # a status: nothing of this attempt was received
        span = download.receiver.resume_from() if isinstance(error, CutResponseError) else None
        if span is not None and self._sorts(download.request, *span):
            before, download.start = download.start, span[1]
            return download.start > before
        download.restart()
        return False

    def _sorts(self, request: Request, first: int, last: int) -> bool:
        """Whether the API sorts this feed: its newest event is not earlier than the last one received.

        An answer that is sorted in groups would lose the groups to come. An API that ignores `sort` shows the first
        one received again.
        """
        if request.path not in self._sorting:
            try:
                newest = self._first_event(request.path, request.parameters(self._now(), sort="desc"))
            except (TransientError, PermanentError):
                return False
            time = _timestamp(newest)
            self._sorting[request.path] = time is not None and time >= last and time > first
        return self._sorting[request.path]

    def _first_event(self, path: str, parameters: Mapping[str, str]) -> bytes | None:
        """The bytes of the first event of an answer; None where it is empty."""
        scanner, found = ArrayScanner(), b""
        # plain: a compressed body may hold the first event back until much more of it is there
        with self.body(path, parameters, chunk_bytes=1, encoding="identity") as (chunks, _):
            for chunk in chunks:
                end = scanner.next_event_end(chunk)
                scanner.feed(chunk[:end])
                found += chunk[:end]
                if end is not None:
                    return found.partition(b"[")[2]
        scanner.finish()
        return None

    def _list(self, path: str) -> list[Any]:
        scanner, body = ArrayScanner(), bytearray()
        with self.body(path, {}) as (chunks, stall):
            for chunk in chunks:
                scanner.feed(chunk)
                stall.progress(scanner.events)
                body += chunk
                if len(body) > LONGEST_LIST:
                    raise WrongBodyError(f"the list has more than {LONGEST_LIST >> 20} MiB")
        scanner.finish()
        if not isinstance(found := _parsed(bytes(body)), list):
            raise BadResponseError("the body is not JSON")
        return found

    def _retrying(
        self,
        path: str,
        attempt: Callable[[], T],
        failed: Callable[[TransientError], bool] = lambda error: False,
        most_retries: int | None = None,
    ) -> T:
        """The one retry loop: repeat an attempt until it succeeds or too many in a row have failed.

        `failed` makes ready for the next attempt and says whether the one that failed made progress.
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
        """Wait before the next attempt. Raises GaveUpError where there is none."""
        if self.closed.is_set():
            raise CancelledError("the client is closed") from None
        bounds = (self._retry.retries, error.most_retries, most_retries)
        retries = min(bound for bound in bounds if bound is not None)
        seconds = self._retry.wait(failures, error.wait, random.random())
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
    """The state of one request's attempts: where the next one starts, and who takes its parts."""

    def __init__(self, request: Request, open_receiver: Callable[[], R]) -> None:
        self.request = request
        self._open_receiver = open_receiver
        self.start = request.start
        self.receiver = open_receiver()

    def restart(self) -> None:
        """Forget what was received."""
        self.receiver.discard()
        self.start = self.request.start
        self.receiver = self._open_receiver()


def _ends_all(error: BaseException, request: Request) -> bool:
    """Whether other requests would end in the same way: no key, no right to a whole feed, nothing at the address."""
    if isinstance(error, ForbiddenError):
        return request.is_whole_feed
    return isinstance(error, AccessError | UnreachableError)


def _parsed(body: bytes) -> Any:
    """The JSON value of a body; None where it is no JSON. The error, which quotes the body, ends here."""
    try:
        return json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _timestamp(event: bytes | None) -> int | None:
    """When an event says that it was published, in ms; None where it does not say so in a number, or is none."""
    value = _parsed(event or b"")
    time = value.get("timestamp") if isinstance(value, dict) else None
    return to_milliseconds(time) if isinstance(time, int) and not isinstance(time, bool) else None


def _first_result(ahead: deque[Future[list[Answer[R]]]]) -> list[Answer[R]]:
    """Take the first one's result; raise what ends the whole range from whichever of them has it first."""
    while True:
        for future in ahead:
            if future.done() and future.exception() is not None:
                future.result()
        if ahead[0].done():
            return ahead.popleft().result()
        wait([future for future in ahead if not future.done()], return_when=FIRST_COMPLETED)
