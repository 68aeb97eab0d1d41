"""Quote no broken answer in errors, logs and Dagster's records."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from np6_assets_tests.np6.test_resource import KEY, build_resource, materialize, read_storage

CANARY = b"canary.person@example.com"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

ANSWERS = {
    "no HTTP at all": CANARY + b"\r\n\r\n",
    "a status line of something else": b"HTTP/1.1 " + CANARY + b"\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\n" + CANARY + b"\r\n\r\n",
    "a header with a control character": HEAD + b"X-Name: \x01" + CANARY + b"\r\n\r\n[]",
    "a length that is none": HEAD + b"Content-Length: " + CANARY + b"\r\n\r\n[]",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 4" + CANARY + b"\r\n\r\n[]",
    "a length that is too short": HEAD + b'Content-Length: 2\r\n\r\n[{"unicity":"' + CANARY + b'"}]',
    "a length that is too long": HEAD + b'Content-Length: 999\r\n\r\n[{"unicity":"' + CANARY + b'"}',
    "a chunk's size that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CANARY + b"\r\n",
    "a chunk that is longer than its size": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n1\r\n["
    + CANARY
    + b"\r\n0\r\n\r\n",
    "an encoding that is none": HEAD + b"Transfer-Encoding: " + CANARY + b"\r\n\r\n[]",
    "a content encoding that is none": HEAD + b"Content-Encoding: " + CANARY + b"\r\nContent-Length: 2\r\n\r\n[]",
    "a body that is not gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + CANARY,
    "a body that is no array": HEAD + b"Content-Length: 27\r\n\r\n<" + CANARY + b">",
    "a refusal": b"HTTP/1.1 403 "
    + CANARY
    + b"\r\nX-Request-Id: "
    + CANARY
    + b"\r\nContent-Length: 25\r\n\r\n"
    + CANARY,
    "an informational answer": b"HTTP/1.1 101 " + CANARY + b"\r\n\r\n" + CANARY,
}


@contextmanager
def serve_bytes(answer: bytes) -> Iterator[str]:
    """Answer every request with these bytes, and close the connection."""
    stopped = threading.Event()

    def serve(listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if stopped.is_set():
                    return
                connection.recv(2**16)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            stopped.set()
            socket.create_connection(("127.0.0.1", port)).close()
            thread.join()


@pytest.mark.parametrize(
    "name", [*list(ANSWERS)[::2], *(pytest.param(name, marks=pytest.mark.slow) for name in list(ANSWERS)[1::2])]
)
def test_client_quotes_no_broken_answer(
    name: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("NP6_API_KEY", KEY)
    with serve_bytes(ANSWERS[name]) as url:
        materialize(build_resource(url, step_retries=0), home)
    shown = capfd.readouterr()
    everything = read_storage(home) + (shown.out + shown.err + caplog.text).encode()
    assert b"STEP_START" in everything
    assert b"canary" not in everything
