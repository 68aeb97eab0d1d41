"""What stands before the account: it counts requests, and holds them back."""

from __future__ import annotations

import asyncio
import threading

from starlette.types import ASGIApp, Receive, Scope, Send


class CountedAccount:
    """An account that counts: requests, and how many of them were under way at once. It can hold them back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = threading.Event()
        self._open.set()
        self._hold_at: int | None = None
        self.held = threading.Event()
        """Set while requests are held back."""
        self.requests = 0
        self.under_way = 0
        self.most = 0

    def hold_after(self, requests: int) -> None:
        """Hold back all requests once so many more have come."""
        self.held.clear()
        self._hold_at = self.requests + requests

    def release(self) -> None:
        """Answer those that are held back, and all to come."""
        self._hold_at = None
        self._open.set()
        self.held.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.requests == self._hold_at:
                self._open.clear()
                self.held.set()
            await asyncio.to_thread(self._open.wait)
            await self._app(scope, receive, send)
        finally:
            self.under_way -= 1
