"""Run the client against a server with faults."""

import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import count

import httpx
import pytest

from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import AccessError, CancelledError, GaveUpError
from np6_assets.np6.request import Request
from np6_assets.np6.retry import RetryPolicy
from np6_assets_tests.np6.collector import (
    ACCOUNT,
    FAST_RETRY,
    HITS,
    KEY,
    OPTOUTS,
    START,
    Collector,
    Collectors,
    build_account,
    build_request,
    expect_day,
    expect_elements,
    fetch,
    fetch_all,
    with_retries,
)
from np6_assets_tests.support.events import DAY_MS
from np6_assets_tests.support.rude_server import (
    BROKEN,
    CUT,
    INCOMPLETE,
    ODD_BUT_WHOLE,
    RATE_LIMITS,
    SERVER_ERRORS,
    STALLS,
    Act,
    RudeServer,
)

END = str(START + DAY_MS + 60_000)
"""The end sent for `build_request()`, with a minute of margin for servers that apply it to the time of the send."""

TRANSIENT_FAULTS = (*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, *ODD_BUT_WHOLE, "shuffled and cut")

# --- requests ------------------------------------------------------------------------------------------------


def test_client_requests_a_half_open_window_oldest_first(server, client):
    assert fetch(client).window_elements == expect_day()
    [request] = server.requests
    assert request.query == {"reactivityStart": str(START), "reactivityEnd": END, "sort": "asc"}
    assert (request.headers["x-key"], request.headers["accept-encoding"]) == (KEY, "gzip")


def test_client_sends_the_parameter_names_of_the_endpoint():
    request = Request("/notifications/156/events/activations", "start", "end", (START, START + DAY_MS))
    with (
        RudeServer(build_account(-1, 0, DAY_MS - 1, DAY_MS, kind="activations"), key=KEY) as server,
        closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client,
    ):
        assert [one["id"] for one in fetch(client, request).elements] == ["1", "2", "3"]  # "3" lies in the margin
        assert server.requests[-1].query == {"start": str(START), "end": END, "sort": "asc"}


@pytest.mark.parametrize(("hours", "has_end"), [(-1, False), (23, False), (25, True)])
def test_client_sends_only_an_end_that_is_a_day_old(server, hours, has_end):
    # the API refuses an end in its future
    now = datetime.fromtimestamp((START + DAY_MS) / 1000 + 3600 * hours, UTC)
    server.end_mode, server.date = "refused in the future", lambda: datetime.fromtimestamp(START / 1000 + 3600, UTC)
    if has_end:
        server.end_mode = "half open"
    with closing(NP6Client(server.url, KEY, retry=FAST_RETRY, now=lambda: now)) as client:
        assert expect_day() <= fetch(client).window_elements
        assert client.has_events(build_request())
    fetched, probed = (request.query for request in server.requests)
    assert fetched == probed
    assert fetched.get("reactivityEnd") == (END if has_end else None)


