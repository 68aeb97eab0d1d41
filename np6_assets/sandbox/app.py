"""The NP6 API's HTTP interface over a simulated account: endpoints, filters, key check, rate limit, gzip.

What the API's reference leaves open is answered in one of the ways it allows: errors have a JSON body with a
`message`, `X-RateLimit-Reset` is an epoch time, and `Retry-After` is there.
"""

import hmac
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from uuid import uuid4

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .population import DAY, DAYS_AFTER, Account, Events, Kind, Population, Window
from .rendering import Renderer

REACTIVITIES = {
    "hits": Kind.HIT,
    "optouts": Kind.OPTOUT,
    "bounces": Kind.BOUNCE,
    "impressions": Kind.IMPRESSION,
}
"""The reactivity feeds, and the kind of event in each."""

CHUNK_EVENTS = 2048  # 1.8 MB of text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALWAYS = Window(-(2**62), 2**62)


def create_app(
    account: Account,
    *,
    api_key: str | None,
    now: Callable[[], datetime],
    requests_per_minute: int | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The API of `account` at the time that `now` gives: what is later than that does not exist yet.

    Args:
        account: The account to simulate.
        api_key: What `X-Key` must be; None to let everyone in.
        now: The simulated time, with a timezone; asked once for each request.
        requests_per_minute: Requests with the right key beyond which the answer is 429; None for no limit.
        clock: Seconds since epoch, for the rate limit alone: not `now`, because a client waits in real time.
    """
    feeds = _Feeds(Population(account), now)
    middleware = [Middleware(_RequestId)]
    if api_key is not None:
        middleware.append(Middleware(_KeyCheck, api_key=api_key))
    if requests_per_minute is not None:
        middleware.append(Middleware(_RateLimit, limit=requests_per_minute, clock=clock))
    # Level 1: the text is so repetitive that higher levels cost much and gain little.
    middleware.append(Middleware(GZipMiddleware, compresslevel=1))
    return Starlette(
        routes=[
            Route("/notifications", feeds.notifications),
            Route("/notifications/reactivities", feeds.reactivities),
            Route("/notifications/reactivities/{feed}", feeds.reactivities),
            Route("/notifications/{id:int}/reactivities/{feed}", feeds.reactivities),
            Route("/notifications/{id:int}/events/activations", feeds.activations),
        ],
        middleware=middleware,
        exception_handlers={HTTPException: _error},
    )


# --- Middleware -----------------------------------------------------------------------------------


class _RequestId:
    """Puts an `x-request-id` on every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _with_headers(send, {"x-request-id": str(uuid4())}))


class _KeyCheck:
    """Answers 401 to a request without the right `X-Key`."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"x-key", b"")
            if not hmac.compare_digest(given, self._key):
                await _refusal(HTTPStatus.UNAUTHORIZED, "X-Key is missing or wrong")(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _RateLimit:
    """Answers 429 once a minute's requests are used up. The minute begins with its first request."""

    def __init__(self, app: ASGIApp, limit: int, clock: Callable[[], float]) -> None:
        self._app = app
        self._limit = limit
        self._clock = clock
        self._reset = -math.inf
        self._used = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        now = self._clock()
        if now >= self._reset:
            self._reset, self._used = now + 60, 0
        allowed = self._used < self._limit
        self._used += allowed
        headers = {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(self._limit - self._used),
            "X-RateLimit-Reset": str(math.ceil(self._reset)),
        }
        if allowed:
            await self._app(scope, receive, _with_headers(send, headers))
            return
        headers["Retry-After"] = str(math.ceil(self._reset - now))
        message = f"More than {self._limit} requests in a minute: back off, then try again"
        refusal = _refusal(HTTPStatus.TOO_MANY_REQUESTS, message, headers)
        await refusal(scope, receive, send)


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers


def _refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"message": message}, status, headers)


def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _refusal(error.status_code, error.detail, dict(error.headers or {}))


# --- The query ------------------------------------------------------------------------------------


