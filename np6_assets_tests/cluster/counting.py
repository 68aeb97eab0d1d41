"""What stands before the account: it counts requests, and holds them back."""

from __future__ import annotations

import asyncio
import threading

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CountedAccount:
    """An account that counts: requests, and how many of them were under way at once. It can hold them back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = threading.Event()
        self._open.set()
        self._hold_at: int | None = None
        self.holding = threading.Event()
        """Set while requests are held back."""
        self.requests = 0
        self._under_way: set[int] = set()
        self.most = 0

    @property
    def under_way(self) -> int:
        """Requests that are not answered to their end."""
        return len(self._under_way)

    def hold_after(self, requests: int) -> None:
        """Hold back all requests once so many more have come."""
        self.holding.clear()
        self._hold_at = self.requests + requests

    def release(self) -> None:
        """Answer those that are held back, and all to come."""
        self._hold_at = None
        self._open.set()
        self.holding.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        number = self.requests
        self._under_way.add(number)
        self.most = max(self.most, len(self._under_way))

        async def send_and_count(message: Message) -> None:
            # before its end goes out: who reads it may ask again before this returns
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._under_way.discard(number)
            await send(message)

        try:
            if number == self._hold_at:
                self._open.clear()
                self.holding.set()
            await asyncio.to_thread(self._open.wait)
            await self._app(scope, receive, send_and_count)
        finally:
            self._under_way.discard(number)
