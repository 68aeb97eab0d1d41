"""Serves the simulated account on a loopback address, in the foreground or beside a running program."""

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

_SHUTDOWN_SECONDS = 5


class NotLoopbackError(ValueError):
    """The sandbox was to listen on an address that other machines can reach."""


def serve(app: ASGIApp, host: str = "127.0.0.1", port: int = 8006) -> None:
    """Serve `app` until interrupted.

    Raises:
        NotLoopbackError: `host` is not a loopback address.
    """
    if not _is_loopback(host):
        raise NotLoopbackError(f"host {host!r}: the sandbox listens on loopback addresses alone; use 127.0.0.1")
    uvicorn.run(app, host=host, port=port, log_level="info", lifespan="off")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # Another name can stand for any address.


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """Serve `app` from a thread while the context is open; gives the URL, `http://127.0.0.1:<free port>`."""
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=_SHUTDOWN_SECONDS)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=config.backlog) as listener:
        # The socket listens from here on, so a request made before the server's loop runs waits its turn.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="np6-sandbox", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(2 * _SHUTDOWN_SECONDS)
    if thread.is_alive():
        raise RuntimeError("the sandbox's server did not stop")
