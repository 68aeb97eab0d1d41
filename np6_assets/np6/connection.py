"""HTTP: the connections of one account; responses are bounded streams of bytes or this package's errors."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from weakref import WeakSet

import httpx

from np6_assets.np6.address import is_loopback
from np6_assets.np6.bodies import StallTimer, decompress, join_pieces
from np6_assets.np6.clock import ApiClock
from np6_assets.np6.errors import (
    AccessError,
    CancelledError,
    CutResponseError,
    ForbiddenError,
    NoConnectionError,
    NotFoundError,
    NP6Error,
    PermanentError,
    TransientError,
)
from np6_assets.np6.retry import read_requested_wait
from np6_assets.np6.unreachable import describe_connect_error

CHUNK_BYTES = 2**18
"""Bytes of a body that are handled at once."""

_ADVICE = {
    400: "the API does not accept the request; check NP6_START_DATE and the version of the API",
    401: "the API does not know the key; set NP6_API_KEY to a valid key",
    403: "the key lacks the right; ask for the right to read notifications and their reactivities",
    404: "there is nothing at this address; check NP6_BASE_URL",
    410: "there is nothing at this address any more; check NP6_BASE_URL",
}
_RETRIED = {408, 425, 429}
_PERMANENT = {401: AccessError, 403: ForbiddenError, 404: NotFoundError, 410: NotFoundError}


@dataclass
class Traffic:
    """Counts what a client has sent and received."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0


