"""A loopback server that is not what is measured: sends windows of a prepared file with sendfile, one thread a client.

As a program (`python -m benchmarks.server BODY INDEX`) it prints its address and serves until its input ends.
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
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from benchmarks.measure import cpu_of

NOTIFICATIONS = b'[{"id":101,"name":"Welcome","type":"notification"}]'


class _Server:
    def __init__(self, body: Path, index: Path) -> None:
        self.body = body.open("rb")
        pairs = np.memmap(index, dtype=np.int64, mode="r").reshape(-1, 2)
        self.times, self.offsets = np.array(pairs[:, 0]), pairs[:, 1]
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
            self._count(len(NOTIFICATIONS))
            _send(client, NOTIFICATIONS)
            return
        start = query.get("reactivityStart", query.get("start", "0"))
        end = query.get("reactivityEnd", query.get("end", str(2**61)))
        window = np.searchsorted(self.times, [int(start), min(int(end), self.until)])
        is_served = split.path == "/notifications/reactivities/hits"
        first, last = (int(row) for row in window) if is_served else (0, 0)
        if first >= last:
            self._count(len(b"[]"))
            _send(client, b"[]")
            return
        offset, stop = int(self.offsets[first]), int(self.offsets[last]) - 1
        self._count(stop - offset + 2)  # before who asked can ask for the count
        client.sendall(_head(stop - offset + 2) + b"[")
        while offset < stop:
            offset += os.sendfile(client.fileno(), self.body.fileno(), offset, stop - offset)
        client.sendall(b"]")

    def _control(self, client: socket.socket, path: str, query: dict[str, str]) -> None:
        if path == "/bench/until":
            self.until = int(query["ms"])
        with self.lock:
            counts = {"requests": self.requests, "bytes": self.bytes}
            self.requests = self.bytes = 0
        _send(client, json.dumps(counts).encode())

    def _count(self, size: int) -> None:
        with self.lock:
            self.requests += 1
            self.bytes += size


def _head(length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()


def _send(client: socket.socket, body: bytes) -> None:
    client.sendall(_head(len(body)) + body)


def _main(body: str, index: str) -> None:
    server = _Server(Path(body), Path(index))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)

        def accept() -> None:
            while True:
                client, _ = listener.accept()
                threading.Thread(target=server.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        sys.stdin.read()


class Served:
    """A server that runs: where it is, and what it has sent."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def cpu(self) -> float:
        """CPU seconds of the server so far."""
        return cpu_of(self._process.pid)

    def sent(self) -> dict[str, int]:
        """`requests` and `bytes` (of bodies) since this was asked last."""
        return self._ask("/bench/sent")

    def show_until(self, ms: int) -> None:
        """From now on there are no events from that time on."""
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
