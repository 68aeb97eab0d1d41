"""Serve the simulated account on a loopback address, in the foreground or in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

_SHUTDOWN_SECONDS = 5


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve `app` on a socket that listens, until interrupted."""
    with suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, log_level="info", lifespan="off")).run([listener])


@contextmanager
def serve_in_thread(app: ASGIApp) -> Iterator[str]:
    """Serve `app` in a thread while the context is open; gives the URL, `http://127.0.0.1:<free port>`."""
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=_SHUTDOWN_SECONDS)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=config.backlog) as listener:
        # The socket listens from here on, so a request made before the server's loop runs waits its turn.
        thread = threading.Thread(target=server.run, args=([listener],), name="np6-sandbox", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(2 * _SHUTDOWN_SECONDS)
    if thread.is_alive():
        raise RuntimeError("the sandbox's server did not stop")
