"""Serve a population as the NP6 API does, on a loopback port, and inject faults.

Also without faults, answers vary: in the order of ties and of unsorted events, in the style of JSON, in transport
(with a length, in chunks, until the connection closes) and in compression, as far as the client accepts it.
"""

from __future__ import annotations

import http.server
import itertools
import json
import random
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, formatdate
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from np6_assets_tests.support import rude_bodies
from np6_assets_tests.support.events import KINDS, MISSING, REACTIVITIES, Population, RawEvent, render
from np6_assets_tests.support.oracle import read_activated_at, read_activation_id, read_event_time
from np6_assets_tests.support.rude_acts import (
    BOMBS,
    BROKEN,
    CUT,
    DEBATABLE,
    END_MODES,
    INCOMPLETE,
    MISBEHAVIOURS,
    NO_CONTENT,
    ODD_BUT_WHOLE,
    OTHER_FORMATS,
    PERMANENT,
    RATE_LIMITS,
    SERVER_ERRORS,
    STALLS,
    TRANSIENT,
    TRICKLES,
    Act,
)
from np6_assets_tests.support.rude_bodies import Prepared, compress_zstd

__all__ = [
    "BOMBS",
    "BROKEN",
    "CUT",
    "DEBATABLE",
    "END_MODES",
    "INCOMPLETE",
    "MISBEHAVIOURS",
    "NO_CONTENT",
    "ODD_BUT_WHOLE",
    "OTHER_FORMATS",
    "PERMANENT",
    "RATE_LIMITS",
    "SERVER_ERRORS",
    "STALLS",
    "TRANSIENT",
    "TRICKLES",
    "Act",
    "Prepared",
    "Refusal",
    "Request",
    "RudeServer",
    "compress_zstd",
    "parse_time",
]

TRICKLE_SECONDS = 0.02


@dataclass
class Request:
    """A request that the server received, and how it was answered."""

    number: int
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    started: float  # time.monotonic()
    in_flight: int  # how many requests were being answered, this one included
    request_id: str
    outcome: str = ""  # "": not answered yet; "ok", a misbehaviour's name, or the status of a refusal
    status: int | None = None
    bytes_sent: int = 0  # of the body, as it went over the wire
    events: int = 0  # in the complete answer
    client_disconnected: bool = False


@dataclass(frozen=True)
class _Item:
    """An array element."""

    ms: int
    activation_ms: int | None
    notification_id: Any
    body: bytes


