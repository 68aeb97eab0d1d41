"""The NP6 API on a loopback port, from raw sockets up, so that it can misbehave in every way that one meets.

It serves a Population at the endpoints of np6-api.md. Left alone it is right but not kind: ties and unsorted
answers come in another order each time, JSON is written in every legal style, bodies come with a length, in
chunks, or until the connection closes, plain or compressed as the client asked.
"""

from __future__ import annotations

import gzip
import http.server
import json
import mmap
import random
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from np6_assets_tests.support.events import KINDS, MISSING, REACTIVITIES, Population, render

# Every way to misbehave has a name.
RATE_LIMITS = (
    *("429", "429 retry-after seconds", "429 retry-after date"),
    *("429 reset seconds", "429 reset milliseconds", "429 reset wait"),
)
SERVER_ERRORS = ("500", "502", "503", "503 retry-after seconds")
PERMANENT = ("400", "401", "403", "404")  # they come with an x-request-id
BROKEN = ("reset before", "reset in body", "no answer")
CUT = ("cut length", "cut chunked", "cut close", "cut gzip", "cut zstd")  # in the middle of an event
INCOMPLETE = (  # with a proper ending of the protocol
    *("cut after comma", "cut before bracket", "cut in event", "trailing comma", "empty body"),
    *("html page", "garbage after", "two arrays", "not an array"),
)
STALLS = ("stall before", "stall in body")  # until the server is released
ODD_BUT_WHOLE = ("wrong content type", "duplicated", "shuffled")
# What the reference leaves to the client's judgement: retry, ignore or give up.
DEBATABLE = ("outside window", "end ignored", "end of the send", "shuffled and cut", "redirect")

# What a client must get over by itself, with right data in the end.
TRANSIENT = (*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, *ODD_BUT_WHOLE)
MISBEHAVIOURS = (*TRANSIENT, *PERMANENT, *STALLS, *DEBATABLE)


@dataclass(frozen=True)
class Act:
    """One misbehaviour.

    Attributes:
        name: one of MISBEHAVIOURS.
        at: how far into the body it happens, 0 to 1.
        wait: seconds that a rate limit asks for (up to an hour: a client may refuse).
        url: where a redirect leads.
    """

    name: str
    at: float = 0.5
    wait: float = 1
    url: str = ""

    def __post_init__(self) -> None:
        assert self.name in MISBEHAVIOURS, f"no such misbehaviour: {self.name}"


@dataclass
class Request:
    """A request the server got, and what became of it."""

    number: int
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    started: float  # time.monotonic()
    in_flight: int  # how many requests were being answered, this one included
    request_id: str
    done: str = ""  # "" while under way, "ok", or the misbehaviour's name, or the status of a refusal
    status: int | None = None
    bytes_sent: int = 0  # of the body, as it went over the wire
    events: int = 0  # in the answer, had it been sent whole
    client_left: bool = False


@dataclass(frozen=True)
class _Item:
    """One array element as the server keeps it."""

    ms: int
    activation_ms: int | None
    notification_id: Any
    text: str


class Prepared:
    """A large sorted array in a file, with an index: any window of it is sent without being read into memory.

    The file is `[`, the events with `,` and a newline between them, `]`. The index is native int64 pairs of
    (timestamp, offset of the event's first byte), and a last pair (2**62, offset just past the final `]`
    plus one), so that an event with its separator always ends where the next one starts.
    """

    def __init__(self, body: Path, index: Path) -> None:
        self.body = body
        self._index_file = index.open("rb")
        self._index = memoryview(mmap.mmap(self._index_file.fileno(), 0, access=mmap.ACCESS_READ)).cast("q")

    def slice(self, start: int | None, end: int | None) -> tuple[int, int]:
        """Offset and length of the bytes, without brackets, of the events with start <= timestamp < end."""
        first = 0 if start is None else self._first_at(start)
        last = len(self._index) // 2 - 1 if end is None else self._first_at(end)
        if first >= last:
            return 0, 0
        offset = self._index[2 * first + 1]
        return offset, self._index[2 * last + 1] - 2 - offset

    def _first_at(self, ms: int) -> int:
        low, high = 0, len(self._index) // 2 - 1
        while low < high:
            middle = (low + high) // 2
            if self._index[2 * middle] < ms:
                low = middle + 1
            else:
                high = middle
        return low


