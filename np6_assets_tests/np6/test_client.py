"""Run the client against a server with faults."""

import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import count

import httpx
import pytest

from np6_assets.np6.errors import AccessError, CancelledError
from np6_assets.np6.request import Request
from np6_assets_tests.np6.collector import (
    ACCOUNT,
    HITS,
    KEY,
    OPTOUTS,
    START,
    Collectors,
    build_request,
    expect_elements,
    fetch,
    fetch_all,
    serve,
    write_small_parts,
)
from np6_assets_tests.support.events import DAY_MS, Population
from np6_assets_tests.support.rude_acts import ODD_BUT_WHOLE, STALLS, TRANSIENT, Act
from np6_assets_tests.support.rude_server import RudeServer

END = str(START + DAY_MS + 60_000)
"""The end sent for `build_request()`, with a minute of margin for servers that apply it to the time of the send."""

TRANSIENT_FAULTS = (*TRANSIENT, "shuffled and cut")

# --- requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [23, 25])
def test_client_sends_only_an_end_that_is_a_day_old(hours):
    now = datetime.fromtimestamp((START + DAY_MS) / 1000, UTC) + timedelta(hours=hours)
    with serve(now=lambda: now) as (server, client):
        server.end_mode, server.date = "refused in the future", lambda: now - timedelta(hours=23)
        assert expect_elements() <= fetch(client).select_elements()
        assert client.has_events(build_request())
        fetched, probed = server.requests
    end = {"reactivityEnd": END} if hours > 24 else {}
    assert fetched.query == probed.query == {"reactivityStart": str(START), "sort": "asc", **end}
    assert (fetched.headers["x-key"], fetched.headers["accept-encoding"]) == (KEY, "gzip")


