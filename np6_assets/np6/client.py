"""The API client: asks for windows of events, several at once, and sees each answer through to its end.

What belongs here: requests, retries, waiting, and going on where a download was cut. What the events mean, and where
they go, is for the `Sink` that the caller hands in.
"""

from __future__ import annotations

import email.utils
import json
import random
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, Protocol, TypeVar

import httpx

from np6_assets.np6.errors import (
    BadResponseError,
    CancelledError,
    CutResponseError,
    NP6Error,
    PermanentError,
    RetriesUsedUpError,
    TransientError,
)
from np6_assets.np6.retry import Retry
from np6_assets.np6.spool import ArrayScanner, Part, Spool

CHUNK_BYTES = 2**18
"""How much of a body is handled at once."""

_ADVICE = {
    400: "the API does not accept the request; check NP6_START_DATE and the version of the API",
    401: "the API does not know the key; set NP6_API_KEY to a valid key",
    403: "the key lacks the right; ask for the right to read notifications and their reactivities",
    404: "there is nothing at this address; check NP6_BASE_URL",
}
_RETRIED = {408, 425, 429}


@dataclass(frozen=True)
class Request:
    """A feed over a half-open window, `start` <= timestamp < `end` in ms since the epoch.

    `start_parameter` and `end_parameter` are the names that the endpoint has for them.
    """

    path: str
    start_parameter: str
    end_parameter: str
    start: int
    end: int

    @property
    def parameters(self) -> dict[str, str]:
        """The query: half-open and oldest first, which is what lets a cut download go on."""
        return {self.start_parameter: str(self.start), self.end_parameter: str(self.end), "sort": "asc"}


class Sink(Protocol):
    """Where the parts of one request's answer go, in order.

    `add` and `finish` may raise BadResponseError: then the request is made again from its start, into a new sink.
    """

    def add(self, part: Part) -> None:
        """Take a part, and close it once it is done with."""

    def finish(self, *, resumed: bool) -> None:
        """The answer is whole. `resumed`: it was put together from several, which is right for sorted feeds only."""

    def abandon(self) -> None:
        """Nothing more will come: give back what is held."""


S = TypeVar("S", bound=Sink)


