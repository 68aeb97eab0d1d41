"""The client against a real loopback server that misbehaves: it gets everything, once, or says why it cannot."""

import email.utils
import json
import logging
import os
import tempfile
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from np6_assets.np6 import client as client_module
from np6_assets.np6.client import NP6Client, Request, asked_wait
from np6_assets.np6.errors import BadResponseError, CancelledError, PermanentError, RetriesUsedUpError
from np6_assets.np6.retry import Retry
from np6_assets.np6.spool import Part, Spool
from np6_assets_tests.support.events import DAY_MS, Misfit, Population, event, population
from np6_assets_tests.support.rude_server import (
    BROKEN,
    CUT,
    INCOMPLETE,
    ODD_BUT_WHOLE,
    PERMANENT,
    RATE_LIMITS,
    SERVER_ERRORS,
    STALLS,
    Act,
    RudeServer,
)

HITS = "/notifications/reactivities/hits"
DAY = date(2026, 3, 20)
START = round(datetime(2026, 3, 20, tzinfo=UTC).timestamp() * 1000)
HASTE = Retry(retries=4, backoff=0.001, longest_wait=0.01)
ACCOUNT = population(7, DAY, 2, sends_per_day=40, misfit_days=[DAY])
FITTING = {one["id"] for one in ACCOUNT.hits}
KEY = "s3cret-key-of-the-account"


class Collector:
    """A sink that keeps every element, in the order in which it came."""

    def __init__(self) -> None:
        self.elements: list[Any] = []
        self.sizes: list[int] = []
        self.resumed: bool | None = None
        self.abandoned = False

    def add(self, part: Part) -> None:
        body = Path(part.path).read_bytes()
        part.close()
        self.sizes.append(len(body))
        try:
            self.elements += json.loads(body, strict=False)
        except ValueError:
            raise BadResponseError("the part is not JSON") from None

    def finish(self, *, resumed: bool) -> None:
        self.resumed = resumed
        times = [one["timestamp"] for one in self.elements if isinstance(one, dict) and one.get("id") in FITTING]
        if resumed and times != sorted(times):
            raise BadResponseError("it was cut, and it is not sorted")

    def abandon(self) -> None:
        self.abandoned = True

    @property
    def distinct(self) -> set[str]:
        """Every element once, whatever it is, as text."""
        return {canonical(one) for one in self.elements}


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def day_request(number: int = 0, path: str = HITS) -> Request:
    return Request(path, "reactivityStart", "reactivityEnd", START + number * DAY_MS, START + (number + 1) * DAY_MS)


def expected(request: Request, account: Population = ACCOUNT) -> set[str]:
    """What a request asks for, worked out from the population."""
    fitting = [one for one in account.hits if request.start <= one["timestamp"] < request.end]
    odd = [one.event for one in account.misfits if one.kind == "hits" and request.start <= one.placed_ms < request.end]
    return {canonical(one) for one in [*fitting, *odd]}


def fetched(
    client: NP6Client,
    requests: list[Request],
    open_sink: Callable[[Request], Collector] = lambda request: Collector(),
) -> list[Collector]:
    """The finished sinks of all requests, or what is raised on the way to them."""
    with closing(client.fetch_all(requests, open_sink)) as answers:
        return [finished() for finished in answers]


@pytest.fixture(scope="module")
def module_server() -> Iterator[RudeServer]:
    with RudeServer(ACCOUNT, key=KEY, seed=3) as running:
        yield running


@pytest.fixture
def server(module_server: RudeServer) -> RudeServer:
    module_server.behave()
    with module_server.lock:
        module_server.requests.clear()
        module_server.peak_in_flight = 0
    return module_server


@pytest.fixture
def client(server: RudeServer) -> Iterator[NP6Client]:
    made = NP6Client(server.url, KEY, timeout=5, retry=HASTE)
    yield made
    made.close()


