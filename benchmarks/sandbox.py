"""Serve the simulated account's smallest size, from FIRST_DAY on, and count requests, until the input ends."""

import json
import sys
from datetime import UTC, date, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.server import COUNTS_PATH
from np6_assets.sandbox.app import create_app
from np6_assets.sandbox.population import Account
from np6_assets.sandbox.server import serve_in_thread


def add_counts(app: ASGIApp) -> ASGIApp:
    """Wrap an app so that it counts requests and bytes of bodies, as `server.take_counts` reads them."""
    counts = {"requests": 0, "bytes": 0}

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async def count_and_send(message: Message) -> None:
            counts["bytes"] += len(message.get("body", b""))
            await send(message)

        if scope["path"] == COUNTS_PATH:
            body = json.dumps(counts).encode()
            counts.update(requests=0, bytes=0)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
        else:
            counts["requests"] += 1
            await app(scope, receive, count_and_send)

    return respond


small = Account.small()
account = Account(sends_per_day=small.sends_per_day, first_day=date.fromisoformat(sys.argv[1]))
app = create_app(account, api_key=None, now=lambda: datetime.now(UTC))
with serve_in_thread(add_counts(app)) as url:
    print(url, flush=True)
    sys.stdin.read()
