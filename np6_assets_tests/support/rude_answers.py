"""Write the rude server's answers: HTTP as it should be, or as an act says."""

from __future__ import annotations

import gzip
import http.server
import itertools
import json
import random
import re
import socket
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from np6_assets_tests.support import rude_bodies
from np6_assets_tests.support.rude_acts import PERMANENT, Act

if TYPE_CHECKING:
    from np6_assets_tests.support.rude_server import RudeServer

TRICKLE_SECONDS = 0.02
_JSON = {"Content-Type": "application/json; charset=utf-8"}
_TRANSPORTS_OF_CUTS = {
    "cut length": "length",
    "cut chunked": "chunked",
    "cut close": "close",
    "cut gzip": "chunked",
    "shuffled and cut": "chunked",
    "reset in body": "length",
    "stall in body": "length",
}


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
    client_disconnected: bool = False


class Refusal(Exception):  # noqa: N818 -- an answer, not an error
    """Answers a request with a 4xx."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class HttpServer(http.server.ThreadingHTTPServer):
    """Listens on a loopback port for a rude server."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, rude: RudeServer) -> None:
        self.rude = rude
        self.to_reset: set[int] = set()
        super().__init__(("127.0.0.1", 0), Handler)
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


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = 120
    server: HttpServer

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """Answer a request."""
        rude = self.server.rude
        split = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        with rude.record_request(split.path, query, headers) as self.request_:
            self.rng = random.Random(f"{rude.seed} transport {self.request_.number}")
            try:
                self._answer()
            except Refusal as refusal:
                self._refuse(refusal.status, str(refusal))
            except ConnectionError:
                self.request_.client_disconnected = True
                self.close_connection = True

    def _answer(self) -> None:
        rude, request = self.server.rude, self.request_
        if request.headers.get("x-key") != rude.key:
            raise Refusal(401, "wrong key")
        act = rude.choose_act(request)
        request.outcome = "ok" if act is None else act.name
        if act is not None and self._answer_without_array(act):
            return
        if request.path == "/notifications":
            self._send_array(act, rude.list_notifications(request))
            return
        name = "" if act is None else act.name
        widened_ms = 6 * 3_600_000 if name == "outside window" else 0
        items = rude.select_items(request, widened_ms=widened_ms, end="ignored" if name == "end ignored" else None)
        if act is None and rude.sends_204 and not items:
            self._send_head(204, {})
            return
        elements = [item.body for item in items]
        if name == "duplicated":
            elements = [element for element in elements for _ in range(1 + (self.rng.random() < 0.3))]
        elif name.startswith("shuffled"):
            self.rng.shuffle(elements)
        self._send_array(act, elements)

    def _answer_without_array(self, act: Act) -> bool:
        """Apply an act that needs no array; return False if it needs one."""
        status = act.name.split()[0]
        bodies: dict[str, tuple[Mapping[str, str], bytes]] = {
            "html page": ({"Content-Type": "text/html"}, b"<!DOCTYPE html><html>[We will be back soon]</html>"),
            "empty body": ({}, b""),
            "not an array": ({}, b'{"error":"[try again]"}'),
            "unknown encoding": ({**_JSON, "Content-Encoding": "br"}, self.rng.randbytes(500)),
        }
        if status in {"429", "500", "502", "503"}:
            self._send(int(status), _build_wait_headers(act), b"", "length")
        elif status in PERMANENT:
            self._refuse(int(status), "as scripted")
        elif act.name in bodies:
            self._send(200, *bodies[act.name], self.rng.choice(self.server.rude.transports))
        elif act.name == "gzip bomb":
            self._send(200, {**_JSON, "Content-Encoding": "gzip"}, rude_bodies.build_bomb(), "length")
        elif act.name == "204":
            self._send_head(204, {})
        elif act.name == "redirect":
            self._send(302, {"Location": act.url + self.path}, b"", "length")
        elif act.name == "reset before":
            self._reset()
        elif act.name == "no answer":
            self.close_connection = True
        elif act.name == "stall before":
            self._stall()
        elif act.name == "trickle headers":
            self._trickle(b"HTTP/1.1 200 OK\r\nX-Padding: ", b"x")
        else:
            return False
        return True

    def _send_array(self, act: Act | None, elements: list[bytes]) -> None:
        rng, name = self.rng, "" if act is None else act.name
        if act is not None and name == "trickle":
            half = elements[0][: len(elements[0]) // 2] if elements and act.at >= 0.5 else b""
            self._send_head(200, {**_JSON, "Connection": "close"})
            self._trickle(b"[" + half, b" ")
            return
        headers = dict(_JSON)
        if name == "wrong content type":
            headers["Content-Type"] = rng.choice(("text/plain", "application/octet-stream", "text/html"))
        body, cut = rude_bodies.build_body(act, elements, rng), None
        transport, encoding = rng.choice(self.server.rude.transports), self._choose_encoding()
        if act is not None and name in _TRANSPORTS_OF_CUTS:
            transport, cut = _TRANSPORTS_OF_CUTS[name], rude_bodies.find_cut(body, elements, act.at)
            encoding = "gzip" if name == "cut gzip" and self._accepts_gzip() else ""
        if encoding:
            headers["Content-Encoding"] = encoding
            body = gzip.compress(body, 1)
            cut = None if act is None or cut is None else max(1, int(len(body) * act.at))
        self._send(200, headers, body, transport, cut)
        if name == "reset in body":
            self._reset()
        elif name == "stall in body":
            self._stall()

    def _choose_encoding(self) -> str:
        return "gzip" if self._accepts_gzip() and self.rng.random() < 0.5 else ""

    def _accepts_gzip(self) -> bool:
        return re.search(r"\bgzip\b", self.request_.headers.get("accept-encoding", "")) is not None

    def _refuse(self, status: int, why: str) -> None:
        if self.request_.outcome in ("", "ok"):
            self.request_.outcome = str(status)
        # An error's body may be empty.
        body = b"" if self.rng.random() < 0.5 else json.dumps({"error": why}).encode()
        self._send(status, {"x-request-id": self.request_.request_id}, body, "length")

    # -- bytes --

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

    def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.request_.status = status
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