def test_an_answer_as_it_comes_whatever_its_status() -> None:
    with RudeServer(ACCOUNT, key=KEY) as server, closing(NP6Client(server.url, KEY)) as client:
        server.script("/notifications", "503", None)
        with client.open("/notifications", {}) as response:
            assert response.status_code == 503
            assert "answered 503" in str(client.refusal("/notifications", response))
        with client.open("/notifications", {}) as response:
            assert client.refusal("/notifications", response) is None
            assert len(json.loads(response.read())) == len(ACCOUNT.notifications)
        assert (client.traffic.requests, client.traffic.retries) == (2, 0)
        assert client.traffic.bytes > 0


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few events, for all that a socket brings many at once."""

    class SmallSpool(Spool):
        def __init__(self, hand_over: Callable[[Part], None]) -> None:
            super().__init__(hand_over, part_bytes=4000)

        def feed(self, chunk: bytes) -> None:
            for place in range(0, len(chunk), 500):
                super().feed(chunk[place : place + 500])

    monkeypatch.setattr(client_module, "Spool", SmallSpool)


def starts(server: RudeServer) -> list[int]:
    """Where the windows that the server was asked for started, in milliseconds from START."""
    return [int(request.query["reactivityStart"]) - START for request in server.asked(HITS)]


# --- what is asked ------------------------------------------------------------------------------------------------


def test_it_asks_for_a_half_open_window_oldest_first(server, client):
    sink = client.fetch(day_request(), Collector)
    assert sink.distinct == expected(day_request())
    assert sink.resumed is False
    [asked] = server.requests
    assert asked.query == {"reactivityStart": str(START), "reactivityEnd": str(START + DAY_MS), "sort": "asc"}
    assert asked.headers["x-key"] == KEY
    assert {"gzip", "zstd"} <= {name.strip() for name in asked.headers["accept-encoding"].split(",")}


def test_gzip_zstd_and_plain_bodies_are_read_alike(server, client):
    wanted = expected(day_request())
    sizes = set()
    for _ in range(12):  # the server picks an encoding and a transport for each
        assert client.fetch(day_request(), Collector).distinct == wanted
        sizes.add(server.requests[-1].bytes_sent // 2000)
    assert len(sizes) > 1  # some were compressed
    assert client.traffic.requests == 12
    assert client.traffic.bytes == pytest.approx(sum(request.bytes_sent for request in server.requests))


def test_the_parameters_are_named_as_the_endpoint_names_them(server, client):
    number = ACCOUNT.notifications[0]["id"]
    path = f"/notifications/{number}/events/activations"
    sink = client.fetch(Request(path, "start", "end", START, START + DAY_MS), Collector)
    assert sink.distinct >= {
        canonical(one)
        for one in ACCOUNT.activations
        if one["source"]["detail"]["activation"]["id"] == number and START <= one["timestamp"] < START + DAY_MS
    }
    assert server.requests[-1].query == {"start": str(START), "end": str(START + DAY_MS), "sort": "asc"}


def test_an_empty_window_is_an_empty_array(server, client):
    sink = client.fetch(day_request(300), Collector)
    assert (sink.elements, sink.resumed) == ([], False)


# --- what passes --------------------------------------------------------------------------------------------------

PASSING = (*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, *ODD_BUT_WHOLE, "shuffled and cut")


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("parts", ["one part", "many parts"])
def test_it_gets_over_what_passes(server, client, request, name, parts):
    if parts == "many parts":
        request.getfixturevalue("small_parts")
    wanted = expected(day_request())
    for at in (0.0, 0.2, 0.4, 1.0) if name.startswith(("cut ", "reset in")) else (0.4,):
        before = len(server.requests)
        server.script(HITS, Act(name, at=at))
        sink = client.fetch(day_request(), Collector)
        assert sink.distinct == wanted
        assert sum(size > 2 for size in sink.sizes) > (10 if parts == "many parts" else 0)
        made = server.requests[before:]
        assert made[0].done == name
        assert {one.done for one in made[1:]} <= {"ok"}
        # An event without a time before the cut leaves nothing to go on from, and neither does an unsorted answer.
        assert len(made) == (1 if name in ODD_BUT_WHOLE else 2) or (name == "shuffled and cut" and len(made) == 3)


@pytest.mark.parametrize("name", [*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE])
def test_the_list_of_notifications_is_got_whole(server, client, name):
    server.script("/notifications", Act(name, at=0.5))
    assert client.get_list("/notifications") == ACCOUNT.notifications
    assert [one.done for one in server.requests] == [name, "ok"]


@pytest.mark.parametrize("seed", range(4))
def test_failure_after_failure_loses_and_doubles_nothing(server, client, small_parts, seed):
    server.fail(0.6, seed=seed, kinds=(*PASSING, "redirect")[:-1], streak=4)
    requests = [day_request(number) for number in range(-1, 3)]
    sinks = fetched(client, requests)
    assert [sink.distinct for sink in sinks] == [expected(request) for request in requests]
    assert len(server.requests) > 6
    assert client.traffic.retries == len(server.requests) - 4


@pytest.mark.parametrize("name", STALLS)
def test_a_stalled_answer_times_out_and_is_asked_for_again(name):
    with RudeServer(ACCOUNT, key=KEY) as stalling:
        client = NP6Client(stalling.url, KEY, timeout=httpx.Timeout(5, read=0.1), retry=HASTE)
        stalling.script(HITS, name)
        assert client.fetch(day_request(), Collector).distinct == expected(day_request())
        assert [one.done for one in stalling.requests] == [name, "ok"]
        client.close()


def test_nobody_listening_is_worth_a_few_tries():
    with RudeServer() as gone:
        url = gone.url
    lines: list[str] = []
    client = NP6Client(url, KEY, timeout=1, retry=Retry(2, 0.001, 0.01), log=lines.append)
    with pytest.raises(RetriesUsedUpError, match=f"GET {HITS}.*3 tries in a row"):
        client.fetch(day_request(), Collector)
    assert len(lines) == 2
    client.close()


# --- going on where it was cut ------------------------------------------------------------------------------------


def simple(*times: int) -> Population:
    """Hits at these milliseconds of the day."""
    hits = [event("hits", id=f"hit {place}", timestamp=START + ms) for place, ms in enumerate(times)]
    return Population(notifications=[{"id": 156}], hits=hits)


def ids(sink: Collector) -> list[str]:
    return [one["id"] for one in sink.elements]


@pytest.mark.parametrize("name", ["cut length", "cut chunked", "cut close", "cut after comma", "reset in body"])
def test_a_cut_download_goes_on_from_its_last_whole_event(name):
    account = simple(*range(0, 10_000, 100))
    with RudeServer(account, key=KEY) as server:
        client = NP6Client(server.url, KEY, retry=HASTE)
        server.script(HITS, Act(name, at=0.8), Act(name, at=0.5))
        sink = client.fetch(day_request(), Collector)
        first, second, third = starts(server)
        client.close()
    # a reset may take with it what was still on its way; whatever came is kept
    assert first == 0
    if name != "reset in body":
        assert second == 7900  # in the middle of the event at 8000, or just before it
        assert third in (8800, 8900, 9000)  # half way through the 21 that are left
    assert first <= second <= third
    assert sink.resumed is True
    assert sink.distinct == expected(day_request(), account)
    # once each, but for the events that the answers share
    assert len(sink.elements) == 100 + (second > first) + (third > second)
    assert [request.events for request in server.requests] == [100 - start // 100 for start in (first, second, third)]


def test_a_long_download_that_is_cut_again_and_again_makes_its_way(small_parts):
    # more cuts than there are retries: what counts is failures in a row without progress
    account = simple(*range(0, 20_000, 100))
    with RudeServer(account, key=KEY) as server:
        client = NP6Client(server.url, KEY, retry=Retry(1, 0.001, 0.01))
        server.script(HITS, *[Act("cut chunked", at=0.3)] * 8)
        sink = client.fetch(day_request(), Collector)
        asked = starts(server)
        client.close()
    assert len(asked) == 9
    assert asked == sorted(set(asked))
    assert asked[1] >= 5800
    assert asked[-1] >= 18_000
    assert sink.distinct == expected(day_request(), account)
    assert len(sink.elements) == 200 + 8


def test_events_of_the_millisecond_at_the_cut_are_all_there():
    account = simple(*[0] * 5, *[500] * 30, *[900] * 5)  # the server orders ties as it likes
    with RudeServer(account, key=KEY, seed=5) as server:
        client = NP6Client(server.url, KEY, retry=HASTE)
        server.script(HITS, Act("cut chunked", at=0.5), Act("cut chunked", at=0.5))
        sink = client.fetch(day_request(), Collector)
        assert starts(server) == [0, 500, 500]
        client.close()
    assert sink.distinct == expected(day_request(), account)


def test_an_event_that_lies_about_its_time_does_not_lead_astray():
    # The server knows when it was published, whatever the event says: the rest of the day must not be skipped.
    account = simple(*range(0, 10_000, 100))
    for lie in (START + 3 * DAY_MS, 2**63, 5, True):
        liar = event("hits", id=f"liar {lie}", timestamp=lie)
        account.misfits[:] = [Misfit("liar", "hits", START + 4899, 156, liar)]
        with RudeServer(account, key=KEY) as server:
            client = NP6Client(server.url, KEY, retry=HASTE)
            server.script(HITS, Act("cut length", at=50.5 / 101))
            sink = client.fetch(day_request(), CollectorOfLies)
            assert starts(server) == [0, 4800]
            client.close()
        assert sink.distinct == expected(day_request(), account)
        assert canonical(liar) in sink.distinct


class CollectorOfLies(Collector):
    def finish(self, *, resumed: bool) -> None:
        self.resumed = resumed


def test_a_cut_before_the_first_whole_event_is_asked_again_in_full(server, client):
    server.script(HITS, Act("cut length", at=0.0))
    sink = client.fetch(day_request(), Collector)
    assert starts(server) == [0, 0]
    assert sink.distinct == expected(day_request())


def test_an_unsorted_answer_that_was_cut_is_fetched_anew(server, client, small_parts):
    sinks: list[Collector] = []

    def open_sink() -> Collector:
        sinks.append(Collector())
        return sinks[-1]

    server.script(HITS, Act("shuffled and cut", at=0.7))
    sink = client.fetch(day_request(), open_sink)
    assert [one.abandoned for one in sinks] == [True, False]
    assert sink is sinks[-1]
    assert starts(server)[-1] == 0
    assert (sink.resumed, sink.distinct) == (False, expected(day_request()))


# --- what does not pass -------------------------------------------------------------------------------------------

ADVICE = {"400": "NP6_START_DATE", "401": "NP6_API_KEY", "403": "right", "404": "NP6_BASE_URL"}


def all_text(error: BaseException) -> str:
    """Everything that a failure shows, and what hangs on it."""
    shown = "".join(traceback.format_exception(error))
    seen: BaseException | None = error
    while seen is not None:
        shown += f"{seen} {seen!r} {seen.args}"
        seen = seen.__cause__ or seen.__context__
    return shown


@pytest.mark.parametrize("name", PERMANENT)
@pytest.mark.parametrize("what", ["events", "list"])
def test_what_cannot_pass_fails_at_once(server, client, caplog, name, what):
    caplog.set_level(logging.DEBUG)
    path = HITS if what == "events" else "/notifications"
    server.always("/", name)
    sink = Collector()
    with pytest.raises(PermanentError) as caught:
        client.fetch(day_request(), lambda: sink) if what == "events" else client.get_list(path)
    [asked] = server.requests
    line = str(caught.value)
    assert "\n" not in line
    assert f"GET {path} answered {name} " in line
    assert asked.request_id in line
    assert ADVICE[name] in line
    assert KEY not in all_text(caught.value) + caplog.text
    assert sink.abandoned == (what == "events")


def test_a_real_wrong_key_is_not_shown(server, caplog):
    caplog.set_level(logging.DEBUG)
    client = NP6Client(server.url, "wr0ng-key", retry=HASTE)
    with pytest.raises(PermanentError, match=r"401.*x-request-id req-3-000000.*NP6_API_KEY") as caught:
        client.get_list("/notifications")
    assert "wr0ng-key" not in all_text(caught.value) + caplog.text
    assert len(server.requests) == 1
    client.close()


@pytest.mark.parametrize("key", ["two\nl1nes", "null\0byte", "cl\xe9-accent\xe9e", "t\x7fb", "l\u2028s"])
def test_a_key_that_no_header_carries_is_not_shown(server, key):
    with pytest.raises(PermanentError, match="NP6_API_KEY") as caught:
        NP6Client(server.url, key, retry=HASTE).get_list("/notifications")
    assert key not in all_text(caught.value)
    assert repr(key)[1:-1] not in all_text(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("name", ["503", "429", "cut length", "html page", "trailing comma", "reset before"])
def test_it_gives_up_after_as_many_failures_as_it_may(server, caplog, name):
    caplog.set_level(logging.DEBUG)
    lines: list[str] = []
    client = NP6Client(server.url, KEY, retry=Retry(3, 0.001, 0.01), log=lines.append)
    server.always(HITS, Act(name, at=0.0))
    sinks: list[Collector] = []
    with pytest.raises(RetriesUsedUpError) as caught:
        client.fetch(day_request(), lambda: sinks.append(Collector()) or sinks[-1])
    assert len(server.requests) == 4
    assert len(lines) == 3
    line = str(caught.value)
    assert f"GET {HITS}" in line
    assert "4 tries" in line
    assert "\n" not in line
    assert all(HITS in one for one in lines)
    assert KEY not in all_text(caught.value) + caplog.text + "".join(lines)
    assert all(sink.abandoned for sink in sinks)
    client.close()


@pytest.mark.parametrize("path", ["/notifications", HITS])
def test_no_other_host_is_asked(server, client, path):
    with RudeServer(ACCOUNT, key=KEY) as other:
        server.always(path, Act("redirect", url=other.url))
        with pytest.raises(PermanentError, match=r"302.*redirect to 127\.0\.0\.1, which is not followed.*NP6_BASE_URL"):
            client.fetch(day_request(), Collector) if path == HITS else client.get_list(path)
        assert other.requests == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["", "//127.0.0.1:1", "http://[bad", "ftp://127.0.0.1"])
def test_no_redirect_of_any_form_is_followed(server, client, where):
    server.always("/", Act("redirect", url=where))
    with pytest.raises(PermanentError, match=r"302.*not followed") as caught:
        client.get_list("/notifications")
    assert len(server.requests) == 1
    assert "\n" not in str(caught.value)
    assert KEY not in all_text(caught.value)


# --- waiting ------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 3, 20, 12, 0, 0, tzinfo=UTC)
EPOCH = 1_774_008_000  # NOW, in seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "Fri, 20 Mar 2026 12:01:30 GMT"}, 90),
        ({"Retry-After": "Friday, 20-Mar-26 12:01:30 GMT"}, 90),  # RFC 9110, 5.6.7: the two obsolete forms
        ({"Retry-After": "Fri Mar 20 12:01:30 2026"}, 90),
        ({"Retry-After": "Fri, 20 Mar 2026 11:00:00 GMT"}, 0),  # past
        ({"X-RateLimit-Reset": str(EPOCH + 45)}, 45),
        ({"X-RateLimit-Reset": str((EPOCH + 45) * 1000 + 250)}, 45.25),
        ({"X-RateLimit-Reset": "45"}, 45),
        ({"X-RateLimit-Reset": "0"}, 0),
        ({"X-RateLimit-Reset": str(EPOCH - 45)}, 0),  # past
        ({"X-RateLimit-Reset": str((EPOCH - 45) * 1000)}, 0),
        ({"X-RateLimit-Reset": "1.5"}, 1.5),
        ({"X-RateLimit-Reset": "soon"}, None),
        ({"Retry-After": "17", "X-RateLimit-Reset": "45"}, 17),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "45"}, 45),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "Fri, 20 Mar 2026 12:01:30 +99999999999999999999"}, None),
    ],
)
def test_what_the_api_asks_to_wait(headers, seconds):
    assert NOW.timestamp() == EPOCH
    assert asked_wait(httpx.Headers(headers), NOW) == seconds


HEADER_TEXTS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"-?\d{1,25}(\.\d{1,12})?", fullmatch=True),
    st.datetimes(timezones=st.just(UTC)).map(email.utils.format_datetime),
    st.from_regex(r"Fri, \d{1,3} Mar \d{1,6} \d\d:\d\d:\d\d [+-]\d{1,30}", fullmatch=True),
)


@given(HEADER_TEXTS | st.none(), HEADER_TEXTS | st.none())
@settings(max_examples=300, deadline=None)
def test_no_header_breaks_the_client(after, reset):
    headers = {"Retry-After": after, "X-RateLimit-Reset": reset}
    sent = [(name.encode(), text.encode()) for name, text in headers.items() if text is not None]
    seconds = asked_wait(httpx.Headers(sent), NOW)
    assert seconds is None or seconds >= 0
    assert 0 <= Retry().wait(1, seconds, 0.5) <= 120


def test_waits_double_with_jitter_up_to_the_longest():
    retry = Retry(retries=8, backoff=0.5, longest_wait=20)
    assert [retry.wait(failures, None, 1.0) for failures in range(1, 8)] == [0.5, 1, 2, 4, 8, 16, 20]
    assert [retry.wait(failures, None, 0.0) for failures in (1, 5, 100_000)] == [0, 0, 0]
    assert retry.wait(100_000, None, 1.0) == 20
    assert retry.wait(3, None, 0.25) == 0.5


def test_a_wait_is_at_least_what_was_asked_for_and_at_most_the_longest():
    retry = Retry(retries=8, backoff=0.5, longest_wait=20)
    assert retry.wait(1, 7, 1.0) == 7
    assert retry.wait(6, 7, 1.0) == 16
    assert retry.wait(1, 3600, 0.0) == 20


@pytest.mark.parametrize("name", [*RATE_LIMITS[1:], "503 retry-after seconds"])
def test_the_wait_asked_for_is_kept_up_to_the_longest(server, name):
    lines: list[str] = []
    client = NP6Client(server.url, KEY, retry=Retry(3, 0.001, 0.12), log=lines.append)
    server.script(HITS, Act(name, wait=3600))
    client.fetch(day_request(), Collector)
    first, second = server.requests
    assert second.started - first.started >= 0.12
    [line] = lines
    assert "in 0.1 s (1 of 3)" in line
    assert line.startswith(f"GET {HITS} answered {name[:3]} ")
    client.close()


# --- several at once ----------------------------------------------------------------------------------------------


def test_windows_are_fetched_at_once_up_to_the_limit_and_come_in_order():
    # Requests stall until as many as may are under way: they are let go when the third has come, and never a fourth.
    with RudeServer(ACCOUNT, key=KEY) as server:
        server.always(HITS, "stall before")
        client = NP6Client(server.url, KEY, timeout=20, retry=HASTE, concurrency=3)
        watcher = threading.Thread(target=_release_at, args=(server, 3))
        watcher.start()
        requests = [day_request(number) for number in range(-3, 6)]
        sinks = fetched(client, requests)
        watcher.join(10)
        client.close()
        assert server.peak_in_flight == 3
    assert [sink.distinct for sink in sinks] == [expected(request) for request in requests]


def _release_at(server: RudeServer, in_flight: int) -> None:
    arrived = threading.Event()
    for _ in range(1000):
        if server.peak_in_flight >= in_flight:
            break
        arrived.wait(0.01)
    server.behave()
    server.release()


@pytest.mark.parametrize("concurrency", [1, 2])
def test_never_more_than_the_limit(server, concurrency):
    client = NP6Client(server.url, KEY, retry=HASTE, concurrency=concurrency)
    requests = [day_request(number) for number in range(-4, 8)]
    sinks = fetched(client, requests)
    assert [sink.distinct for sink in sinks] == [expected(request) for request in requests]
    assert server.peak_in_flight <= concurrency
    assert client.traffic.requests == len(requests)
    client.close()


def test_nothing_is_fetched_far_ahead_of_its_consumer(server):
    client = NP6Client(server.url, KEY, retry=HASTE, concurrency=2)
    taken = iter([day_request(number) for number in range(100)])
    answers = client.fetch_all(taken, lambda request: Collector())
    next(answers)()
    assert next(taken).start <= day_request(2 * 2 + 1).start
    answers.close()
    client.close()
    assert len(server.requests) < 8


# One request, and others that the server has wait for ten minutes.
OPTOUTS = "/notifications/reactivities/optouts"
FIRST_AND_WAITING = [day_request(), *(day_request(number, OPTOUTS) for number in range(5))]


def test_a_consumer_that_goes_away_stops_the_downloads(server):
    sinks: list[Collector] = []
    client = NP6Client(server.url, KEY, timeout=20, retry=Retry(50, 30.0, 600.0), concurrency=2)
    server.always(OPTOUTS, Act("503 retry-after seconds", wait=600))
    answers = client.fetch_all(FIRST_AND_WAITING, lambda request: _kept(sinks))
    first = next(answers)()
    begun = time.monotonic()
    answers.close()
    assert time.monotonic() - begun < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("np6_")]
    assert all(sink.abandoned for sink in sinks if sink is not first)
    asked = len(server.requests)
    assert asked <= 4
    with pytest.raises(CancelledError):
        client.fetch(day_request(0, OPTOUTS), Collector)
    client.close()


def test_a_client_that_is_closed_stops_a_large_download(tmp_path, monkeypatch):
    body, total = _Endless.prepare(tmp_path)
    monkeypatch.setattr(client_module, "CHUNK_BYTES", 2**14)
    monkeypatch.setattr(client_module, "Spool", partial(Spool, part_bytes=2**16))
    with RudeServer(key=KEY, prepared={HITS: body}) as server:
        client = NP6Client(server.url, KEY, timeout=20, retry=HASTE)
        begun, go_on = threading.Event(), threading.Event()

        class Slow(Collector):
            def add(self, part: Part) -> None:
                part.close()
                begun.set()
                go_on.wait(20)

        failed: list[BaseException] = []

        def download() -> None:
            try:
                client.fetch(day_request(), Slow)
            except CancelledError as error:
                failed.append(error)

        thread = threading.Thread(target=download)
        thread.start()
        assert begun.wait(20)
        client.close()
        go_on.set()
        thread.join(20)
        assert len(failed) == 1
    assert server.requests[0].bytes_sent < total
    assert len(server.requests) == 1


def test_a_failure_stops_the_others_and_is_what_is_told(server):
    sinks: list[Collector] = []
    client = NP6Client(server.url, KEY, timeout=20, retry=Retry(50, 30.0, 600.0), concurrency=2)
    server.always(HITS, "403")
    server.always(OPTOUTS, Act("503 retry-after seconds", wait=600))
    with pytest.raises(PermanentError, match="403"):
        fetched(client, FIRST_AND_WAITING, lambda request: _kept(sinks))
    assert all(sink.abandoned for sink in sinks)
    client.close()


def _kept(sinks: list[Collector]) -> Collector:
    sinks.append(Collector())
    return sinks[-1]


# --- large answers ------------------------------------------------------------------------------------------------


class _Endless:
    """A prepared answer of 24 MB, in 48 000 events, one each millisecond."""

    EVENTS = 48_000

    @classmethod
    def prepare(cls, folder: Path) -> tuple[Any, int]:
        import struct

        from np6_assets_tests.support.rude_server import Prepared

        body, index, pairs, at = folder / "body", folder / "index", [], 1
        with body.open("w") as file:
            file.write("[")
            for number in range(cls.EVENTS):
                text = json.dumps({"id": number, "timestamp": START + number, "text": "x" * 440})
                pairs += [START + number, at]
                file.write(text + (",\n" if number < cls.EVENTS - 1 else ""))
                at += len(text) + 2
            file.write("]")
        index.write_bytes(struct.pack(f"{len(pairs) + 2}q", *pairs, 2**62, at))
        return Prepared(body, index), body.stat().st_size


class Measuring(Collector):
    """Keeps ids alone."""

    def add(self, part: Part) -> None:
        assert os.fstat(part.file.fileno()).st_nlink == 0  # on disk, under no name
        body = Path(part.path).read_bytes()
        part.close()
        self.sizes.append(len(body))
        self.elements += [one["id"] for one in json.loads(body)]

    def finish(self, *, resumed: bool) -> None:
        self.resumed = resumed


def test_a_large_answer_goes_through_files_and_not_through_memory(tmp_path, monkeypatch):
    spools = tmp_path / "spools"
    spools.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spools))
    monkeypatch.setattr(client_module, "Spool", partial(Spool, part_bytes=2**20))
    prepared, total = _Endless.prepare(tmp_path)
    assert total > 22 * 2**20
    with RudeServer(key=KEY, prepared={HITS: prepared}) as server:
        client = NP6Client(server.url, KEY, retry=HASTE)
        tracemalloc.start()
        try:
            sink = client.fetch(day_request(), Measuring)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert server.requests[0].bytes_sent == total
        client.close()
    assert sink.elements == list(range(_Endless.EVENTS))
    assert max(sink.sizes) < 2**20 + 2 * client_module.CHUNK_BYTES
    assert len(sink.sizes) >= 15
    assert peak < 12 * 2**20  # a part as JSON values is most of it; the answer is twice as much as text alone
    assert list(spools.iterdir()) == []


# --- a look --------------------------------------------------------------------------------------------------------


def window(days: int = 1) -> Request:
    return Request(HITS, "reactivityStart", "reactivityEnd", START, START + days * DAY_MS)


@pytest.mark.parametrize("act", [None, *RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, *ODD_BUT_WHOLE])
def test_a_look_tells_whether_there_are_events(act: str | None):
    for account, expected in ((ACCOUNT, True), (Population(), False)):
        with RudeServer(account, seed=3) as server, closing(NP6Client(server.url, server.key, retry=HASTE)) as client:
            server.script(HITS, *[Act(act, wait=0)] * 2 if act else [])
            assert client.has_events(window()) is expected


def test_a_look_reads_little_of_a_large_answer():
    long = "x" * 2000
    many = Population(hits=[event("hits", id=str(n), timestamp=START + n, link_label=long) for n in range(3000)])
    with (
        RudeServer(many, seed=3, transports=["chunked"]) as server,
        closing(NP6Client(server.url, server.key, retry=HASTE)) as client,
    ):
        assert client.has_events(window())
        assert client.traffic.requests == 1
    [request] = server.requests
    assert request.client_left
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", PERMANENT)
def test_a_look_that_is_refused_says_why_at_once(status: str):
    with RudeServer(ACCOUNT) as server, closing(NP6Client(server.url, server.key, retry=HASTE)) as client:
        server.always(HITS, status)
        with pytest.raises(PermanentError, match=status):
            client.has_events(window())
        assert client.traffic.requests == 1


def test_a_look_gives_up():
    with RudeServer(ACCOUNT) as server, closing(NP6Client(server.url, server.key, retry=HASTE)) as client:
        server.always(HITS, "503")
        with pytest.raises(RetriesUsedUpError, match="503"):
            client.has_events(window())
        assert client.traffic.requests == 1 + HASTE.retries