@dataclass
class Traffic:
    """What a client has asked for and received so far."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0


class NP6Client:
    """The API of one account. Safe to share between threads; close it after use."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: httpx.Timeout | float = 60.0,
        retry: Retry = Retry(),
        concurrency: int = 4,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._retry = retry
        self._concurrency = concurrency
        self._now = now
        self._log = log
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.traffic = Traffic()
        if not (api_key.isascii() and api_key.isprintable()):  # httpx would quote it in its error
            raise PermanentError("NP6_API_KEY holds characters that a request cannot carry; copy the key again")
        headers = {"X-Key": api_key, "Accept": "application/json", "User-Agent": "np6-assets"}
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        try:
            self._http = httpx.Client(
                base_url=base_url,
                headers=headers,
                timeout=timeout,
                limits=limits,
                follow_redirects=False,
                # over plain HTTP there are no certificates to verify, and reading those of the system takes 20 ms
                verify=not base_url.startswith("http://"),
            )
        except (httpx.InvalidURL, ValueError):
            raise PermanentError("NP6_BASE_URL is not an http address") from None

    def close(self) -> None:
        """Give up what is under way and close the connections."""
        self._stop.set()
        self._http.close()

    @contextmanager
    def open(self, path: str, parameters: Mapping[str, str]) -> Iterator[httpx.Response]:
        """An answer as it comes, whatever its status, its body still to be read; nothing is tried again.

        Raises httpx.TransportError or httpx.DecodingError, also out of reading the body.
        """
        with self._lock:
            self.traffic.requests += 1
        with self._http.stream("GET", path, params=dict(parameters)) as response:
            try:
                yield response
            finally:
                with self._lock:
                    self.traffic.bytes += response.num_bytes_downloaded

    def refusal(self, path: str, response: httpx.Response) -> NP6Error | None:
        """What a run would raise for the status of an answer; None for 200."""
        try:
            self._refuse(path, response)
        except NP6Error as error:
            return error
        return None

    def get_list(self, path: str) -> list[Any]:
        """A short JSON array, whole. Raises PermanentError or RetriesUsedUpError."""
        failures = 0
        while True:
            try:
                body = bytearray()
                with self._answer(path, {}) as chunks:
                    for chunk in chunks:
                        body += chunk
                return _array(bytes(body))
            except TransientError as error:
                failures += 1
                self._pause(path, error, failures)

    def has_events(self, request: Request) -> bool:
        """Whether a request's answer holds any event; no more is read of it than the first.

        Raises PermanentError or RetriesUsedUpError.
        """
        failures = 0
        while True:
            try:
                return self._look(request)
            except TransientError as error:
                failures += 1
                self._pause(request.path, error, failures)

    def fetch(self, request: Request, open_sink: Callable[[], S]) -> S:
        """Download one request's answer, whole, into a sink from `open_sink`, and return that sink, finished.

        Raises PermanentError or RetriesUsedUpError.
        """
        failures = 0
        while True:
            sink = open_sink()
            try:
                self._fill(request, sink)
                return sink
            except TransientError as error:
                sink.abandon()
                failures += 1
                self._pause(request.path, error, failures)
            except BaseException:
                sink.abandon()
                raise

    def fetch_all(self, requests: Iterable[Request], open_sink: Callable[[Request], S]) -> Generator[Callable[[], S]]:
        """For each request a function that waits for its finished sink, in the order of the requests.

        Each function gives the same, or raises the same, however often it is called, until the next is asked for.
        `concurrency` requests are fetched ahead.
        """
        ahead: deque[Future[S]] = deque()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="np6") as pool:
            try:
                for request in requests:
                    if len(ahead) > self._concurrency:
                        yield partial(_first_result, ahead)
                        ahead.popleft()
                    ahead.append(pool.submit(self.fetch, request, partial(open_sink, request)))
                while ahead:
                    yield partial(_first_result, ahead)
                    ahead.popleft()
            except BaseException:
                self._stop.set()
                for future in ahead:
                    future.cancel()
                    future.add_done_callback(_abandon)
                raise

    def _fill(self, request: Request, sink: Sink) -> None:
        """Fill the sink, going on from the last whole event after each failure that leaves what came before good."""
        remaining, failures = request, 0
        while True:
            spool = Spool(sink.add)
            try:
                with self._answer(request.path, remaining.parameters) as chunks:
                    for chunk in chunks:
                        spool.feed(chunk)
                spool.finish()
                sink.finish(resumed=remaining is not request)
                return
            except TransientError as error:
                if spool.parts and not isinstance(error, CutResponseError):
                    raise  # what the sink already took is not to be trusted
                last = spool.salvage(partial(_timestamp, remaining)) if isinstance(error, CutResponseError) else None
                if last is None and spool.parts:
                    raise  # it does not say where to go on
                failures += 1
                if last is not None:
                    failures = 1 if remaining.start < last else failures
                    remaining = replace(remaining, start=last)
                self._pause(request.path, error, failures)
            finally:
                spool.close()

    def _look(self, request: Request) -> bool:
        scanner = ArrayScanner()
        # plain: a compressed body may hold the first event back until much more of it is there
        with self._answer(request.path, request.parameters, 1, {"Accept-Encoding": "identity"}) as chunks:
            for chunk in chunks:
                scanner.feed(chunk)
                if scanner.events:
                    return True
        if not scanner.closed:
            raise CutResponseError("the body ends before its array is closed")
        return False

    @contextmanager
    def _answer(
        self,
        path: str,
        parameters: dict[str, str],
        chunk_bytes: int = CHUNK_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """The decoded body of a 200 answer, in chunks; anything else as one of this package's errors."""
        with self._lock:
            self.traffic.requests += 1
        try:
            with self._http.stream("GET", path, params=parameters, headers=headers) as response:
                self._refuse(path, response)
                yield self._chunks(response, chunk_bytes)
        except httpx.UnsupportedProtocol:
            raise PermanentError(f"GET {path}: NP6_BASE_URL is not an http address") from None
        except httpx.TransportError as error:
            raise CutResponseError(f"GET {path}: {_reason(error)}") from None
        except httpx.DecodingError:
            raise CutResponseError(f"GET {path}: the compressed body is broken") from None

    def _chunks(self, response: httpx.Response, chunk_bytes: int) -> Iterator[bytes]:
        pending: list[bytes] = []
        size = 0
        broken: httpx.HTTPError | None = None
        try:
            for piece in response.iter_bytes():
                pending.append(piece)
                size += len(piece)
                if size >= chunk_bytes:
                    if self._stop.is_set():
                        raise CancelledError("the download was given up")
                    yield b"".join(pending)
                    pending.clear()
                    size = 0
        except (httpx.TransportError, httpx.DecodingError) as error:
            broken = error
        with self._lock:
            self.traffic.bytes += response.num_bytes_downloaded
        yield b"".join(pending)
        if broken is not None:
            raise broken

    def _refuse(self, path: str, response: httpx.Response) -> None:
        status = response.status_code
        if status == HTTPStatus.OK:
            return
        line = f"GET {path} answered {status} {response.reason_phrase}".rstrip()
        if request_id := response.headers.get("x-request-id"):
            line += f" (x-request-id {_printable(request_id)})"
        if response.is_redirect:
            line += f", a redirect to {_host(response)}, which is not followed; set NP6_BASE_URL to the API itself"
            raise PermanentError(line)
        if status >= 500 or status in _RETRIED or response.is_success:
            raise TransientError(line, wait=asked_wait(response.headers, self._now()))
        raise PermanentError(f"{line}: {_ADVICE.get(status, 'the API refuses the request')}")

    def _pause(self, path: str, error: TransientError, failures: int) -> None:
        """Wait before the next try; raise the error instead where there is none."""
        if failures > self._retry.retries:
            raise RetriesUsedUpError(
                f"{error}; GET {path} given up after {failures} tries in a row without progress"
            ) from None
        seconds = self._retry.wait(failures, error.wait, random.random())
        with self._lock:
            self.traffic.retries += 1
        self._log(f"{error}; trying GET {path} again in {seconds:.1f} s ({failures} of {self._retry.retries})")
        if self._stop.wait(seconds):
            raise CancelledError("the download was given up") from None


def asked_wait(headers: httpx.Headers, now: datetime) -> float | None:
    """How many seconds the API asks to wait, from `Retry-After` or `X-RateLimit-Reset`; None where it says nothing.

    `Retry-After` is seconds or an HTTP date (RFC 9110, 10.2.3). What `X-RateLimit-Reset` counts is not documented:
    a number is taken for epoch milliseconds, epoch seconds or seconds to wait by its size.
    """
    asked = headers.get("retry-after", "")
    seconds = _number(asked)
    if seconds is None:
        seconds = _seconds_until(asked, now)
    if seconds is not None:
        return max(seconds, 0.0)
    reset = read_reset(headers.get("x-ratelimit-reset", ""), now)
    return None if reset is None else reset[1]


ResetUnit = Literal["epoch milliseconds", "epoch seconds", "seconds to wait"]


def read_reset(text: str, now: datetime) -> tuple[ResetUnit, float] | None:
    """What a value of `X-RateLimit-Reset` counts, told by its size, and how many seconds it asks to wait."""
    reset = _number(text)
    if reset is None:
        return None
    if reset > 1e11:
        return "epoch milliseconds", max(reset / 1000 - now.timestamp(), 0.0)
    if reset > 1e9:
        return "epoch seconds", max(reset - now.timestamp(), 0.0)
    return "seconds to wait", reset


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        moment = email.utils.parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:  # the oldest of the three forms does not name its zone, which is UTC
        moment = moment.replace(tzinfo=UTC)
    return (moment - now).total_seconds()


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[ \t]*\d{1,18}(\.\d{1,9})?[ \t]*", text) else None


def _timestamp(request: Request, event: Any) -> int | None:
    """When an event happened, in ms; None where it does not say, or says what cannot be in the request's answer."""
    value = event.get("timestamp") if isinstance(event, dict) else None
    fits = isinstance(value, int) and not isinstance(value, bool) and request.start <= value < request.end
    return value if fits else None


def _array(body: bytes) -> list[Any]:
    try:
        value = json.loads(body)
    except ValueError:
        raise BadResponseError("the body is not JSON") from None
    if not isinstance(value, list):
        raise BadResponseError("the body is not a JSON array")
    return value


def _first_result(ahead: deque[Future[S]]) -> S:
    """The first one's result; a permanent failure of any of them at once, for there is no point in waiting then."""
    while not ahead[0].done():
        done, _ = wait([future for future in ahead if not future.done()], return_when=FIRST_COMPLETED)
        for future in done:
            if isinstance(future.exception(), PermanentError):
                future.result()
    return ahead[0].result()


def _abandon(future: Future[S]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().abandon()


def _reason(error: httpx.TransportError) -> str:
    name = re.sub(r"(?<!^)([A-Z])", lambda found: " " + found[0].lower(), type(error).__name__).lower()
    return f"{name} ({error})" if str(error) else name


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:80])


def _host(response: httpx.Response) -> str:
    try:
        return httpx.URL(response.headers["location"]).host or "another path"
    except (httpx.InvalidURL, KeyError):
        return "nowhere"