class Connection:
    """The HTTP side of the client, without retries. Safe to share between threads.

    A response without a complete event for `stall_seconds` is ended.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: httpx.Timeout | float = 60.0,
        stall_seconds: float = 120.0,
        concurrency: int = 4,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._stall_seconds = stall_seconds
        self._now = now
        self._log = log
        self.clock = ApiClock(log)
        self._lock = threading.Lock()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._dialed = threading.local()
        self.answered = threading.Event()
        self.closed = threading.Event()
        self.traffic = Traffic()
        if not (api_key.isascii() and api_key.isprintable()):  # httpx would quote it in its error
            raise PermanentError("NP6_API_KEY holds characters that a request cannot carry; copy the key again")
        headers = {"Accept": "application/json", "User-Agent": "np6-assets"} | ({"X-Key": api_key} if api_key else {})
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        try:
            host = httpx.URL(base_url).host
            self._http = httpx.Client(
                base_url=base_url,
                headers=headers,
                timeout=timeout,
                limits=limits,
                follow_redirects=False,
                # over plain HTTP there are no certificates to verify, and reading those of the system takes 20 ms
                verify=not base_url.startswith("http://"),
                # this machine's own servers are reached without a proxy
                mounts={f"all://[{host}]" if ":" in host else f"all://{host}": None} if is_loopback(host) else None,
            )
        except (httpx.InvalidURL, ValueError):
            raise PermanentError("NP6_BASE_URL is not an http address") from None

    def cancel(self) -> None:
        """End all requests, in whatever thread."""
        self.closed.set()
        self._shut_down_sockets()

    def close(self) -> None:
        """End all requests and close the connections."""
        self.cancel()
        self._http.close()

    @contextmanager
    def close_after(self, seconds: float) -> Iterator[None]:
        """Close the client if the block takes longer, whatever the server does."""
        with _run_after(seconds, self.close):
            yield

    @contextmanager
    def open(
        self, path: str, parameters: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """Open a response of any status, its body unread, without retries.

        Raises httpx.TransportError, also while the body is read, and CancelledError once the client is closed.
        """
        if self.closed.is_set():
            raise CancelledError("the client is closed")
        with self._lock:
            self.traffic.requests += 1
        with (
            _run_after(self._stall_seconds, self._shut_down_sockets) as timer,  # headers that trickle
            self._http.stream(
                "GET", path, params=dict(parameters), headers=headers, extensions={"trace": self._trace}
            ) as response,
        ):
            timer.cancel()
            self.answered.set()
            try:
                yield response
            finally:
                with self._lock:
                    self.traffic.bytes += response.num_bytes_downloaded

    def build_error(self, path: str, response: httpx.Response) -> NP6Error | None:
        """Build the error for the status of a response; None for 200 and 204."""
        status = response.status_code
        if status in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            return None
        line = f"GET {path} returned {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
        if request_id := response.headers.get("x-request-id"):
            line += f" (x-request-id {_clean_request_id(request_id)})"
        if response.is_redirect:
            host = _get_redirect_host(response)
            line += f", a redirect to {host}, which is not followed; set NP6_BASE_URL to the API itself"
            return PermanentError(line)
        if status >= 500 or status in _RETRIED or response.is_success:
            return TransientError(line, wait=read_requested_wait(response.headers, self._now()))
        line += f": {_ADVICE.get(status, 'the API refuses the request')}"
        return _PERMANENT.get(status, PermanentError)(line)

    @contextmanager
    def open_body(
        self, path: str, parameters: Mapping[str, str], *, chunk_bytes: int = CHUNK_BYTES, encoding: str = "gzip"
    ) -> Iterator[tuple[Iterator[bytes], StallTimer]]:
        """Open the chunks of a 200 or 204 response, decompressed. Raises this package's errors."""
        stall = StallTimer(self._stall_seconds)
        try:
            with self.open(path, parameters, {"Accept-Encoding": encoding}) as response:
                if (error := self.build_error(path, response)) is not None:
                    raise error
                self.clock.observe(response.headers.get("date", ""), self._now())
                if response.status_code == HTTPStatus.NO_CONTENT:
                    yield iter((b"[]",)), stall
                    return
                coded = response.headers.get("content-encoding", "").strip().lower()
                yield join_pieces(decompress(self._iter_raw(response, stall), coded), chunk_bytes), stall
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError):
            raise PermanentError(f"GET {path}: NP6_BASE_URL is not an http address") from None
        except httpx.TransportError as error:
            if self.closed.is_set():
                raise CancelledError("the client is closed") from None
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
                host = self._http.base_url.host
                dialed = getattr(self._dialed, "address", host)
                raise NoConnectionError(
                    describe_connect_error(error, host, dialed, self._http.timeout.connect)
                ) from None
            raise CutResponseError(f"GET {path}: {_describe_error(error)}") from None

    def _iter_raw(self, response: httpx.Response, stall: StallTimer) -> Iterator[bytes]:
        for piece in response.iter_raw():
            if self.closed.is_set():
                raise CancelledError("the client is closed")
            stall.check()
            yield piece

    def _trace(self, event: str, details: Mapping[str, Any]) -> None:
        """Remember the dialed address and each socket: httpx's timeouts do not end a body that trickles."""
        if event == "connection.connect_tcp.started":
            self._dialed.address = f"{details['host']}:{details['port']}"
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._sockets.add(details["return_value"].get_extra_info("socket"))

    def _shut_down_sockets(self) -> None:
        for connection in list(self._sockets):
            with suppress(OSError):
                # not SSLSocket's own, which would race with the thread that reads
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


@contextmanager
def _run_after(seconds: float, act: Callable[[], None]) -> Iterator[threading.Timer]:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    try:
        yield timer
    finally:
        timer.cancel()


def _describe_error(error: httpx.TransportError) -> str:
    """Describe an error by its class and that of its first cause: the texts of httpx and h11 quote the answer."""
    cause: BaseException = error
    while (before := cause.__cause__ or cause.__context__) is not None:
        cause = before
    name = re.sub(r"(?<!^)([A-Z])", lambda found: " " + found[0].lower(), type(error).__name__).lower()
    return f"{name} ({type(cause).__name__})" if isinstance(cause, OSError) else name


def _clean_request_id(text: str) -> str:
    """Return an id that is safe to show; what could be an address or a sentence becomes "?"."""
    return text if re.fullmatch(r"[\w.:/+=-]{1,80}", text, re.ASCII) else "?"


def _get_redirect_host(response: httpx.Response) -> str:
    try:
        return httpx.URL(response.headers["location"]).host or "another path"
    except (httpx.InvalidURL, KeyError):
        return "nowhere"
