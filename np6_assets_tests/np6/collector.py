"""Shared code of the client's tests: an account, requests, and a receiver that keeps everything."""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache, partial
from typing import Any

from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import BadResponseError, NP6Error
from np6_assets.np6.request import Answer, Request
from np6_assets.np6.retry import RetryPolicy
from np6_assets.np6.stream import Part
from np6_assets_tests.support.events import (
    DAY_MS,
    Event,
    Population,
    RawEvent,
    build_event,
    build_population,
    dump_json,
    render,
)
from np6_assets_tests.support.oracle import find_reason, read_event_time
from np6_assets_tests.support.rude_server import RudeServer

HITS = "/notifications/reactivities/hits"
OPTOUTS = "/notifications/reactivities/optouts"
DAY = date(2026, 3, 20)
START = round(datetime(2026, 3, 20, tzinfo=UTC).timestamp() * 1000)
KEY = "s3cret-key-of-the-account"
FAST_RETRY = RetryPolicy(retries=4, backoff=0.001, longest_wait=0.01)


def _select_hits(account: Population) -> Population:
    rng = random.Random("styles")
    hits: list[Event] = [RawEvent(one, render(one, rng).encode()) for one in account.hits]
    misfits = [one for one in account.misfits if one.kind == "hits"]
    return Population(notifications=account.notifications, hits=hits, misfits=misfits)


ACCOUNT = _select_hits(build_population(7, DAY, 2, sends_per_day=12, lead_days=1, misfit_days=[DAY]))
"""Hits of a few days from DAY on, with every rejected event on DAY."""


class Collector:
    """A receiver that keeps all elements in the order of arrival."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.elements: list[Any] = []
        self.sizes: list[int] = []
        self.state = "open"
        self.is_resumed = False

    def add(self, part: Part) -> None:
        assert self.state == "open"
        with closing(part):
            body = part.read()
        self.sizes.append(part.size)
        try:
            self.elements += json.loads(b"[%b]" % body, strict=False)
        except ValueError:
            raise BadResponseError("the part is not JSON") from None

    def resume_from(self) -> tuple[int, int] | None:
        self.is_resumed = True
        times = self._times()
        return (times[0], times[-1]) if times and times == sorted(times) else None

    def finish(self) -> None:
        if self.is_resumed and (times := self._times()) != sorted(times):
            raise BadResponseError("the answer was resumed, and is not sorted")
        self.state = "finished"

    def discard(self) -> None:
        self.state = "discarded"

    def _times(self) -> list[int]:
        """Return the times of the window's events that are not rejected."""
        times = [_read_time(text) for text in map(dump_json, self.elements) if _is_stored(text)]
        return [time for time in times if time is not None and self.request.start <= time < self.request.end]

    @property
    def window_elements(self) -> set[str]:
        """Return the distinct elements of the window, as texts."""
        return self.select_elements(self.request)

    def select_elements(self, request: Request) -> set[str]:
        """Return the distinct elements of a request's window, and those without a time."""
        times = {text: _read_time(text) for text in map(dump_json, self.elements)}
        return {text for text, time in times.items() if time is None or request.start <= time < request.end}


@cache
def _read_time(text: str) -> int | None:
    return read_event_time(json.loads(text))


@cache
def _is_stored(text: str) -> bool:
    return find_reason("hits", json.loads(text)) is None


class Collectors:
    """Opens collectors for a request, and keeps them."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.opened: list[Collector] = []

    def __call__(self) -> Collector:
        self.opened.append(Collector(self.request))
        return self.opened[-1]

    @property
    def states(self) -> list[str]:
        return [one.state for one in self.opened]


def build_request(number: int = 0, days: int = 1, path: str = HITS) -> Request:
    """Build a request for some days, from the `number`th after START on."""
    edges = tuple(START + day * DAY_MS for day in range(number, number + days + 1))
    return Request(path, "reactivityStart", "reactivityEnd", edges)


def expect_day(account: Population | None = None) -> set[str]:
    """Return the expected elements of `build_request()`."""
    return expect_elements(build_request(), account)


def expect_elements(request: Request, account: Population | None = None) -> set[str]:
    """Return the expected elements of a request for hits."""
    return _expect_account_elements(request) if account is None else _expect_elements(request, account)


@cache
def _expect_account_elements(request: Request) -> set[str]:
    return _expect_elements(request, ACCOUNT)


def _expect_elements(request: Request, account: Population) -> set[str]:
    events = [one for one in account.hits if request.start <= (read_event_time(one) or 0) < request.end]
    odd = [one.event for one in account.misfits if request.start <= one.placed_ms < request.end]
    return {dump_json(one) for one in [*events, *odd]}


def fetch(client: NP6Client, request: Request | None = None) -> Collector:
    """Fetch a single day and return the finished receiver."""
    request = request or build_request()
    [answer] = client.fetch(request, partial(Collector, request))
    assert answer.error is None, answer.error
    assert answer.request == request
    assert answer.receiver is not None
    assert answer.receiver.state == "finished"
    return answer.receiver


def fetch_failure(client: NP6Client, what: str) -> BaseException:
    """Return the error of a fetch of a day, of the list, or of a probe."""
    try:
        if what == "list":
            client.get_list("/notifications")
        elif what == "probe":
            client.has_events(build_request())
        else:
            [answer] = client.fetch(build_request(), Collectors(build_request()))
            assert answer.receiver is None
            assert answer.error is not None
            return answer.error
    except NP6Error as error:
        return error
    raise AssertionError("no error")


def fetch_all(
    client: NP6Client,
    requests: Iterable[Request],
    opened: Callable[[Request], Callable[[], Collector]] = Collectors,
) -> list[list[Answer[Collector]]]:
    """Fetch all requests and return their answers."""
    with closing(client.fetch_all((request, opened(request)) for request in requests)) as answers:
        return list(answers)


def build_account(*times: int, kind: str = "hits", **fields: Any) -> Population:
    """Build events at these milliseconds of the day; their ids are their places."""
    account = Population(notifications=[{"id": 156}])
    for place, ms in enumerate(times):
        account.feed(kind).append(render_once(build_event(kind, id=f"{place}", timestamp=START + ms, **fields)))
    return account


def render_once(one: Event) -> RawEvent:
    """Render the event once, which is faster than by each server."""
    return RawEvent(one, render(one).encode())


def list_starts(server: RudeServer, sort: str = "asc") -> list[int]:
    """List the starts of the requested windows, in milliseconds from START."""
    queries = [request.query for request in server.list_requests(HITS)]
    return [int(query["reactivityStart"]) - START for query in queries if query["sort"] == sort]


def format_chain(error: BaseException) -> str:
    """Format an error with its traceback and all causes."""
    text = "".join(traceback.format_exception(error))
    current: BaseException | None = error
    while current is not None:
        text += f"{current} {current!r} {current.args}"
        current = current.__cause__ or current.__context__
    return text


def with_retries(retries: int) -> RetryPolicy:
    return replace(FAST_RETRY, retries=retries)