def test_client_reads_every_encoding_and_transport(server, client):
    for _ in range(12):  # the server chooses encoding and transport at random
        assert fetch(client).window_elements == expect_day()
    assert len({request.bytes_sent // 2000 for request in server.requests}) > 1  # some were compressed
    assert (client.traffic.requests, client.traffic.retries) == (12, 0)


def test_client_gets_the_list_of_notifications(server, client):
    assert client.get_list("/notifications") == ACCOUNT.notifications


# --- transient faults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSIENT_FAULTS)
@pytest.mark.parametrize("parts", ["one part", "many parts"])
def test_client_recovers_from_a_transient_fault(server, client, request, name, parts):
    if parts == "many parts":
        request.getfixturevalue("small_parts")
    is_cut = name.startswith(("cut ", "reset in"))
    for at in (0.0, 0.4, 1.0) if is_cut and parts == "many parts" else (0.4,):
        before = len(server.requests)
        server.script(HITS, Act(name, at=at))
        collector = fetch(client)
        assert collector.window_elements == expect_day()
        assert len(collector.sizes) > (10 if parts == "many parts" else 0)
        first, *others = server.requests[before:]
        assert first.outcome == name
        assert {one.outcome for one in others} <= {"ok"}
        # retried from the start or from the cut, and if the order breaks there, once more from the start
        retries = sum(one.query["sort"] == "asc" for one in others)
        assert retries == (0 if name in ODD_BUT_WHOLE else 1) or (name == "shuffled and cut" and retries == 2)


@pytest.mark.parametrize("name", [*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, "BOM"])
def test_client_recovers_from_a_transient_fault_of_the_list(server, client, name):
    server.script("/notifications", Act(name, at=0.5))
    assert client.get_list("/notifications") == ACCOUNT.notifications
    assert [one.outcome for one in server.requests] == ([name] if name == "BOM" else [name, "ok"])


@pytest.mark.parametrize("seed", range(4))
def test_client_loses_no_event_in_many_failures(server, small_parts, seed):
    server.fail_randomly(0.6, seed=seed, kinds=TRANSIENT_FAULTS, streak=4)
    requests = [build_request(number) for number in range(-1, 3)]
    with closing(NP6Client(server.url, KEY, timeout=5, retry=with_retries(12))) as client:
        answers = fetch_all(client, requests)
        assert client.traffic.retries >= 1
    assert [answer.receiver.window_elements for [answer] in answers] == [
        expect_elements(request) for request in requests
    ]


@pytest.mark.parametrize("name", STALLS)
def test_client_times_out_a_stalled_answer(name):
    with (
        RudeServer(ACCOUNT, key=KEY) as server,
        closing(NP6Client(server.url, KEY, timeout=httpx.Timeout(5, read=0.1), retry=FAST_RETRY)) as client,
    ):
        server.script(HITS, name)
        assert fetch(client).window_elements == expect_day()
        assert server.requests[0].outcome == name


@pytest.mark.parametrize("act", [Act("trickle", at=0.2), Act("trickle", at=0.7), Act("trickle headers")], ids=str)
def test_client_times_out_a_trickling_answer(server, act):
    server.script(HITS, act)
    server.script("/notifications", act)
    with closing(NP6Client(server.url, KEY, timeout=20, stall_seconds=0.2, retry=FAST_RETRY)) as client:
        assert client.get_list("/notifications") == ACCOUNT.notifications
        server.script(HITS, act)
        assert fetch(client).window_elements == expect_day()


def test_client_gives_up_on_trickling_answers(server):
    server.script_always(HITS, Act("trickle", at=0.7))
    client = NP6Client(server.url, KEY, timeout=20, stall_seconds=0.1, retry=with_retries(1))
    with closing(client):
        [answer] = client.fetch(build_request(), partial(Collector, build_request()))
    assert isinstance(answer.error, GaveUpError)
    assert "no whole event for 0 seconds" in str(answer.error)
    assert len(server.requests) == 2


# --- concurrent requests --------------------------------------------------------------------------------------------


def test_fetch_all_limits_concurrency_and_keeps_the_order():
    # requests stall until the third, and never a fourth, has arrived
    with RudeServer(ACCOUNT, key=KEY) as server:
        server.script_always(HITS, "stall before")
        requests = [build_request(number) for number in range(-3, 6)]
        watcher = threading.Thread(target=_release_after, args=(server, 3))
        watcher.start()
        with closing(NP6Client(server.url, KEY, timeout=20, retry=FAST_RETRY, concurrency=3)) as client:
            answers = fetch_all(client, requests)
        watcher.join(10)
        assert server.peak_in_flight == 3
    assert [answer.request for [answer] in answers] == requests
    assert [answer.receiver.window_elements for [answer] in answers] == [
        expect_elements(request) for request in requests
    ]


def _release_after(server: RudeServer, in_flight: int) -> None:
    for _ in range(1000):
        if server.peak_in_flight >= in_flight:
            break
        server.released.wait(0.01)
    server.reset_faults()
    server.release()


def test_fetch_all_reads_requests_lazily(server):
    numbers = count()
    with (
        closing(NP6Client(server.url, KEY, retry=FAST_RETRY, concurrency=2)) as client,
        closing(client.fetch_all((r, Collectors(r)) for r in map(build_request, numbers))) as answers,
    ):
        assert server.requests == []
        for taken in range(3):
            assert next(answers)[0].request == build_request(taken)
        ahead = next(numbers) - 3
    assert 2 <= ahead <= 2 + 1
    assert len(server.requests) < 8


# a request, and others to which the server answers "retry after ten minutes"
FIRST_AND_WAITING = [build_request(), *(build_request(number, path=OPTOUTS) for number in range(5))]
LONG_RETRY = RetryPolicy(50, 30.0, 600.0)


def test_fetch_all_stops_downloads_when_closed():
    with RudeServer(ACCOUNT, key=KEY) as server:
        server.script_always(OPTOUTS, Act("503 retry-after seconds", wait=600))
        opened = [Collectors(request) for request in FIRST_AND_WAITING]
        client = NP6Client(server.url, KEY, timeout=20, retry=LONG_RETRY, concurrency=2)
        answers = client.fetch_all(zip(FIRST_AND_WAITING, opened, strict=True))
        [first] = next(answers)
        begun = time.monotonic()
        answers.close()
        assert time.monotonic() - begun < 10
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("np6_")]
        assert first.receiver.state == "finished"
        assert {state for one in opened[1:] for state in one.states} <= {"discarded"}
        assert len(server.requests) <= 4
        with pytest.raises(CancelledError):
            client.fetch(build_request(), Collectors(build_request()))
        client.close()


def test_fetch_all_raises_the_error_of_its_requests(server, client):
    def requests():
        yield build_request(), Collectors(build_request())
        raise KeyError("the plan is broken")

    with pytest.raises(KeyError, match="the plan is broken"):
        list(client.fetch_all(requests()))
    assert client.closed.is_set()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_fetch_all_ends_at_once_after_a_refused_key(server, place):
    others = FIRST_AND_WAITING[1:]
    requests = [*others[:place], build_request(), *others[place:]]
    server.script_always(HITS, "403")
    server.script_always(OPTOUTS, Act("503 retry-after seconds", wait=600))
    opened: list[Collectors] = []

    def open_collectors(request: Request) -> Collectors:
        opened.append(Collectors(request))
        return opened[-1]

    with (
        closing(NP6Client(server.url, KEY, timeout=20, retry=LONG_RETRY, concurrency=3)) as client,
        pytest.raises(AccessError, match="403"),
    ):
        fetch_all(client, requests, open_collectors)
    assert {state for one in opened for state in one.states} == {"discarded"}