def test_client_reads_every_encoding_and_transport():
    with serve() as (server, client):
        for _ in range(12):  # the server chooses encoding and transport at random
            assert fetch(client).select_elements() == expect_elements()
        assert len({request.bytes_sent // 2000 for request in server.requests}) > 1  # some were compressed
        assert (client.traffic.requests, client.traffic.retries) == (12, 0)


# --- transient faults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSIENT_FAULTS)
def test_client_recovers_from_a_transient_fault(monkeypatch, name):
    expected = expect_elements()
    is_cut = name.startswith(("cut ", "reset in"))
    with serve() as (server, client):
        for parts, at in [("one", 0.4), ("many", 0.0), ("many", 0.4), ("many", 1.0)] if is_cut else [("many", 0.4)]:
            if parts == "many":
                write_small_parts(monkeypatch)
            server.requests.clear()
            server.script(HITS, Act(name, at=at))
            collector = fetch(client)
            assert collector.select_elements() == expected
            assert collector.part_count > (10 if parts == "many" else 0)
            first, *others = server.requests
            assert first.outcome == name
            assert {one.outcome for one in others} <= {"ok"}
            # retried from the start or from the cut, and if the order breaks there, once more from the start
            retries = sum(one.query["sort"] == "asc" for one in others)
            assert retries == (0 if name in ODD_BUT_WHOLE else 1) or (name == "shuffled and cut" and retries == 2)


@pytest.mark.parametrize("account", [ACCOUNT, Population()], ids=["some", "none"])
def test_list_and_probe_recover_from_transient_faults(account):
    with serve(account) as (server, client):
        for name in TRANSIENT:
            server.script("/notifications", Act(name, at=0.5, wait=0))
            assert client.get_list("/notifications") == account.notifications, name
            server.script(HITS, Act(name, at=0.0, wait=0))
            assert client.has_events(build_request()) == bool(account.hits), name
            assert [request.outcome for request in server.requests if request.outcome != "ok"][-2:] == [name] * 2


@pytest.mark.parametrize("seed", range(2))
def test_client_loses_no_event_in_many_failures(monkeypatch, seed):
    write_small_parts(monkeypatch)
    requests = [build_request(number) for number in range(-1, 3)]
    with serve(retries=12) as (server, client):
        server.fail_randomly(0.6, seed=seed, kinds=TRANSIENT_FAULTS, streak=4)
        answers = fetch_all(client, requests)
        assert client.traffic.retries >= 1
    for [answer] in answers:
        assert answer.receiver.select_elements() == expect_elements(request=answer.request)


@pytest.mark.parametrize(
    "act", [*map(Act, STALLS), Act("trickle", at=0.2), Act("trickle", at=0.7), Act("trickle headers")], ids=str
)
def test_client_times_out_an_answer_that_stalls_or_trickles(act):
    timeout = httpx.Timeout(20, read=0.1 if act.name in STALLS else 20)
    with serve(timeout=timeout, stall_seconds=0.2) as (server, client):
        server.script(HITS, act)
        server.script("/notifications", act)
        assert client.get_list("/notifications") == ACCOUNT.notifications
        assert fetch(client).select_elements() == expect_elements()
        for path in ("/notifications", HITS):
            # on a busy machine the retry may take too long as well
            assert next(request.outcome for request in server.requests if request.path == path) == act.name


# --- concurrent requests --------------------------------------------------------------------------------------------


def test_fetch_all_limits_concurrency_and_keeps_the_order():
    # requests stall until the third, and never a fourth, has arrived
    with serve(timeout=20, concurrency=3) as (server, client):
        server.script_always(HITS, "stall before")
        requests = [build_request(number) for number in range(-3, 6)]
        watcher = threading.Thread(target=_release_after, args=(server, 3))
        watcher.start()
        answers = fetch_all(client, requests)
        watcher.join(10)
        assert server.peak_in_flight == 3
    assert [answer.request for [answer] in answers] == requests
    for [answer] in answers:
        assert answer.receiver.select_elements() == expect_elements(request=answer.request)


def _release_after(server: RudeServer, in_flight: int) -> None:
    for _ in range(1000):
        if server.peak_in_flight >= in_flight:
            break
        server.released.wait(0.01)
    server.reset_faults()
    server.release()


def test_fetch_all_reads_requests_lazily():
    numbers = count()
    with serve(concurrency=2) as (server, client):
        answers = client.fetch_all((r, Collectors(r)) for r in map(build_request, numbers))
        assert server.requests == []
        for taken in range(3):
            assert next(answers)[0].request == build_request(taken)
        ahead = next(numbers) - 3
        answers.close()
        assert 2 <= ahead <= 2 + 1
        assert len(server.requests) < 8


# a request, and others to which the server answers "retry after ten minutes"
FIRST_AND_WAITING = [build_request(), *(build_request(number, path=OPTOUTS) for number in range(5))]
LONG_RETRY = {"retries": 50, "backoff": 30.0, "longest_wait": 600.0, "timeout": 20}


def test_fetch_all_stops_downloads_when_closed():
    opened = [Collectors(request) for request in FIRST_AND_WAITING]
    with serve(concurrency=2, **LONG_RETRY) as (server, client):
        server.script_always(OPTOUTS, Act("503 retry-after seconds", wait=600))
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


def test_fetch_all_raises_the_error_of_its_requests():
    def requests():
        yield build_request(), Collectors(build_request())
        raise KeyError("the plan is broken")

    with serve() as (_, client):
        with pytest.raises(KeyError, match="the plan is broken"):
            list(client.fetch_all(requests()))
        assert client.closed.is_set()


@pytest.mark.parametrize("place", [0, 2])
def test_fetch_all_ends_at_once_after_a_refused_key(place):
    others = FIRST_AND_WAITING[1:]
    opened: list[Collectors] = []

    def open_collectors(request: Request) -> Collectors:
        opened.append(Collectors(request))
        return opened[-1]

    with serve(concurrency=3, **LONG_RETRY) as (server, client):
        server.script_always(HITS, "403")
        server.script_always(OPTOUTS, Act("503 retry-after seconds", wait=600))
        with pytest.raises(AccessError, match="403"):
            fetch_all(client, [*others[:place], build_request(), *others[place:]], open_collectors)
    assert {state for one in opened for state in one.states} == {"discarded"}
