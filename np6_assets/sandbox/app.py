"""The NP6 API over a simulated account: endpoints, filters, key check, rate limit, gzip.

Where the API's reference leaves a choice: errors have a JSON body with a `message`, `X-RateLimit-Reset` is an epoch
time, and `Retry-After` is sent.
"""

import hmac
import math
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import product
from operator import itemgetter
from typing import TypeVar
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .behaviour import DAY, DAYS_AFTER, simulate
from .population import Account, SimulatedNotification
from .rendering import render

REACTIVITIES = {"hits": "hit", "optouts": "optout", "bounces": "bounce", "impressions": "impression"}
"""The reactivity feeds, and the type of the events in each."""

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def create_app(
    account: Account,
    *,
    api_key: str | None,
    now: Callable[[], datetime],
    requests_per_minute: int | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Build the API of `account` at the time that `now` returns; what is later does not exist yet.

    Args:
        account: The account to simulate.
        api_key: What `X-Key` must be; None to let everyone in.
        now: The simulated time, with a timezone; asked once for each request.
        requests_per_minute: Requests with the right key beyond which the answer is 429; None for no limit.
        clock: Seconds since epoch, for the rate limit alone: not `now`, because a client waits in real time.
    """
    feeds = _Feeds(account, now)
    rate_limit = _RateLimit(requests_per_minute, clock)

    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        limits: dict[str, str] = {}
        given = request.headers.get("x-key", "").encode("latin-1")  # the bytes, which Starlette decodes so
        if api_key is not None and not hmac.compare_digest(given, api_key.encode()):
            response = _build_error(HTTPStatus.UNAUTHORIZED, "X-Key is missing or wrong")
        elif "Retry-After" in (limits := rate_limit.count()):
            message = f"More than {requests_per_minute} requests in a minute: back off, then try again"
            response = _build_error(HTTPStatus.TOO_MANY_REQUESTS, message)
        else:
            response = await call_next(request)
        response.headers.update({"x-request-id": str(uuid4()), **limits})
        return response

    return Starlette(
        routes=[
            Route("/notifications", feeds.notifications),
            Route("/notifications/reactivities", feeds.reactivities),
            Route("/notifications/reactivities/{feed}", feeds.reactivities),
            Route("/notifications/{id:int}/reactivities/{feed}", feeds.reactivities),
            Route("/notifications/{id:int}/events/activations", feeds.activations),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=guard),
            # Level 1: the text is so repetitive that higher levels cost much and gain little.
            Middleware(GZipMiddleware, compresslevel=1),
        ],
        exception_handlers={HTTPException: _handle_error},
    )


class _RateLimit:
    """Allows so many requests in a minute, which begins with its first request."""

    def __init__(self, limit: int | None, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._reset = -math.inf
        self._used = 0

    def count(self) -> dict[str, str]:
        """Count a request and return the headers of its response; with `Retry-After`, it is one too many."""
        if self._limit is None:
            return {}
        now = self._clock()
        if now >= self._reset:
            self._reset, self._used = now + 60, 0
        self._used += 1
        headers = {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(max(self._limit - self._used, 0)),
            "X-RateLimit-Reset": str(math.ceil(self._reset)),
        }
        return headers if self._used <= self._limit else {**headers, "Retry-After": str(math.ceil(self._reset - now))}


def _build_error(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status)


def _handle_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _build_error(error.status_code, error.detail)


def _parse_time(text: str) -> int:
    """Parse an ISO 8601 time (UTC by default) or ms to ms since the epoch, rounded up. Raises ValueError."""
    if re.fullmatch(r"-?[0-9]{1,15}", text):
        return int(text)
    time = datetime.fromisoformat(text)
    return -((_EPOCH - (time if time.tzinfo else time.replace(tzinfo=UTC))) // _MS)


def _read_window(request: Request, start: str, end: str, within: range) -> range:
    """Read the window from two query parameters, in ms since the epoch, cut to the range `within`."""
    times = {start: within.start, end: within.stop}
    for name in times.keys() & request.query_params.keys():
        text = request.query_params[name]
        try:
            times[name] = _parse_time(text)
        except ValueError as error:
            wanted = "an ISO 8601 date or a number of milliseconds since 1970-01-01T00:00:00Z"
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name}: {text!r} is not {wanted}") from error
    return _intersect(range(times[start], times[end]), within)


def _intersect(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _list_days(window: range) -> range:
    """List the UTC days, counted from 1970-01-01, that overlap a window."""
    return range(window.start // DAY, -(-window.stop // DAY)) if window else range(0)


class _Feeds:
    """The endpoints."""

    def __init__(self, account: Account, now: Callable[[], datetime]) -> None:
        self._account = account
        self._now = now

    async def notifications(self, request: Request) -> Response:
        listed = [{"id": one.id, "name": one.name, "type": "application"} for one in self._account.notifications]
        return JSONResponse(listed)

    async def reactivities(self, request: Request) -> Response:
        feed = request.path_params.get("feed")
        if feed is not None and feed not in REACTIVITIES:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"No feed {feed!r}: there are {', '.join(REACTIVITIES)}")
        types = list(REACTIVITIES.values()) if feed is None else [REACTIVITIES[feed]]
        existing = self._existing()
        sent = _read_window(request, "activationStart", "activationEnd", existing)
        return self._answer(request, types, _read_window(request, "reactivityStart", "reactivityEnd", existing), sent)

    async def activations(self, request: Request) -> Response:
        existing = self._existing()
        return self._answer(request, ["activation"], _read_window(request, "start", "end", existing), existing)

    def _existing(self) -> range:
        """From the account's first day on, in ms since epoch, up to now."""
        start = datetime.combine(self._account.first_day, datetime.min.time(), UTC)
        return range((start - _EPOCH) // _MS, (self._now() - _EPOCH) // _MS + 1)

    def _answer(self, request: Request, types: Sequence[str], published: range, sent: range) -> Response:
        """Answer with the events that were published and whose activations were sent in two windows, in ms."""
        asked = request.path_params.get("id")
        notifications = [one for one in self._account.notifications if asked in (None, one.id)]
        if not notifications:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"No notification {asked}")
        order = request.query_params.get("sort")
        if order not in (None, "asc", "desc"):
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"sort: {order!r} is neither 'asc' nor 'desc'")
        latest = sent.stop + max(DAYS_AFTER[type] for type in types) * DAY
        feeds = list(product(types, notifications))

        async def stream() -> AsyncIterator[str]:
            opening = "["
            for day in _in_order(_list_days(_intersect(published, range(latest))), int, order):
                # one day's text is in memory at a time
                found = _in_order(self._list_events(feeds, day, published, sent), itemgetter(0), order)
                if found:
                    yield opening + ",".join(text for _, text in found)
                    opening = ","
            yield "[]" if opening == "[" else "]"

        return StreamingResponse(stream(), media_type="application/json")

    def _list_events(
        self, feeds: Iterable[tuple[str, SimulatedNotification]], day: int, published: range, sent: range
    ) -> Iterator[tuple[int, str]]:
        """Yield time and text of the requested events that are published on a UTC day."""
        published = _intersect(published, range(day * DAY, (day + 1) * DAY))
        for type, notification in feeds:
            for send_day in _intersect(_list_days(sent), range(day - DAYS_AFTER[type], day + 1)):
                sends = simulate(self._account, notification, send_day)
                for event in sends.events[type]:
                    time, number, *_ = event
                    if time in published and sends.times[number] in sent:
                        yield time, render(self._account, sends, type, event)


def _in_order(values: Iterable[T], time: Callable[[T], int], order: str | None) -> list[T]:
    """Sort values by time; in a random order if none is requested."""
    if order is not None:
        return sorted(values, key=time, reverse=order == "desc")
    shuffled = list(values)
    random.shuffle(shuffled)
    return shuffled
