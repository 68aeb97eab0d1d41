"""The client against a server that misbehaves: it gets everything, or says why it cannot."""

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
    HASTE,
    HITS,
    KEY,
    OPTOUTS,
    START,
    Collector,
    Collectors,
    day_request,
    expected,
    fetch,
    fetch_all,
    simple,
    whole_day,
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
"""The end that is sent for `day_request()`: a minute of margin is for a server that means the time of the send."""

PASSING = (*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, *ODD_BUT_WHOLE, "shuffled and cut")

# --- what is asked ------------------------------------------------------------------------------------------------


def test_client_requests_a_half_open_window_oldest_first(server, client):
    assert fetch(client).distinct == whole_day()
    [asked] = server.requests
    assert asked.query == {"reactivityStart": str(START), "reactivityEnd": END, "sort": "asc"}
    assert (asked.headers["x-key"], asked.headers["accept-encoding"]) == (KEY, "gzip")


def test_client_uses_the_parameter_names_of_the_endpoint():
    request = Request("/notifications/156/events/activations", "start", "end", (START, START + DAY_MS))
    with (
        RudeServer(simple(-1, 0, DAY_MS - 1, DAY_MS, kind="activations"), key=KEY) as server,
        closing(NP6Client(server.url, KEY, retry=HASTE)) as client,
    ):
        assert [one["id"] for one in fetch(client, request).elements] == ["1", "2", "3"]  # "3" is in the margin
        assert server.requests[-1].query == {"start": str(START), "end": END, "sort": "asc"}


@pytest.mark.parametrize(("hours", "has_end"), [(-1, False), (23, False), (25, True)])
def test_client_sends_only_an_end_that_is_a_day_old(server, hours, has_end):
    # the API refuses an end in its own future, whatever our clock says
    now = datetime.fromtimestamp((START + DAY_MS) / 1000 + 3600 * hours, UTC)
    server.end_mode, server.date = "refused in the future", lambda: datetime.fromtimestamp(START / 1000 + 3600, UTC)
    if has_end:
        server.end_mode = "half open"
    with closing(NP6Client(server.url, KEY, retry=HASTE, now=lambda: now)) as client:
        assert whole_day() <= fetch(client).distinct
        assert client.has_events(day_request())
    fetched, probed = (request.query for request in server.requests)
    assert fetched == probed
    assert fetched.get("reactivityEnd") == (END if has_end else None)


