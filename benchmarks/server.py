"""A loopback server that costs little CPU: it sends windows of a prepared file with sendfile, a thread per client.

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
from dataclasses import dataclass
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from benchmarks.measure import read_process_cpu

HITS_PATH = "/notifications/reactivities/hits"
COUNTS_PATH = "/bench/counts"
PUBLISH_PATH = "/bench/publish"
DESCENDING_EVENTS = 256
"""How many events are sent at once in descending order."""


class FeedServer:
    """Serves the events of a feed that were published so far, and counts requests and bytes of bodies."""

    def __init__(self, body: Path, index: Path, notifications: Path | None) -> None:
        self._body = body.open("rb")
        pairs = np.memmap(index, dtype=np.int64, mode="r").reshape(-1, 2)
        times, self._offsets = np.array(pairs[:, 0]), pairs[:, 1]
        names, ranges = [(101, "Welcome")], {HITS_PATH: (0, len(pairs) - 1)}
        if notifications:
            triples = json.loads(notifications.read_text())
            names = [(id_, f"Notification {id_}") for id_, _, _ in triples]
            ranges = {f"/notifications/{id_}/events/activations": (first, end) for id_, first, end in triples}
        self._list = json.dumps([{"id": id_, "name": name, "type": "notification"} for id_, name in names]).encode()
        self._ranges = {path: _EventRange(times, *ends) for path, ends in ranges.items()}
        self._published_until = 2**62
        self._counts = {"requests": 0, "bytes": 0}
        self._lock = threading.Lock()

    def serve_client(self, client: socket.socket) -> None:
        """Answer the requests of one connection until the client closes it."""
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
                self._respond(client, head.split(b" ", 2)[1].decode())
        except ConnectionError:
            return
        finally:
            client.close()

    def _respond(self, client: socket.socket, target: str) -> None:
        path = urlsplit(target).path
        query = {name: values[-1] for name, values in parse_qs(urlsplit(target).query).items()}
        if path == COUNTS_PATH:
            with self._lock:
                counts, self._counts = self._counts, {"requests": 0, "bytes": 0}
            _send(client, json.dumps(counts).encode())
        elif path == PUBLISH_PATH:
            self._published_until = int(query["until"])
            _send(client, b"{}")
        elif path == "/notifications":
            self._count_request(len(self._list))
            _send(client, self._list)
        else:
            self._send_events(client, path, query)

    def _send_events(self, client: socket.socket, path: str, query: dict[str, str]) -> None:
        start = int(query.get("reactivityStart", query.get("start", "0")))
        end = int(query.get("reactivityEnd", query.get("end", str(2**61))))
        events = self._ranges.get(path)
        first, last = events.find_window(start, min(end, self._published_until)) if events else (0, 0)
        if events is None or first >= last:
            self._count_request(2)
            _send(client, b"[]")
            return
        offset, stop = int(self._offsets[first]), int(self._offsets[last]) - 1
        self._count_request(stop - offset + 2)  # before the client can read the counts
        client.sendall(_format_head(stop - offset + 2) + b"[")
        if events.is_sorted and query.get("sort") == "desc":
            self._send_descending(client, first, last)
        else:
            while offset < stop:
                offset += os.sendfile(client.fileno(), self._body.fileno(), offset, stop - offset)
        client.sendall(b"]")

    def _send_descending(self, client: socket.socket, first: int, last: int) -> None:
        for end in range(last, first, -DESCENDING_EVENTS):
            begin = max(end - DESCENDING_EVENTS, first)
            offsets = self._offsets[begin : end + 1].tolist()
            text = os.pread(self._body.fileno(), offsets[-1] - 1 - offsets[0], offsets[0])
            events = [text[start - offsets[0] : stop - 1 - offsets[0]] for start, stop in pairwise(offsets)]
            client.sendall((b"" if end == last else b",") + b",".join(reversed(events)))

    def _count_request(self, body_bytes: int) -> None:
        with self._lock:
            self._counts["requests"] += 1
            self._counts["bytes"] += body_bytes


class _EventRange:
    """The events of one path: a range of the file, in the order in which they are sent."""

    def __init__(self, times: np.ndarray, first: int, end: int) -> None:
        self._times, self._first, self._end = times[first:end], first, end
        self.is_sorted = bool(np.all(self._times[:-1] <= self._times[1:]))

    def find_window(self, start: int, end: int) -> tuple[int, int]:
        """Find the numbers of a window's first event and after its last; an unsorted range is sent whole or not."""
        if self.is_sorted:
            low, high = np.searchsorted(self._times, [start, end])
            return self._first + int(low), self._first + int(high)
        overlaps = start <= self._times.max() and self._times.min() < end
        return (self._first, self._end) if overlaps else (0, 0)


def _format_head(length: int) -> bytes:
    date = formatdate(usegmt=True)
    return (
        f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _send(client: socket.socket, body: bytes) -> None:
    client.sendall(_format_head(len(body)) + body)


def main(body: str, index: str, notifications: str = "") -> None:
    server = FeedServer(Path(body), Path(index), Path(notifications) if notifications else None)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)

        def accept_clients() -> None:
            while True:
                client, _ = listener.accept()
                threading.Thread(target=server.serve_client, args=(client,), daemon=True).start()

        threading.Thread(target=accept_clients, daemon=True).start()
        sys.stdin.read()


@dataclass(frozen=True)
class RunningServer:
    """A server in another process."""

    pid: int
    url: str

    def read_cpu(self) -> float:
        """Read the CPU seconds that the server has used so far."""
        return read_process_cpu(self.pid)

    def take_counts(self) -> dict[str, int]:
        """Return `requests` and `bytes` (of bodies) since the last call, and count from 0 again."""
        return take_counts(self.url)

    def publish_until(self, ms: int) -> None:
        """Serve only events before a time (ms since epoch); unsorted feeds are sent whole or not at all."""
        urllib.request.urlopen(f"{self.url}{PUBLISH_PATH}?until={ms}").close()


def take_counts(url: str) -> dict[str, int]:
    """Return a server's `requests` and `bytes` (of bodies) since the last call, and count from 0 again."""
    with urllib.request.urlopen(url + COUNTS_PATH) as response:
        counts: dict[str, int] = json.load(response)
        return counts


@contextmanager
def run_server(program: str, *arguments: str) -> Iterator[RunningServer]:
    """Run a server (a module of `benchmarks`) in another process while the block runs."""
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
        yield RunningServer(process.pid, process.stdout.readline().strip())
    finally:
        process.stdin.close()
        process.wait(30)


if __name__ == "__main__":
    main(*sys.argv[1:])
