"""Shared code of the client's tests: an account and its server, requests, and a receiver that keeps everything."""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from functools import cache, partial
from typing import Any

import pytest

from np6_assets.np6 import client as client_module
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import BadResponseError, NP6Error
from np6_assets.np6.request import Answer, Request
from np6_assets.np6.retry import RetryPolicy
from np6_assets.np6.stream import Part, PartWriter
from np6_assets_tests.support.events import (
    DAY_MS,
    Event,
    Population,
    RawEvent,
    build_event,
    build_population,
    dump_json,
)
from np6_assets_tests.support.events import render as render_json
from np6_assets_tests.support.oracle import find_reason, read_event_time
from np6_assets_tests.support.rude_server import RudeServer

HITS = "/notifications/reactivities/hits"
OPTOUTS = "/notifications/reactivities/optouts"
DAY = date(2026, 3, 20)
START = round(datetime(2026, 3, 20, tzinfo=UTC).timestamp() * 1000)
KEY = "s3cret-key-of-the-account"


def render(one: Event, rng: random.Random | None = None) -> RawEvent:
    """Render the event once, which is faster than by each server."""
    return RawEvent(one, render_json(one, rng).encode())


def _select_hits(account: Population) -> Population:
    rng = random.Random("styles")
    bad_events = [one for one in account.bad_events if one.kind == "hits"]
    return Population(account.notifications, hits=[render(one, rng) for one in account.hits], bad_events=bad_events)


ACCOUNT = _select_hits(build_population(7, DAY, 2, sends_per_day=12, lead_days=1, bad_event_days=[DAY]))
"""Hits of a few days from DAY on, with every rejected event on DAY."""


def build_account(*times: int, kind: str = "hits", **fields: Any) -> Population:
    """Build events at these milliseconds of the day; their ids are their places."""
    events = [build_event(kind, id=f"{place}", timestamp=START + ms, **fields) for place, ms in enumerate(times)]
    return Population(notifications=[{"id": 156}], **{kind: list(map(render, events))})


@contextmanager
def serve(
    account: Population = ACCOUNT,
    server_type: type[RudeServer] = RudeServer,
    *,
    retries: int = 4,
    backoff: float = 0.001,
    longest_wait: float = 0.01,
    **options: Any,
) -> Iterator[tuple[Any, NP6Client]]:
    """Serve an account; yield the server and its client."""
    retry = RetryPolicy(retries, backoff, longest_wait)
    with (
        server_type(account, key=KEY, seed=3) as server,
        closing(NP6Client(server.url, KEY, retry=retry, **options)) as client,
    ):
        yield server, client


def build_request(number: int = 0, days: int = 1, path: str = HITS) -> Request:
    """Build a request for some days, from the `number`th after START on."""
    edges = tuple(START + day * DAY_MS for day in range(number, number + days + 1))
    return Request(path, "reactivityStart", "reactivityEnd", edges)


def expect_elements(account: Population = ACCOUNT, request: Request | None = None) -> set[str]:
    """Return the expected elements of a request for hits, by default that for DAY, as texts."""
    request = request or build_request()
    events = [one for one in account.hits if request.start <= (read_event_time(one) or 0) < request.end]
    odd = [one.event for one in account.bad_events if request.start <= one.placed_ms < request.end]
    return {dump_json(one) for one in [*events, *odd]}


class Collector:
    """A receiver that keeps all elements in the order of arrival."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.elements: list[Any] = []
        self.texts: list[str] = []
        self.part_count = 0
        self.state = "open"
        self.is_resumed = False

    def add(self, part: Part) -> None:
        assert self.state == "open"
        self.part_count += 1
        with closing(part):
            body = part.read()
        try:
            elements = json.loads(b"[%b]" % body, strict=False)
        except ValueError:
            raise BadResponseError("the part is not JSON") from None
        self.elements += elements
        self.texts += map(dump_json, elements)

    def resume_from(self) -> tuple[int, int] | None:
        self.is_resumed = True
        times = self._list_times()
        return (times[0], times[-1]) if times and times == sorted(times) else None

    def finish(self) -> None:
        if self.is_resumed and (times := self._list_times()) != sorted(times):
            raise BadResponseError("the answer was resumed, and is not sorted")
        self.state = "finished"

    def discard(self) -> None:
        self.state = "discarded"

    def _list_times(self) -> list[int]:
        """List the times of the window's events that are not rejected."""
        times = [_read_time(text) for text in self.texts if _is_stored(text)]
        return [time for time in times if time is not None and self.request.start <= time < self.request.end]

    def select_elements(self, request: Request | None = None) -> set[str]:
        """Return the distinct elements of a window, by default the requested one, and those without a time."""
        start, end = (request or self.request).start, (request or self.request).end
        times = {text: _read_time(text) for text in self.texts}
        return {text for text, time in times.items() if time is None or start <= time < end}


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
    collectors = Collectors(build_request())
    try:
        if what == "list":
            client.get_list("/notifications")
        elif what == "probe":
            client.has_events(build_request())
        else:
            [answer] = client.fetch(build_request(), collectors)
            assert answer.receiver is None
            assert answer.error is not None
            return answer.error
    except NP6Error as error:
        return error
    finally:
        assert set(collectors.states) <= {"discarded"}
    raise AssertionError("no error")


def fetch_all(
    client: NP6Client,
    requests: Iterable[Request],
    opened: Callable[[Request], Callable[[], Collector]] = Collectors,
) -> list[list[Answer[Collector]]]:
    """Fetch all requests and return their answers."""
    with closing(client.fetch_all((request, opened(request)) for request in requests)) as answers:
        return list(answers)


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


class _SmallPartWriter(PartWriter):
    """Writes parts of a few events."""

    def __init__(self, hand_over: Callable[[Part], None]) -> None:
        super().__init__(hand_over, part_bytes=4000)

    def feed(self, chunk: bytes) -> None:
        for place in range(0, len(chunk), 500):
            super().feed(chunk[place : place + 500])


def write_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client write parts of a few events."""
    monkeypatch.setattr(client_module, "PartWriter", _SmallPartWriter)