class RudeServer:
    """A real HTTP server on 127.0.0.1 that serves a population, well or badly.

    Args:
        population: what it serves; may be replaced while it runs.
        key: the `X-Key` that it accepts.
        seed: of everything random in it.
        transports: of whole bodies: "length", "chunked", "close".
        prepared: large bodies by path, in place of the population's.
        headers: more headers for every answer, called for each.
        tls: to speak TLS with, to clients that call it localhost.

    Use it as a context manager. `url` is where it is; `requests` is what it was asked.
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

    # -- what it serves --

    def serve(self, population: Population) -> None:
        """Serve this population from now on."""
        rng = random.Random(f"{self.seed} styles")
        items: dict[str, list[_Item]] = {}
        for kind in KINDS:
            items[kind] = [_item(event, render(event, rng)) for event in population.feed(kind)]
            items[kind] += [
                _Item(misfit.placed_ms, None, misfit.notification_id, render(misfit.event, rng))
                for misfit in population.misfits
                if misfit.kind == kind
            ]
            items[kind].sort(key=lambda item: item.ms)
        self._items = items
        self._notifications = [dict(entry) for entry in population.notifications]
        self._listing = [render(entry, rng) for entry in population.notifications]

    # -- how it misbehaves --

    def script(self, path: str, *acts: Act | str | None) -> None:
        """Do these in turn to the requests whose path begins so (None: answer well); then behave."""
        self._scripts.append((path, [_act(act) for act in acts], False))

    def always(self, path: str, act: Act | str) -> None:
        """Do this to every request whose path begins so."""
        self._scripts.append((path, [_act(act)], True))

    def behave(self) -> None:
        """Forget scripts and failures."""
        self._scripts.clear()
        self._fraction = 0.0

    def fail(
        self,
        fraction: float,
        seed: int = 0,
        kinds: Iterable[str] = TRANSIENT,
        *,
        streak: int = 3,
        wait: float = 1,
    ) -> None:
        """Let this share of the requests misbehave, at most `streak` in a row for one path and window end.

        What becomes of a request follows from the seed, its path and window and how often it has come, not
        from the order in which requests happen to arrive.
        """
        self._fraction, self._fail_seed, self._fail_kinds = fraction, seed, tuple(kinds)
        self._streak, self._fail_wait = streak, wait
        self._attempts.clear()

    def release(self) -> None:
        """Let go of every stalled request."""
        self.released.set()

    def decide(self, request: Request) -> Act | None:
        """What to do to this request."""
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

    # -- what it was asked --

    def asked(self, path: str = "/") -> list[Request]:
        """The requests whose path begins so, in order of arrival."""
        with self.lock:
            return [request for request in self.requests if request.path.startswith(path)]

    def begin(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Request:
        """Note that a request has come."""
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

    def end(self, request: Request) -> None:
        """Note that a request has been dealt with."""
        with self.lock:
            self._in_flight -= 1

    # -- answers --

    def elements(self, request: Request, *, widened_ms: int = 0, end_filters: str = "events") -> list[_Item]:
        """The array elements that the request asks for; `end_filters`: "events", "sends" or "nothing".

        Raises:
            Refusal: no such path or parameter.
        """
        kinds, notification_id, names = self._route(request.path)
        unknown = set(request.query) - set(names) - {"sort"}
        if unknown:
            raise Refusal(400, f"unknown parameter {sorted(unknown)}")
        if request.query.get("sort", "asc") not in ("asc", "desc"):
            raise Refusal(400, "sort is asc or desc")
        times = {name: parse_time(request.query[name]) for name in names if name in request.query}
        if widened_ms:
            times = {name: ms + (-widened_ms if "tart" in name else widened_ms) for name, ms in times.items()}

        def wanted(item: _Item) -> bool:
            if notification_id is not None and item.notification_id != notification_id:
                return False
            for name, ms in times.items():
                of_send = name.startswith("activation")
                if name.lower().endswith("end") and end_filters != "events":
                    if end_filters == "nothing":
                        continue
                    of_send = True
                subject = item.activation_ms if of_send else item.ms
                if subject is None or (subject < ms if name.lower().endswith("start") else subject >= ms):
                    return False
            return True

        items = [item for kind in kinds for item in self._items[kind] if wanted(item)]
        rng = random.Random(f"{self.seed} order {request.number}")
        rng.shuffle(items)
        if "sort" in request.query:
            # Stable on the shuffled list: ties come in another order each time.
            items.sort(key=lambda item: item.ms, reverse=request.query["sort"] == "desc")
        return items

    def _route(self, path: str) -> tuple[tuple[str, ...], int | None, tuple[str, ...]]:
        """Kinds, notification and time parameters of a path."""
        filters = ("activationStart", "activationEnd", "reactivityStart", "reactivityEnd")
        match = re.fullmatch(r"/notifications(?:/(\d+))?/reactivities(?:/(\w+))?", path)
        if match and (match[2] is None or match[2] in REACTIVITIES):
            kinds = REACTIVITIES if match[2] is None else (match[2],)
            if match[1] is None:
                return kinds, None, filters
            return kinds, self._known(int(match[1])), filters
        match = re.fullmatch(r"/notifications/(\d+)/events/activations", path)
        if match:
            return ("activations",), self._known(int(match[1])), ("start", "end")
        raise Refusal(404, "no such path")

    def _known(self, notification_id: int) -> int:
        if all(entry.get("id", MISSING) != notification_id for entry in self._notifications):
            raise Refusal(404, "no such notification")
        return notification_id

    def listing(self, request: Request) -> list[str]:
        """The elements of /notifications."""
        if request.query:
            raise Refusal(400, f"unknown parameter {sorted(request.query)}")
        return self._listing

    # -- its life --

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None, "the server is not running"
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        """The base URL."""
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RudeServer:
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


class Refusal(Exception):  # noqa: N818 -- a proper answer of the server, not an error of it
    """A request that gets a 4xx."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def parse_time(text: str) -> int:
    """Milliseconds since epoch of an ISO 8601 date or time, or of a number of milliseconds.

    Raises:
        Refusal: it is neither.
    """
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(400, f"not a time: {text}") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _item(event: dict[str, Any], text: str) -> _Item:
    activation = event["source"]["detail"]["activation"]
    stamp = activation.get("stamp") or {}
    return _Item(event["timestamp"], stamp.get("time"), activation["id"], text)


