"""What the tests of this folder share: an account, requests, and a receiver that keeps everything."""

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
from np6_assets_tests.support.events import DAY_MS, Event, Population, RawEvent, build_event, build_population, render
from np6_assets_tests.support.oracle import find_reason, read_event_time
from np6_assets_tests.support.rude_server import RudeServer

HITS = "/notifications/reactivities/hits"
OPTOUTS = "/notifications/reactivities/optouts"
DAY = date(2026, 3, 20)
START = round(datetime(2026, 3, 20, tzinfo=UTC).timestamp() * 1000)
KEY = "s3cret-key-of-the-account"
HASTE = RetryPolicy(retries=4, backoff=0.001, longest_wait=0.01)


def _only_hits(account: Population) -> Population:
    rng = random.Random("styles")
    hits: list[Event] = [RawEvent(one, render(one, rng).encode()) for one in account.hits]
    misfits = [one for one in account.misfits if one.kind == "hits"]
    return Population(notifications=account.notifications, hits=hits, misfits=misfits)


ACCOUNT = _only_hits(build_population(7, DAY, 2, sends_per_day=12, lead_days=1, misfit_days=[DAY]))
"""Hits of a few days from DAY on, with all that is odd about single events on DAY itself."""


class Collector:
    """A receiver that keeps every element, in the order in which it came."""

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
        """Times in the window of the events that would be stored."""
        times = [_time_of(text) for text in map(canonical, self.elements) if _is_stored(text)]
        return [time for time in times if time is not None and self.request.start <= time < self.request.end]

    @property
    def distinct(self) -> set[str]:
        """Every element of the window once, whatever it is, as text."""
        return self.inside(self.request)

    def inside(self, request: Request) -> set[str]:
        """Every element of a request's window, and every one without a time, once."""
        times = {text: _time_of(text) for text in map(canonical, self.elements)}
        return {text for text, time in times.items() if time is None or request.start <= time < request.end}


@cache
def _time_of(text: str) -> int | None:
    return read_event_time(json.loads(text))


@cache
def _is_stored(text: str) -> bool:
    return find_reason("hits", json.loads(text)) is None


class Collectors:
    """Opens collectors for a request, and remembers them."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.opened: list[Collector] = []

    def __call__(self) -> Collector:
        self.opened.append(Collector(self.request))
        return self.opened[-1]

    @property
    def states(self) -> list[str]:
        return [one.state for one in self.opened]


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def day_request(number: int = 0, days: int = 1, path: str = HITS) -> Request:
    """Some days, from the `number`th after START on."""
    edges = tuple(START + day * DAY_MS for day in range(number, number + days + 1))
    return Request(path, "reactivityStart", "reactivityEnd", edges)


def whole_day(account: Population | None = None) -> set[str]:
    """What `day_request()` asks for."""
    return expected(day_request(), account)


def expected(request: Request, account: Population | None = None) -> set[str]:
    """What a request for hits asks for, worked out from the population."""
    return _expected_of_account(request) if account is None else _expected(request, account)


@cache
def _expected_of_account(request: Request) -> set[str]:
    return _expected(request, ACCOUNT)


def _expected(request: Request, account: Population) -> set[str]:
    events = [one for one in account.hits if request.start <= (read_event_time(one) or 0) < request.end]
    odd = [one.event for one in account.misfits if request.start <= one.placed_ms < request.end]
    return {canonical(one) for one in [*events, *odd]}


def fetch(client: NP6Client, request: Request | None = None) -> Collector:
    """The finished receiver of a request for a single day."""
    request = request or day_request()
    [answer] = client.fetch(request, partial(Collector, request))
    assert answer.error is None, answer.error
    assert answer.request == request
    assert answer.receiver is not None
    assert answer.receiver.state == "finished"
    return answer.receiver


def failure(client: NP6Client, what: str) -> BaseException:
    """What a request ends with: one for a day, one for the list, or a probe."""
    try:
        if what == "list":
            client.get_list("/notifications")
        elif what == "probe":
            client.has_events(day_request())
        else:
            [answer] = client.fetch(day_request(), Collectors(day_request()))
            assert answer.receiver is None
            assert answer.error is not None
            return answer.error
    except NP6Error as error:
        return error
    raise AssertionError("it did not fail")


def fetch_all(
    client: NP6Client,
    requests: Iterable[Request],
    opened: Callable[[Request], Callable[[], Collector]] = Collectors,
) -> list[list[Answer[Collector]]]:
    """The answers to all requests."""
    with closing(client.fetch_all((request, opened(request)) for request in requests)) as answers:
        return list(answers)


def simple(*times: int, kind: str = "hits", **fields: Any) -> Population:
    """Events at these milliseconds of the day, called by their places."""
    made = Population(notifications=[{"id": 156}])
    for place, ms in enumerate(times):
        made.feed(kind).append(rendered(build_event(kind, id=f"{place}", timestamp=START + ms, **fields)))
    return made


def rendered(one: Event) -> RawEvent:
    """The event with its bytes, as servers take their time to render many."""
    return RawEvent(one, render(one).encode())


def starts(server: RudeServer, sort: str = "asc") -> list[int]:
    """Where the windows that the server was asked for start, in milliseconds from START."""
    asked = [request.query for request in server.list_requests(HITS)]
    return [int(query["reactivityStart"]) - START for query in asked if query["sort"] == sort]


def all_text(error: BaseException) -> str:
    """Everything that a failure shows, and everything that hangs on it."""
    shown = "".join(traceback.format_exception(error))
    seen: BaseException | None = error
    while seen is not None:
        shown += f"{seen} {seen!r} {seen.args}"
        seen = seen.__cause__ or seen.__context__
    return shown


def with_retries(retries: int) -> RetryPolicy:
    return replace(HASTE, retries=retries)