def test_client_reads_every_encoding_and_transport_alike(server, client):
    for _ in range(12):  # the server picks an encoding and a transport for each
        assert fetch(client).distinct == whole_day()
    assert len({request.bytes_sent // 2000 for request in server.requests}) > 1  # some were compressed
    assert (client.traffic.requests, client.traffic.retries) == (12, 0)


def test_client_gets_the_list_of_notifications(server, client):
    assert client.get_list("/notifications") == ACCOUNT.notifications


# --- faults that pass ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("parts", ["one part", "many parts"])
def test_client_gets_over_a_fault_that_passes(server, client, request, name, parts):
    if parts == "many parts":
        request.getfixturevalue("small_parts")
    is_cut = name.startswith(("cut ", "reset in"))
    for at in (0.0, 0.4, 1.0) if is_cut and parts == "many parts" else (0.4,):
        before = len(server.requests)
        server.script(HITS, Act(name, at=at))
        collector = fetch(client)
        assert collector.distinct == whole_day()
        assert len(collector.sizes) > (10 if parts == "many parts" else 0)
        first, *others = server.requests[before:]
        assert first.outcome == name
        assert {one.outcome for one in others} <= {"ok"}
        # again, from the start or from the cut, and where that does not hold, once more from the start
        again = sum(one.query["sort"] == "asc" for one in others)
        assert again == (0 if name in ODD_BUT_WHOLE else 1) or (name == "shuffled and cut" and again == 2)


@pytest.mark.parametrize("name", [*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, "BOM"])
def test_client_gets_the_list_over_a_fault_that_passes(server, client, name):
    server.script("/notifications", Act(name, at=0.5))
    assert client.get_list("/notifications") == ACCOUNT.notifications
    assert [one.outcome for one in server.requests] == ([name] if name == "BOM" else [name, "ok"])


@pytest.mark.parametrize("seed", range(4))
def test_client_loses_nothing_in_failure_after_failure(server, small_parts, seed):
    server.fail(0.6, seed=seed, kinds=PASSING, streak=4)
    requests = [day_request(number) for number in range(-1, 3)]
    with closing(NP6Client(server.url, KEY, timeout=5, retry=with_retries(12))) as client:
        answers = fetch_all(client, requests)
        assert client.traffic.retries >= 1
    assert [answer.receiver.distinct for [answer] in answers] == [expected(request) for request in requests]


@pytest.mark.parametrize("name", STALLS)
def test_client_ends_a_stalled_answer(name):
    with (
        RudeServer(ACCOUNT, key=KEY) as server,
        closing(NP6Client(server.url, KEY, timeout=httpx.Timeout(5, read=0.1), retry=HASTE)) as client,
    ):
        server.script(HITS, name)
        assert fetch(client).distinct == whole_day()
        assert server.requests[0].outcome == name


@pytest.mark.parametrize("act", [Act("trickle", at=0.2), Act("trickle", at=0.7), Act("trickle headers")], ids=str)
def test_client_ends_an_answer_that_trickles(server, act):
    server.script(HITS, act)
    server.script("/notifications", act)
    with closing(NP6Client(server.url, KEY, timeout=20, stall_seconds=0.2, retry=HASTE)) as client:
        assert client.get_list("/notifications") == ACCOUNT.notifications
        server.script(HITS, act)
        assert fetch(client).distinct == whole_day()


def test_client_gives_up_on_an_answer_that_trickles_for_ever(server):
    server.script_always(HITS, Act("trickle", at=0.7))
    client = NP6Client(server.url, KEY, timeout=20, stall_seconds=0.1, retry=with_retries(1))
    with closing(client):
        [answer] = client.fetch(day_request(), partial(Collector, day_request()))
    assert isinstance(answer.error, GaveUpError)
    assert "no whole event for 0 seconds" in str(answer.error)
    assert len(server.requests) == 2


# --- several at once --------------------------------------------------------------------------------------------


def test_fetch_all_fetches_up_to_its_limit_at_once_and_in_order():
    # requests stall until as many as may are under way: they are let go when the third has come, and never a fourth
    with RudeServer(ACCOUNT, key=KEY) as server:
        server.script_always(HITS, "stall before")
        requests = [day_request(number) for number in range(-3, 6)]
        watcher = threading.Thread(target=_release_at, args=(server, 3))
        watcher.start()
        with closing(NP6Client(server.url, KEY, timeout=20, retry=HASTE, concurrency=3)) as client:
            answers = fetch_all(client, requests)
        watcher.join(10)
        assert server.peak_in_flight == 3
    assert [answer.request for [answer] in answers] == requests
    assert [answer.receiver.distinct for [answer] in answers] == [expected(request) for request in requests]


def _release_at(server: RudeServer, in_flight: int) -> None:
    for _ in range(1000):
        if server.peak_in_flight >= in_flight:
            break
        server.released.wait(0.01)
    server.behave()
    server.release()


@pytest.mark.parametrize("concurrency", [1, 2])
def test_fetch_all_keeps_to_its_limit(server, concurrency):
    requests = [day_request(number) for number in range(-4, 8)]
    with closing(NP6Client(server.url, KEY, retry=HASTE, concurrency=concurrency)) as client:
        answers = fetch_all(client, requests)
        assert client.traffic.requests == len(requests)
    assert [answer.receiver.distinct for [answer] in answers] == [expected(request) for request in requests]
    assert server.peak_in_flight <= concurrency


def test_fetch_all_takes_requests_as_their_answers_are_taken(server):
    numbers = count()
    with (
        closing(NP6Client(server.url, KEY, retry=HASTE, concurrency=2)) as client,
        closing(client.fetch_all((r, Collectors(r)) for r in map(day_request, numbers))) as answers,
    ):
        assert server.requests == []
        for taken in range(3):
            assert next(answers)[0].request == day_request(taken)
        ahead = next(numbers) - 3
    assert 2 <= ahead <= 2 + 1
    assert len(server.requests) < 8


# one request, and others that the server has wait for ten minutes
FIRST_AND_WAITING = [day_request(), *(day_request(number, path=OPTOUTS) for number in range(5))]
PATIENT = RetryPolicy(50, 30.0, 600.0)


def test_fetch_all_stops_its_downloads_when_its_consumer_goes():
    with RudeServer(ACCOUNT, key=KEY) as server:
        server.script_always(OPTOUTS, Act("503 retry-after seconds", wait=600))
        opened = [Collectors(request) for request in FIRST_AND_WAITING]
        client = NP6Client(server.url, KEY, timeout=20, retry=PATIENT, concurrency=2)
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
            client.fetch(day_request(), Collectors(day_request()))
        client.close()


def test_fetch_all_ends_for_a_request_that_cannot_be_taken(server, client):
    def requests():
        yield day_request(), Collectors(day_request())
        raise KeyError("the plan is broken")

    with pytest.raises(KeyError, match="the plan is broken"):
        list(client.fetch_all(requests()))
    assert client.closed.is_set()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_fetch_all_ends_at_once_where_the_key_is_refused(server, place):
    others = FIRST_AND_WAITING[1:]
    requests = [*others[:place], day_request(), *others[place:]]
    server.script_always(HITS, "403")
    server.script_always(OPTOUTS, Act("503 retry-after seconds", wait=600))
    opened: list[Collectors] = []

    def remember(request: Request) -> Collectors:
        opened.append(Collectors(request))
        return opened[-1]

    with (
        closing(NP6Client(server.url, KEY, timeout=20, retry=PATIENT, concurrency=3)) as client,
        pytest.raises(AccessError, match="403"),
    ):
        fetch_all(client, requests, remember)
    assert {state for one in opened for state in one.states} == {"discarded"}
