"""A loopback server that costs little itself: it sends windows of a prepared file with sendfile, one thread a client.

As a program (`python -m benchmarks.server BODY INDEX [NOTIFICATIONS]`) it prints its address and serves until its input
ends. The files are those of `benchmarks.inputs.Feed`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from benchmarks.measure import cpu_of

HITS = "/notifications/reactivities/hits"
DESCENDING_EVENTS = 256
"""How many events an answer in descending order is sent by."""


class _Server:
    def __init__(self, body: Path, index: Path, notifications: Path | None) -> None:
        self.body = body.open("rb")
        pairs = np.memmap(index, dtype=np.int64, mode="r").reshape(-1, 2)
        self.times, self.offsets = np.array(pairs[:, 0]), pairs[:, 1]
        self.listed, ranges = [(101, "Welcome")], {HITS: (0, len(pairs) - 1)}
        if notifications:
            given = json.loads(notifications.read_text())
            self.listed = [(number, f"Notification {number}") for number, _, _ in given]
            ranges = {f"/notifications/{number}/events/activations": (first, end) for number, first, end in given}
        self.feeds = {path: _Feed(self.times, *ends) for path, ends in ranges.items()}
        self.until = 2**62
        self.requests = 0
        self.bytes = 0
        self.lock = threading.Lock()

    def serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pending = b""
        try:
            while True:
                while b"\r\n\r\n" not in pending:
                    received = client.recv(65536)
                    if not received:
                        return
                    pending += received
                head, _, pending = pending.partition(b"\r\n\r\n")
                self._answer(client, head.split(b" ", 2)[1].decode())
        except ConnectionError:
            return
        finally:
            client.close()

    def _answer(self, client: socket.socket, target: str) -> None:
        split = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(split.query).items()}
        if split.path.startswith("/bench/"):
            self._control(client, split.path, query)
            return
        if split.path == "/notifications":
            listed = [{"id": number, "name": name, "type": "notification"} for number, name in self.listed]
            self._send_counted(client, json.dumps(listed).encode())
            return
        start = int(query.get("reactivityStart", query.get("start", "0")))
        end = int(query.get("reactivityEnd", query.get("end", str(2**61))))
        feed = self.feeds.get(split.path)
        first, last = feed.window(start, min(end, self.until)) if feed else (0, 0)
        if feed is None or first >= last:
            self._send_counted(client, b"[]")
            return
        offset, stop = int(self.offsets[first]), int(self.offsets[last]) - 1
        self._count(stop - offset + 2)  # before the client can read the count
        client.sendall(_head(stop - offset + 2) + b"[")
        if feed.is_sorted and query.get("sort") == "desc":
            self._send_descending(client, first, last)
        else:
            while offset < stop:
                offset += os.sendfile(client.fileno(), self.body.fileno(), offset, stop - offset)
        client.sendall(b"]")

    def _send_descending(self, client: socket.socket, first: int, last: int) -> None:
        for end in range(last, first, -DESCENDING_EVENTS):
            begin = max(end - DESCENDING_EVENTS, first)
            offsets = self.offsets[begin : end + 1].tolist()
            text = os.pread(self.body.fileno(), offsets[-1] - 1 - offsets[0], offsets[0])
            events = [text[at - offsets[0] : after - 1 - offsets[0]] for at, after in pairwise(offsets)]
            client.sendall((b"" if end == last else b",") + b",".join(reversed(events)))

    def _control(self, client: socket.socket, path: str, query: dict[str, str]) -> None:
        if path == "/bench/until":
            self.until = int(query["ms"])
        with self.lock:
            counts = {"requests": self.requests, "bytes": self.bytes}
            self.requests = self.bytes = 0
        _send(client, json.dumps(counts).encode())

    def _send_counted(self, client: socket.socket, body: bytes) -> None:
        self._count(len(body))
        _send(client, body)

    def _count(self, size: int) -> None:
        with self.lock:
            self.requests += 1
            self.bytes += size


class _Feed:
    """The events of one feed: a range of the file, in the order in which they are sent."""

    def __init__(self, times: np.ndarray, first: int, end: int) -> None:
        self.times, self.first, self.end = times[first:end], first, end
        self.is_sorted = bool(np.all(self.times[:-1] <= self.times[1:]))
        self.earliest, self.latest = (int(self.times.min()), int(self.times.max())) if first < end else (0, -1)

    def window(self, start: int, end: int) -> tuple[int, int]:
        """The numbers of the window's first event and after its last; an unsorted feed comes whole, if at all."""
        if self.is_sorted:
            low, high = np.searchsorted(self.times, [start, end])
            return self.first + int(low), self.first + int(high)
        overlaps = start <= self.latest and self.earliest < end
        return (self.first, self.end) if overlaps else (0, 0)


def _head(length: int) -> bytes:
    date = formatdate(usegmt=True)
    return (
        f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _send(client: socket.socket, body: bytes) -> None:
    client.sendall(_head(len(body)) + body)


def _main(body: str, index: str, notifications: str = "") -> None:
    server = _Server(Path(body), Path(index), Path(notifications) if notifications else None)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)

        def accept() -> None:
            while True:
                client, _ = listener.accept()
                threading.Thread(target=server.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        sys.stdin.read()


class Served:
    """A running server: its address, and what it has sent."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def cpu(self) -> float:
        """CPU seconds of the server so far."""
        return cpu_of(self._process.pid)

    def sent(self) -> dict[str, int]:
        """`requests` and `bytes` (of bodies) since the last call."""
        return self._ask("/bench/sent")

    def show_until(self, ms: int) -> None:
        """Serve only events before that time (of sorted feeds)."""
        self._ask(f"/bench/until?ms={ms}")

    def _ask(self, path: str) -> dict[str, int]:
        with urllib.request.urlopen(self.url + path) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts


@contextmanager
def serving(program: str, *arguments: str) -> Iterator[Served]:
    """Run one of the servers here (a module of `benchmarks`) in another process while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{program}", *arguments],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Served(process, process.stdout.readline().strip())
    finally:
        process.stdin.close()
        process.wait(30)


if __name__ == "__main__":
    _main(*sys.argv[1:])