def _act(act: Act | str | None) -> Act | None:
    return Act(act) if isinstance(act, str) else act


def zstd_raw(body: bytes) -> bytes:
    """A valid zstd frame of the bytes, in raw blocks (RFC 8878): the standard library has no compressor."""
    blocks = [body[at : at + 100_000] for at in range(0, len(body), 100_000)] or [b""]
    framed = [b"\x28\xb5\x2f\xfd", b"\x00", b"\x58"]  # magic, no optional fields, a window of 2 MiB
    for number, block in enumerate(blocks):
        header = (number == len(blocks) - 1) | len(block) << 3
        framed += [header.to_bytes(3, "little"), block]
    return b"".join(framed)


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
        """Close a connection; with a reset where the handler asked for one."""
        if request.fileno() in self.to_reset:
            self.to_reset.discard(request.fileno())
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what broke for the end of the test, unless it is a client that went away."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            self.rude.errors.append(error)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = 120
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer one request, or misbehave."""
        rude = self.server.rude
        split = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_ = rude.begin(split.path, query, headers)
        self.rng = random.Random(f"{rude.seed} transport {self.request_.number}")
        try:
            self._answer()
        except ConnectionError:
            self.request_.client_left = True
            self.close_connection = True
        finally:
            rude.end(self.request_)

    def _answer(self) -> None:
        rude, request = self.server.rude, self.request_
        if request.headers.get("x-key") != rude.key:
            self._refuse(401, "wrong key")
            return
        act = rude.decide(request)
        if act is not None and self._misbehave_first(act):
            return
        try:
            if request.path in rude.prepared:
                self._send_prepared(rude.prepared[request.path])
            elif request.path == "/notifications":
                self._send_array(act, rude.listing(request))
            else:
                how = {"end ignored": "nothing", "end of the send": "sends"}
                items = rude.elements(request, end_filters=how.get(act.name if act else "", "events"))
                self._send_array(act, [item.text for item in items])
        except Refusal as refusal:
            self._refuse(refusal.status, str(refusal))

    # -- without an array --

    def _misbehave_first(self, act: Act) -> bool:
        """Do what needs no body; False when the array itself is where it goes wrong."""
        request, status = self.request_, act.name.split()[0]
        request.done = act.name
        if status in {"429", "500", "502", "503"}:
            self._send(int(status), _wait_headers(act), b"", "length")
        elif status in PERMANENT:
            self._refuse(int(status), "as scripted", done=act.name)
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
        else:
            return False
        return True

    def _refuse(self, status: int, why: str, done: str = "") -> None:
        self.request_.done = done or str(status)
        # An error's body may be empty.
        body = b"" if self.rng.random() < 0.5 else json.dumps({"error": why}).encode()
        self._send(status, {"x-request-id": self.request_.request_id}, body, "length")

    def _reset(self) -> None:
        self.server.to_reset.add(self.connection.fileno())
        self.close_connection = True

    def _stall(self) -> None:
        """Say nothing more until the server is released (or for two minutes, should it be forgotten)."""
        self.server.rude.released.wait(120)
        self.close_connection = True

    # -- with an array --

    def _send_array(self, act: Act | None, texts: list[str]) -> None:
        request, rng, name = self.request_, self.rng, "" if act is None else act.name
        request.events = len(texts)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        transport = rng.choice(self.server.rude.transports)
        if name in ("", "wrong content type", "end ignored", "end of the send"):
            request.done = name or "ok"
            if name == "wrong content type":
                headers["Content-Type"] = rng.choice(("text/plain", "application/octet-stream", "text/html"))
            encoding = self._encoding()
            headers |= {"Content-Encoding": encoding} if encoding else {}
            self._send(200, headers, _encoded(_array(texts, rng), encoding), transport)
            return
        assert act is not None
        if name in ("duplicated", "shuffled", "outside window"):
            self._send(200, headers, _array(self._rearranged(name, texts), rng), transport)
        elif name.startswith("cut ") and name not in INCOMPLETE:
            self._send_cut(act, headers, texts)
        elif name in INCOMPLETE:
            self._send(200, headers, _incomplete(act, texts, rng), transport)
        elif name == "shuffled and cut":
            texts = rng.sample(texts, len(texts))
            body = _array(texts, rng)
            self._send(200, headers, body, "chunked", cut=_inside(body, texts, act.at))
        elif name in ("reset in body", "stall in body"):
            body = _array(texts, rng)
            self._send(200, headers, body, "length", cut=_inside(body, texts, act.at))
            self._reset() if name == "reset in body" else self._stall()

    def _encoding(self) -> str:
        offered = self.request_.headers.get("accept-encoding", "")
        choices = [""] + [name for name in ("gzip", "zstd") if re.search(rf"\b{name}\b", offered)]
        return self.rng.choice(choices)

    def _rearranged(self, name: str, texts: list[str]) -> list[str]:
        rng = self.rng
        if self.request_.path == "/notifications":
            return texts  # what is said of events is not said of the list
        if name == "duplicated":
            return [text for text in texts for _ in range(1 + (rng.random() < 0.3))]
        if name == "outside window":
            wide = self.server.rude.elements(self.request_, widened_ms=6 * 3_600_000)
            return [item.text for item in wide]
        return rng.sample(texts, len(texts))

    def _send_cut(self, act: Act, headers: dict[str, str], texts: list[str]) -> None:
        body, how = _array(texts, self.rng), act.name.removeprefix("cut ")
        if how in ("gzip", "zstd"):
            if how in self.request_.headers.get("accept-encoding", ""):
                packed = _encoded(body, how)
                headers["Content-Encoding"] = how
                self._send(200, headers, packed, "chunked", cut=max(1, int(len(packed) * act.at)))
                return
            how = "length"
        self._send(200, headers, body, how, cut=_inside(body, texts, act.at))

    def _send_prepared(self, prepared: Prepared) -> None:
        request = self.request_
        query = request.query
        start, end = (query.get(name) for name in ("reactivityStart", "reactivityEnd"))
        offset, length = prepared.slice(
            None if start is None else parse_time(start), None if end is None else parse_time(end)
        )
        request.done, request.status = "ok", 200
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(length + 2)})
        self._write(b"[")
        with prepared.body.open("rb") as file:
            while length:
                # Not os.sendfile: a socket with a timeout would have it fail on a full buffer.
                sent = self.connection.sendfile(file, offset, min(length, 1 << 20))
                if not sent:
                    raise ConnectionAbortedError("the client has left")
                request.bytes_sent += sent
                offset, length = offset + sent, length - sent
        self._write(b"]")

    # -- bytes --

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        reason = self.responses.get(status, ("",))[0]
        headers = {**self.server.rude.headers(), **headers}
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.request_.bytes_sent += len(data)

    def _send(
        self, status: int, headers: Mapping[str, str], body: bytes, transport: str, cut: int | None = None
    ) -> None:
        """Send an answer; with `cut`, only so many bytes of its body, and then hang up."""
        self.request_.status = status
        if transport == "length":
            self._head(status, {**headers, "Content-Length": str(len(body))})
            self._write(body[:cut])
        elif transport == "close":
            self._head(status, {**headers, "Connection": "close"})
            self._write(body[:cut])
            self.close_connection = True
        else:
            self._head(status, {**headers, "Transfer-Encoding": "chunked"})
            for chunk in _chunks(body[:cut], self.rng):
                self.wfile.write(f"{len(chunk):x}\r\n".encode())
                self._write(chunk)
                self.wfile.write(b"\r\n")
            if cut is None:
                self.wfile.write(b"0\r\n\r\n")
        if cut is not None:
            self.close_connection = True


def _wait_headers(act: Act) -> dict[str, str]:
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


def _chunks(body: bytes, rng: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        size = rng.choice((1, 100, 4_000, 70_000))
        yield body[at : at + size]
        at += size


def _array(texts: Sequence[str], rng: random.Random) -> bytes:
    """The elements as one JSON array, spaced in some way."""
    before, between, after = rng.choice((("", ",", ""), ("", ",\n", "\n"), ("\n ", " ,\r\n\t", " ")))
    head, tail = rng.choice(("", "", " ")), rng.choice(("", "\n"))
    return f"{head}[{before}{between.join(texts)}{after}]{tail}".encode()


def _inside(body: bytes, texts: Sequence[str], at: float) -> int:
    """A number of bytes that ends in the middle of an element (or of the empty array)."""
    if not texts:
        return body.index(b"[") + 1
    element = texts[min(len(texts) - 1, int(len(texts) * at))].encode()
    return body.index(element) + max(1, len(element) // 2)


def _encoded(body: bytes, encoding: str) -> bytes:
    return {"": lambda: body, "gzip": lambda: gzip.compress(body, 1), "zstd": lambda: zstd_raw(body)}[encoding]()


def _incomplete(act: Act, texts: Sequence[str], rng: random.Random) -> bytes:
    """A body that is no whole array, for all that the protocol ends well."""
    kept = list(texts[: max(1, int(len(texts) * act.at))])
    joined = ",".join(kept)
    half = len(texts) // 2
    return {
        "cut after comma": f"[{joined},",
        "cut before bracket": f"[{joined}",
        "cut in event": f"[{joined}"[: -max(1, len(kept[-1]) // 2)] if kept else "[",
        "trailing comma": f"[{','.join(texts)},]",
        "garbage after": f"[{','.join(texts)}]" + rng.choice((" ]", '{"error":"internal"}', "x", " [")),
        "two arrays": f"[{','.join(texts[:half])}][{','.join(texts[half:])}]",
    }[act.name].encode()