class RudeServer:
    """An HTTP server on 127.0.0.1 that serves a population, as a context manager.

    Args:
        population: what it serves, until `serve` replaces it.
        key: the `X-Key` that it accepts.
        seed: of everything random.
        transports: of complete bodies: "length", "chunked", "close".
        prepared: large bodies by path, in place of the population's.
        headers: called for each answer, returns more headers.
        tls: the context with which it serves https://localhost.

    Attributes:
        requests: those received.
        unlisted: ids of notifications that the list omits, though they answer.
        date: returns the Date header, which is also the server's clock; None: no header. `headers` may override it.
        end_mode: one of END_MODES.
        sorts: whether it obeys `sort`.
        sends_204: whether it answers an empty window with 204.
    """

    def __init__(
        self,
        population: Population | None = None,
        *,
        key: str = "key-of-the-rude-server",
        seed: int = 0,
        transports: Sequence[str] = ("length", "chunked", "close"),
        prepared: Mapping[str, Prepared] | None = None,
        headers: Callable[[], Mapping[str, str]] = dict,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.key = key
        self.headers = headers
        self.unlisted: set[int] = set()
        self.date: Callable[[], datetime | str | None] = _utc_now
        self.end_mode = "half open"
        self.sorts = True
        self.sends_204 = False
        self.tls = tls
        self.seed = seed
        self.transports = tuple(transports)
        self.prepared = dict(prepared or {})
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self.peak_in_flight = 0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.first_request = threading.Event()
        self._in_flight = 0
        self._scripts: list[tuple[str, list[Act | None], bool]] = []
        self._fraction, self._fail_seed, self._streak, self._fail_wait = 0.0, 0, 3, 1.0
        self._fail_kinds: tuple[str, ...] = TRANSIENT
        self._attempts: Counter[str] = Counter()
        self.serve(population or Population())
        self._server: _Server | None = None

    # -- content --

    def serve(self, population: Population) -> None:
        """Serve this population from now on."""
        rng = random.Random(f"{self.seed} styles")
        items: dict[str, list[_Item]] = {}
        for kind in KINDS:
            items[kind] = [_build_item(event, rng) for event in population.feed(kind)]
            items[kind] += [
                _Item(misfit.placed_ms, read_activated_at(misfit.event), misfit.notification_id, misfit.body)
                for misfit in population.misfits
                if misfit.kind == kind
            ]
            items[kind].sort(key=lambda item: item.ms)
        self._items = items
        self._notifications = [dict(entry) for entry in population.notifications]
        self._notification_texts = [render(entry, rng).encode() for entry in population.notifications]

    # -- faults --

    def script(self, path: str, *acts: Act | str | None) -> None:
        """Apply these acts in turn to requests under `path` (None: a normal answer), then answer normally."""
        self._scripts.append((path, [_to_act(act) for act in acts], False))

    def script_always(self, path: str, act: Act | str) -> None:
        """Apply an act to every request under `path`."""
        self._scripts.append((path, [_to_act(act)], True))

    def reset_faults(self) -> None:
        """Remove all scripts, random faults and modes."""
        self._scripts.clear()
        self._fraction = 0.0
        self.end_mode, self.sorts, self.sends_204 = "half open", True, False

    def fail_randomly(
        self,
        fraction: float,
        seed: int = 0,
        kinds: Iterable[str] = TRANSIENT,
        *,
        streak: int = 3,
        wait: float = 1,
    ) -> None:
        """Let a fraction of requests fail, at most `streak` in a row for one path and window end.

        Which ones follows from the seed, path, window and number of the attempt, not from the order of arrival.
        """
        self._fraction, self._fail_seed, self._fail_kinds = fraction, seed, tuple(kinds)
        self._streak, self._fail_wait = streak, wait
        self._attempts.clear()

    def release(self) -> None:
        """End all stalled answers."""
        self.released.set()

    def choose_act(self, request: Request) -> Act | None:
        """Return the act for a request; None for a normal answer."""
        with self.lock:
            for path, acts, forever in self._scripts:
                if request.path.startswith(path) and acts:
                    return acts[0] if forever else acts.pop(0)
            if not self._fraction:
                return None
            end = request.query.get("reactivityEnd", request.query.get("end", ""))
            subject = f"{request.path} {end}"
            self._attempts[subject] += 1
            attempt = self._attempts[subject]
        rng = random.Random(f"{self._fail_seed} {subject} {attempt}")
        if attempt % (self._streak + 1) == 0 or rng.random() >= self._fraction:
            return None
        return Act(rng.choice(self._fail_kinds), at=rng.random(), wait=self._fail_wait)

    # -- received requests --

    def list_requests(self, path: str = "/") -> list[Request]:
        """Return the requests under `path`, in order of arrival."""
        with self.lock:
            return [request for request in self.requests if request.path.startswith(path)]

    def record_request(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Request:
        """Record that a request arrived."""
        with self.lock:
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
            number = len(self.requests)
            request = Request(
                number,
                path,
                query,
                headers,
                time.monotonic(),
                self._in_flight,
                f"req-{self.seed}-{number:06d}",
            )
            self.requests.append(request)
        self.first_request.set()
        return request

    def record_answer(self, request: Request) -> None:
        """Record that a request was answered."""
        with self.lock:
            self._in_flight -= 1

    # -- answers --

    def select_items(self, request: Request, *, widened_ms: int = 0, end: str | None = None) -> list[_Item]:
        """Select the array elements for a request; `end` replaces the server's mode. Raises Refusal."""
        kinds, notification_id, names = self._parse_path(request.path)
        unknown = set(request.query) - set(names) - {"sort"}
        if unknown:
            raise Refusal(400, f"unknown parameter {sorted(unknown)}")
        if request.query.get("sort", "asc") not in ("asc", "desc"):
            raise Refusal(400, "sort is asc or desc")
        times = {name: parse_time(request.query[name]) for name in names if name in request.query}
        mode = end or self.end_mode
        assert mode in END_MODES, f"no such mode: {mode}"
        if mode == "refused in the future" and any(
            ms > self._read_clock_ms() for name, ms in times.items() if _is_end(name)
        ):
            raise Refusal(400, "the end lies in the future")
        if widened_ms:
            times = {name: ms + (widened_ms if _is_end(name) else -widened_ms) for name, ms in times.items()}
        items = [
            item
            for kind in kinds
            for item in self._items[kind]
            if notification_id in (None, item.notification_id)
            and all(_is_within(item, name, ms, mode) for name, ms in times.items())
        ]
        rng = random.Random(f"{self.seed} order {request.number}")
        rng.shuffle(items)
        if self.sorts and "sort" in request.query:
            # Stable on the shuffled list: the order of ties varies.
            items.sort(key=lambda item: item.ms, reverse=request.query["sort"] == "desc")
        return items

    def format_date(self) -> str | None:
        """Return the Date header of an answer that is sent now."""
        date = self.date()
        return format_datetime(date.astimezone(UTC), usegmt=True) if isinstance(date, datetime) else date

    def _read_clock_ms(self) -> float:
        date = self.date()
        return (date if isinstance(date, datetime) else _utc_now()).timestamp() * 1000

    def _parse_path(self, path: str) -> tuple[tuple[str, ...], int | None, tuple[str, ...]]:
        """Return kinds, notification id and time parameters of a path."""
        filters = ("activationStart", "activationEnd", "reactivityStart", "reactivityEnd")
        match = re.fullmatch(r"/notifications(?:/(\d+))?/reactivities(?:/(\w+))?", path)
        if match and (match[2] is None or match[2] in REACTIVITIES):
            kinds = REACTIVITIES if match[2] is None else (match[2],)
            if match[1] is None:
                return kinds, None, filters
            return kinds, self._check_notification(int(match[1])), filters
        match = re.fullmatch(r"/notifications/(\d+)/events/activations", path)
        if match:
            return ("activations",), self._check_notification(int(match[1])), ("start", "end")
        raise Refusal(404, "no such path")

    def _check_notification(self, notification_id: int) -> int:
        if all(entry.get("id", MISSING) != notification_id for entry in self._notifications):
            raise Refusal(404, "no such notification")
        return notification_id

    def list_notifications(self, request: Request) -> list[bytes]:
        """Return the elements of /notifications."""
        if request.query:
            raise Refusal(400, f"unknown parameter {sorted(request.query)}")
        listed = zip(self._notification_texts, self._notifications, strict=True)
        return [text for text, entry in listed if entry.get("id") not in self.unlisted]

    # -- life cycle --

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        assert self._server is not None, "the server is not running"
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        assert self._server is not None
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        if error is None and self.errors:
            raise AssertionError(f"the rude server itself broke: {self.errors[0]!r}") from self.errors[0]


class Refusal(Exception):  # noqa: N818 -- an answer, not an error
    """Answers a request with a 4xx."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def parse_time(text: str) -> int:
    """Parse an ISO 8601 date or time, or a number, into milliseconds since epoch. Raises Refusal."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(400, f"not a time: {text}") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _is_end(name: str) -> bool:
    return name.lower().endswith("end")


def _is_within(item: _Item, name: str, ms: int, mode: str) -> bool:
    """Return whether an item passes one bound of a window."""
    by_activation = mode == "both by activation" or (mode == "by activation" and _is_end(name))
    subject: int | None = item.ms
    if name.startswith("activation") or (by_activation and item.activation_ms is not None):
        subject = item.activation_ms
    if _is_end(name) and mode == "ignored":
        return True
    if subject is None:
        return False
    if not _is_end(name):
        return subject >= ms
    return subject < ms or (mode == "inclusive" and subject == ms)


def _build_item(event: dict[str, Any], rng: random.Random) -> _Item:
    ms = read_event_time(event)
    assert ms is not None, f"an event in a feed needs a time: {event}"
    body = event.raw if isinstance(event, RawEvent) else render(event, rng).encode()
    return _Item(ms, read_activated_at(event), read_activation_id(event), body)


def _to_act(act: Act | str | None) -> Act | None:
    return Act(act) if isinstance(act, str) else act


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, rude: RudeServer) -> None:
        self.rude = rude
        self.to_reset: set[int] = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        if rude.tls is not None:
            self.socket = rude.tls.wrap_socket(self.socket, server_side=True)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, with a reset if the handler asked for one."""
        if request.fileno() in self.to_reset:
            self.to_reset.discard(request.fileno())
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep an error for the end of the test, unless the client disconnected."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            self.rude.errors.append(error)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = 120
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """Answer a request."""
        rude = self.server.rude
        split = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_ = rude.record_request(split.path, query, headers)
        self.rng = random.Random(f"{rude.seed} transport {self.request_.number}")
        try:
            self._answer()
        except ConnectionError:
            self.request_.client_disconnected = True
            self.close_connection = True
        finally:
            rude.record_answer(self.request_)

    def _answer(self) -> None:
        rude, request = self.server.rude, self.request_
        if request.headers.get("x-key") != rude.key:
            self._refuse(401, "wrong key")
            return
        act = rude.choose_act(request)
        if act is not None and self._answer_without_array(act):
            return
        try:
            if request.path in rude.prepared:
                self._send_prepared(rude.prepared[request.path])
            elif request.path == "/notifications":
                self._send_array(act, rude.list_notifications(request))
            else:
                how = {"end ignored": "ignored", "end of the send": "by activation"}
                items = rude.select_items(request, end=how.get(act.name if act else ""))
                if act is None and rude.sends_204 and not items:
                    self._send_no_content("ok")
                else:
                    self._send_array(act, [item.body for item in items])
        except Refusal as refusal:
            self._refuse(refusal.status, str(refusal))

    # -- without an array --

    def _answer_without_array(self, act: Act) -> bool:
        """Apply an act that needs no array; return False if it needs one."""
        request, status = self.request_, act.name.split()[0]
        request.outcome = act.name
        if status in {"429", "500", "502", "503"}:
            self._send(int(status), _build_wait_headers(act), b"", "length")
        elif status in PERMANENT:
            self._refuse(int(status), "as scripted", outcome=act.name)
        elif act.name == "reset before":
            self._reset()
        elif act.name == "no answer":
            self.close_connection = True
        elif act.name == "stall before":
            self._stall()
        elif act.name == "redirect":
            self._send(302, {"Location": act.url + self.path}, b"", "length")
        elif act.name == "html page":
            page = b"<!DOCTYPE html><html><body>[We will be back soon]</body></html>"
            self._send(200, {"Content-Type": "text/html"}, page, "length")
        elif act.name == "empty body":
            self._send(200, {}, b"", self.rng.choice(("length", "chunked", "close")))
        elif act.name == "not an array":
            self._send(200, {}, b'{"error":"[try again]"}', "length")
        elif act.name == "204":
            self._send_no_content(act.name)
        elif act.name in BOMBS:
            encoding = act.name.split()[0]
            headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
            self._send(200, headers, rude_bodies.build_bomb(encoding), "length")
        elif act.name == "unknown encoding":
            headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
            self._send(200, headers, self.rng.randbytes(500), "length")
        elif act.name == "trickle headers":
            self._trickle(b"HTTP/1.1 200 OK\r\nX-Padding: ", b"x")
        else:
            return False
        return True

    def _refuse(self, status: int, why: str, outcome: str = "") -> None:
        self.request_.outcome = outcome or str(status)
        # An error's body may be empty.
        body = b"" if self.rng.random() < 0.5 else json.dumps({"error": why}).encode()
        self._send(status, {"x-request-id": self.request_.request_id}, body, "length")

    def _reset(self) -> None:
        self.server.to_reset.add(self.connection.fileno())
        self.close_connection = True

    def _stall(self) -> None:
        """Send nothing until the server is released, for two minutes at most."""
        self.server.rude.released.wait(120)
        self.close_connection = True

    def _trickle(self, first: bytes, then: bytes) -> None:
        """Send bytes one by one, repeating `then`, until the server is released or the client disconnects."""
        self.close_connection = True
        for byte in itertools.chain(first, itertools.cycle(then)):
            self._write(bytes([byte]))
            if self.server.rude.released.wait(TRICKLE_SECONDS):
                return

    def _send_no_content(self, outcome: str) -> None:
        self.request_.outcome, self.request_.status = outcome, 204
        self._send_head(204, {})

    # -- with an array --

    def _send_array(self, act: Act | None, elements: list[bytes]) -> None:
        request, rng, name = self.request_, self.rng, "" if act is None else act.name
        request.events = len(elements)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        transport = rng.choice(self.server.rude.transports)
        if name in ("", "wrong content type", "BOM", "end ignored", "end of the send"):
            request.outcome = name or "ok"
            if name == "wrong content type":
                headers["Content-Type"] = rng.choice(("text/plain", "application/octet-stream", "text/html"))
            encoding = self._choose_encoding()
            headers |= {"Content-Encoding": encoding} if encoding else {}
            body = (rude_bodies.BOM if name == "BOM" else b"") + rude_bodies.build_array(elements, rng)
            self._send(200, headers, rude_bodies.encode(body, encoding), transport)
            return
        assert act is not None
        if name in ("duplicated", "shuffled", "outside window"):
            self._send(200, headers, rude_bodies.build_array(self._rearrange(name, elements), rng), transport)
        elif name.startswith("cut ") and name not in INCOMPLETE:
            self._send_cut(act, headers, elements)
        elif name in INCOMPLETE:
            self._send(200, headers, rude_bodies.build_incomplete(act, elements, rng), transport)
        elif name in OTHER_FORMATS:
            self._send(200, headers, rude_bodies.build_other_format(name, elements), transport)
        elif name == "shuffled and cut":
            elements = rng.sample(elements, len(elements))
            body = rude_bodies.build_array(elements, rng)
            self._send(200, headers, body, "chunked", cut=rude_bodies.find_cut(body, elements, act.at))
        elif name in ("reset in body", "stall in body"):
            body = rude_bodies.build_array(elements, rng)
            self._send(200, headers, body, "length", cut=rude_bodies.find_cut(body, elements, act.at))
            self._reset() if name == "reset in body" else self._stall()
        elif name == "trickle":
            half = elements[0][: len(elements[0]) // 2] if elements and act.at >= 0.5 else b""
            request.status = 200
            self._send_head(200, {**headers, "Connection": "close"})
            self._trickle(b"[" + half, b" ")

    def _choose_encoding(self) -> str:
        offered = self.request_.headers.get("accept-encoding", "")
        choices = [""] + [name for name in ("gzip", "zstd") if re.search(rf"\b{name}\b", offered)]
        return self.rng.choice(choices)

    def _rearrange(self, name: str, elements: list[bytes]) -> list[bytes]:
        rng = self.rng
        if self.request_.path == "/notifications":
            return elements  # these acts are for event feeds
        if name == "duplicated":
            return [element for element in elements for _ in range(1 + (rng.random() < 0.3))]
        if name == "outside window":
            return [item.body for item in self.server.rude.select_items(self.request_, widened_ms=6 * 3_600_000)]
        return rng.sample(elements, len(elements))

    def _send_cut(self, act: Act, headers: dict[str, str], elements: list[bytes]) -> None:
        body, how = rude_bodies.build_array(elements, self.rng), act.name.removeprefix("cut ")
        if how in ("gzip", "zstd"):
            if how in self.request_.headers.get("accept-encoding", ""):
                packed = rude_bodies.encode(body, how)
                headers["Content-Encoding"] = how
                self._send(200, headers, packed, "chunked", cut=max(1, int(len(packed) * act.at)))
                return
            how = "length"
        self._send(200, headers, body, how, cut=rude_bodies.find_cut(body, elements, act.at))

    def _send_prepared(self, prepared: Prepared) -> None:
        request = self.request_
        query = request.query
        start, end = (query.get(name) for name in ("reactivityStart", "reactivityEnd"))
        offset, length = prepared.slice(
            None if start is None else parse_time(start), None if end is None else parse_time(end)
        )
        request.outcome, request.status = "ok", 200
        self._send_head(200, {"Content-Type": "application/json", "Content-Length": str(length + 2)})
        self._write(b"[")
        with prepared.body.open("rb") as file:
            while length:
                # Not os.sendfile: a socket with a timeout would have it fail on a full buffer.
                sent = self.connection.sendfile(file, offset, min(length, 1 << 20))
                if not sent:
                    raise ConnectionAbortedError("the client disconnected")
                request.bytes_sent += sent
                offset, length = offset + sent, length - sent
        self._write(b"]")

    # -- bytes --

    def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        reason = self.responses.get(status, ("",))[0]
        date = self.server.rude.format_date()
        headers = {**({} if date is None else {"Date": date}), **self.server.rude.headers(), **headers}
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.request_.bytes_sent += len(data)

    def _send(
        self, status: int, headers: Mapping[str, str], body: bytes, transport: str, cut: int | None = None
    ) -> None:
        """Send an answer; with `cut`, close the connection after so many bytes of its body."""
        self.request_.status = status
        if transport == "length":
            self._send_head(status, {**headers, "Content-Length": str(len(body))})
            self._write(body[:cut])
        elif transport == "close":
            self._send_head(status, {**headers, "Connection": "close"})
            self._write(body[:cut])
            self.close_connection = True
        else:
            self._send_head(status, {**headers, "Transfer-Encoding": "chunked"})
            for chunk in rude_bodies.split_randomly(body[:cut], self.rng):
                self.wfile.write(f"{len(chunk):x}\r\n".encode())
                self._write(chunk)
                self.wfile.write(b"\r\n")
            if cut is None:
                self.wfile.write(b"0\r\n\r\n")
        if cut is not None:
            self.close_connection = True


def _build_wait_headers(act: Act) -> dict[str, str]:
    now = time.time()
    how = act.name.partition(" ")[2]
    return {
        "": {},
        "retry-after seconds": {"Retry-After": f"{act.wait:.0f}"},
        "retry-after date": {"Retry-After": formatdate(now + act.wait, usegmt=True)},
        "reset seconds": {"X-RateLimit-Reset": f"{now + act.wait:.0f}", "X-RateLimit-Remaining": "0"},
        "reset milliseconds": {"X-RateLimit-Reset": f"{(now + act.wait) * 1000:.0f}"},
        "reset wait": {"X-RateLimit-Limit": "10", "X-RateLimit-Reset": f"{act.wait:.0f}"},
    }[how]