def parse_time(text: str) -> int:
    """The first ms since epoch that is not before a time of a query.

    Args:
        text: Milliseconds since epoch, or an ISO 8601 date or datetime, in UTC if it does not say otherwise.

    Raises:
        ValueError: It is none of these.
    """
    if re.fullmatch(r"-?[0-9]{1,15}", text):
        return int(text)
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return -((_EPOCH - time) // timedelta(milliseconds=1))


def _time(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        return parse_time(text)
    except ValueError as error:
        wanted = "an ISO 8601 date or a number of milliseconds since 1970-01-01T00:00:00Z"
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name}: {text!r} is not {wanted}") from error


def _window(request: Request, start: str, end: str) -> Window:
    return Window(_time(request, start, _ALWAYS.start), _time(request, end, _ALWAYS.end))


def _sort(request: Request) -> str | None:
    order = request.query_params.get("sort")
    if order not in (None, "asc", "desc"):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"sort: {order!r} is neither 'asc' nor 'desc'")
    return order


# --- The feeds ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Query:
    """What a feed is asked for. `notifications` are indices into `Account.notifications`."""

    kinds: Sequence[Kind]
    notifications: Sequence[int]
    published: Window
    sent: Window | None
    sort: str | None


class _Feeds:
    """The endpoints."""

    def __init__(self, population: Population, now: Callable[[], datetime]) -> None:
        self._population = population
        self._renderer = Renderer(population)
        self._now = now
        self._numbers = {sent.id: number for number, sent in enumerate(population.account.notifications)}

    async def notifications(self, request: Request) -> Response:
        return JSONResponse(
            [
                {"id": sent.id, "name": sent.name, "type": "application"}
                for sent in self._population.account.notifications
            ]
        )

    async def reactivities(self, request: Request) -> Response:
        feed = request.path_params.get("feed")
        if feed is not None and feed not in REACTIVITIES:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"No feed {feed!r}: there are {', '.join(REACTIVITIES)}")
        kinds = list(REACTIVITIES.values()) if feed is None else [REACTIVITIES[feed]]
        published = _window(request, "reactivityStart", "reactivityEnd")
        sent = _window(request, "activationStart", "activationEnd")
        return self._answer(request, kinds, published, None if sent == _ALWAYS else sent)

    async def activations(self, request: Request) -> Response:
        return self._answer(request, [Kind.ACTIVATION], _window(request, "start", "end"), None)

    def _answer(self, request: Request, kinds: Sequence[Kind], published: Window, sent: Window | None) -> Response:
        existing = Window(self._population.first_day * DAY, (self._now() - _EPOCH) // timedelta(milliseconds=1) + 1)
        query = _Query(kinds, self._notifications(request), published.within(existing), sent, _sort(request))
        return StreamingResponse(self._stream(query), media_type="application/json")

    def _notifications(self, request: Request) -> list[int]:
        asked: int | None = request.path_params.get("id")
        if asked is None:
            return list(self._numbers.values())
        if asked not in self._numbers:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"No notification {asked}")
        return [self._numbers[asked]]

    def _stream(self, query: _Query) -> Iterator[bytes]:
        """The JSON array, in chunks; one day's events, as numbers, are in memory at a time."""
        opening = b"["
        for events in self._days(query):
            for first in range(0, len(events), CHUNK_EVENTS):
                chunk = self._renderer.render(events[first : first + CHUNK_EVENTS])
                yield opening + chunk.removeprefix(b",") if opening else chunk
                opening = b""
        yield opening + b"]"

    def _days(self, query: _Query) -> Iterator[Events]:
        """The events of each day of the query, in the order asked for, or in no order."""
        days = np.array(_possible(query).days(), dtype=np.int64)
        shuffle = np.random.default_rng()
        if query.sort is None:
            shuffle.shuffle(days)
        for day in (days[::-1] if query.sort == "desc" else days).tolist():
            window = query.published.within(Window(day * DAY, (day + 1) * DAY))
            events = self._population.published(query.kinds, query.notifications, window, query.sent)
            if query.sort is None:
                shuffle.shuffle(events)
            yield events[::-1] if query.sort == "desc" else events


def _possible(query: _Query) -> Window:
    """The part of the window in which the sends asked for can have an event."""
    if query.sent is None:
        return query.published
    latest = max(DAYS_AFTER[kind] for kind in query.kinds)
    return query.published.within(Window(query.sent.start, query.sent.end + (latest + 1) * DAY))
