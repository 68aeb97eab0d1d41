"""Quote no broken answer in errors, logs and Dagster's records."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.np6.resource import NP6Resource
from np6_assets_tests.np6.test_resource import KEY, read_storage

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
def serve_answers() -> Iterator[str]:
    """Answer every request below `/<number>` with the bytes of that one of ANSWERS, and close the connection."""
    answers, stopped = list(ANSWERS.values()), threading.Event()

    def serve(listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if stopped.is_set():
                    return
                number = int(connection.recv(2**16).split(b"/")[1])
                connection.sendall(answers[number])

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


def build_listing(url: str, number: int) -> dg.AssetsDefinition:
    np6 = NP6Resource(base_url=f"{url}/{number}", api_key=KEY, max_retries=1, backoff=0.001, step_retries=0)

    @dg.asset(name=f"listing_{number}")
    def listing(context: dg.AssetExecutionContext) -> None:
        with np6.open_client(context.log.warning) as client:
            client.get_list("/notifications")

    return listing


def test_client_quotes_no_broken_answer(
    home: Path, kept_instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with serve_answers() as url:
        listings = [build_listing(url, number) for number in range(len(ANSWERS))]
        result = dg.materialize(listings, instance=kept_instance, raise_on_error=False)
    failed = result.filter_events(lambda event: event.is_step_failure)
    assert len(failed) >= len(ANSWERS) - 1  # a control character in a header may be accepted
    shown = capfd.readouterr()
    everything = read_storage(home) + (shown.out + shown.err + caplog.text).encode()
    assert b"listing_0" in everything
    assert b"canary" not in everything, everything[everything.index(b"canary") - 500 :][:600]
