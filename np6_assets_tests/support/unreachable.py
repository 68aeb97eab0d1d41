"""Open addresses to which a connection fails, each for another reason."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tls import create_certificate

TROUBLES = ("refused", "name", "timeout", "tls", "certificate")


def accept_connections(listening: ssl.SSLSocket) -> None:
    """Accept TLS connections until the socket is shut down."""
    while listening.fileno() != -1:
        try:
            listening.accept()
        except (ssl.SSLError, ConnectionError):
            continue
        except OSError:
            return


@contextmanager
def open_unreachable(trouble: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield an address to which a connection fails, and the beginning of the error."""
    with ExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = taken.getsockname()[1]
        if trouble == "refused":
            taken.close()
            yield f"http://127.0.0.1:{port}", f"connection refused by 127.0.0.1:{port}; check the host and the port in"
        elif trouble == "name":
            yield "https://api.example.invalid", "unknown host api.example.invalid:443 ("
        elif trouble == "timeout":
            while True:  # until nothing more fits into its queue
                waiting = stack.enter_context(socket.socket())
                waiting.settimeout(0.05)
                if waiting.connect_ex(("127.0.0.1", port)):
                    break
            yield f"http://127.0.0.1:{port}", f"no connection to 127.0.0.1:{port} within 0.2 s; check NP6_BASE_URL"
        elif trouble == "tls":
            server = stack.enter_context(RudeServer())
            yield server.url.replace("http:", "https:"), f"no TLS connection to {server.url.removeprefix('http://')} ("
        else:
            _, context = create_certificate(folder, timedelta(days=1))
            listening = stack.enter_context(context.wrap_socket(taken, server_side=True))
            thread = threading.Thread(target=accept_connections, args=[listening])
            thread.start()
            stack.callback(thread.join)
            stack.callback(listening.shutdown, socket.SHUT_RDWR)
            yield f"https://localhost:{port}", f"no trusted connection to localhost:{port} (self-signed certificate); "
