"""An S3 bucket on this machine: moto's server in a thread, which notes each request and refuses those it is told to."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[import-untyped]
from werkzeug.serving import make_server

KEY_ID, SECRET = "AKIANOBODY", "a-secret-that-no-line-may-show"


class Bucket:
    """A bucket; `requests` are what was asked, as (method, key or prefix, whether it was a listing).

    `refuses` is asked of each request before it is done, and gives a status to answer with instead, or None.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.name = f"np6-{uuid.uuid4().hex}"
        self.requests: list[tuple[str, str]] = []
        self.refuses: Callable[[str, str], int | None] = lambda method, key: None

    @property
    def url(self) -> str:
        """The address of a folder in it."""
        return f"s3://{self.name}/np6"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "eu-west-3",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def counts(self) -> Counter[str]:
        """How many requests of each kind there were since the last time."""
        made, self.requests = self.requests, []
        return Counter(kind for kind, _ in made)


class _Noting:
    """The application, behind a door that notes who comes in."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.buckets: dict[str, Bucket] = {}

    def __call__(self, environ: Mapping[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        _, name, *rest = environ["PATH_INFO"].split("/", 2)
        bucket = self.buckets.get(name)
        if bucket is not None and (rest or environ["QUERY_STRING"]):
            key = rest[0] if rest else ""
            kind = environ["REQUEST_METHOD"] if key else "LIST"
            bucket.requests.append((kind, key))
            if (status := bucket.refuses(kind, key)) is not None:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start(f"{status} Refused", [("Content-Length", "0")])
                return [b""]
        found: Iterable[bytes] = self._application(environ, start)
        return found


class Store:
    """A server of buckets."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._noting = _Noting(DomainDispatcherApplication(create_backend_app))
        self._server = make_server("127.0.0.1", 0, self._noting, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def bucket(self) -> Bucket:
        """A new bucket."""
        import httpx

        made = Bucket(f"http://127.0.0.1:{self._server.server_port}")
        httpx.put(f"{made.endpoint}/{made.name}", timeout=60).raise_for_status()
        self._noting.buckets[made.name] = made
        return made

    def stop(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def run_store() -> Iterator[Store]:
    """A server for the length of the block."""
    started = Store()
    try:
        yield started
    finally:
        started.stop()
