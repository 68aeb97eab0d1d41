"""Count the requests to an account, and delay them."""

from __future__ import annotations

import asyncio
import threading

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CountingAccount:
    """ASGI middleware that counts requests and their concurrency, and can delay them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = threading.Event()
        self._open.set()
        self._delay_at: int | None = None
        self.is_delaying = threading.Event()
        """Set while requests are delayed."""
        self.requests = 0
        self._in_flight: set[int] = set()
        self.peak_in_flight = 0

    @property
    def in_flight(self) -> int:
        """Return how many requests are not completely answered."""
        return len(self._in_flight)

    def delay_after(self, requests: int) -> None:
        """Delay all requests after so many more have arrived."""
        self.is_delaying.clear()
        self._delay_at = self.requests + requests

    def release(self) -> None:
        """Answer the delayed requests, and all later ones."""
        self._delay_at = None
        self._open.set()
        self.is_delaying.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        number = self.requests
        self._in_flight.add(number)
        self.peak_in_flight = max(self.peak_in_flight, len(self._in_flight))

        async def send_and_count(message: Message) -> None:
            # before the end is sent: the client may send its next request before this returns
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._in_flight.discard(number)
            await send(message)

        try:
            if number == self._delay_at:
                self._open.clear()
                self.is_delaying.set()
            await asyncio.to_thread(self._open.wait)
            await self._app(scope, receive, send_and_count)
        finally:
            self._in_flight.discard(number)
