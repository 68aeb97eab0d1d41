"""Run an S3 server in this process: moto, which records requests and refuses those that a test chooses."""

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
    """A bucket. `requests`: (method or LIST, key) of each; `refuse(method, key)`: the status to refuse one with."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.name = f"np6-{uuid.uuid4().hex}"
        self.requests: list[tuple[str, str]] = []
        self.refuse: Callable[[str, str], int | None] = lambda method, key: None

    @property
    def url(self) -> str:
        """Return the URL of a folder in the bucket."""
        return f"s3://{self.name}/np6"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables with which a process reaches the bucket."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "eu-west-3",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def count_requests(self) -> Counter[str]:
        """Count the requests since the last call, by method."""
        requests, self.requests = self.requests, []
        return Counter(kind for kind, _ in requests)


class _Recorder:
    """WSGI middleware that records and refuses the requests of each bucket."""

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
            if (status := bucket.refuse(kind, key)) is not None:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start(f"{status} Refused", [("Content-Length", "0")])
                return [b""]
        answer: Iterable[bytes] = self._application(environ, start)
        return answer


class Store:
    """A server of buckets."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._recorder = _Recorder(DomainDispatcherApplication(create_backend_app))
        self._server = make_server("127.0.0.1", 0, self._recorder, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def create_bucket(self) -> Bucket:
        """Create a bucket."""
        import httpx

        bucket = Bucket(f"http://127.0.0.1:{self._server.server_port}")
        httpx.put(f"{bucket.endpoint}/{bucket.name}", timeout=60).raise_for_status()
        self._recorder.buckets[bucket.name] = bucket
        return bucket

    def stop(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def run_store() -> Iterator[Store]:
    """Run a server for the length of the block."""
    started = Store()
    try:
        yield started
    finally:
        started.stop()
