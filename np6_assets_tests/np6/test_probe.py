"""Probe whether a window holds events, with few bytes and in bounded time."""

from contextlib import closing

import pytest

from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import GaveUpError
from np6_assets_tests.np6.collector import FAST_RETRY, HITS, KEY, START, build_account, build_request, fetch
from np6_assets_tests.support.events import DAY_MS, Misfit, Population, build_event
from np6_assets_tests.support.rude_server import (
    BROKEN,
    CUT,
    INCOMPLETE,
    ODD_BUT_WHOLE,
    RATE_LIMITS,
    SERVER_ERRORS,
    Act,
    RudeServer,
)

ACCOUNT = build_account(0, 1000, 2000)


def probe(account: Population, *acts: Act | str, **modes: object) -> bool:
    with (
        RudeServer(account, key=KEY, seed=3) as server,
        closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client,
    ):
        vars(server).update(modes)
        server.script(HITS, *acts)
        return client.has_events(build_request())


@pytest.mark.parametrize("account", [ACCOUNT, Population()], ids=["some", "none"])
def test_probe_recovers_from_every_transient_fault(account):
    with (
        RudeServer(account, key=KEY, seed=3) as server,
        closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client,
    ):
        for name in (*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, *ODD_BUT_WHOLE):
            server.script(HITS, *[Act(name, at=at, wait=0) for at in (0.0, 0.5)])
            assert client.has_events(build_request()) == bool(account.hits), name
            server.reset_faults()


@pytest.mark.parametrize(
    ("times", "is_inside"),
    [
        ([], False),
        ([0], True),
        ([DAY_MS - 1], True),
        ([DAY_MS - 1, DAY_MS], True),
        ([DAY_MS], False),  # in the margin of the request
        ([-1], False),
        ([3 * DAY_MS], False),
    ],
)
@pytest.mark.parametrize("end", ["half open", "ignored"])
def test_probe_tests_whether_the_first_event_is_in_the_window(times, is_inside, end):
    assert probe(build_account(*times), end_mode=end) == is_inside


@pytest.mark.parametrize("no_content", [True, False])
def test_probe_finds_nothing_in_an_empty_window(no_content):
    assert not probe(Population(), sends_204=no_content)


@pytest.mark.parametrize("odd", [{"timestamp": "2026"}, {"timestamp": None}, {}, [], [{}]], ids=str)
def test_probe_counts_an_event_without_a_time(odd):
    assert probe(Population(misfits=[Misfit("odd", "hits", START, 156, odd)]))


def test_probe_sends_the_query_of_a_fetch():
    with RudeServer(ACCOUNT, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        fetch(client)
        assert client.has_events(build_request())
        fetched, probed = server.requests
        assert (fetched.path, fetched.query) == (probed.path, probed.query)


def test_probe_reads_little_of_a_large_answer():
    many = build_account(*range(3000), link_label="x" * 2000)
    with (
        RudeServer(many, key=KEY, seed=3, transports=["chunked"]) as server,
        closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client,
    ):
        assert client.has_events(build_request())
        [request] = server.requests
        assert request.headers["accept-encoding"] == "identity"  # compression may delay the first event
        for _ in range(200):
            if not request.client_disconnected:
                server.released.wait(0.05)
        assert request.client_disconnected


def test_probe_reads_a_large_event():
    large = build_event("hits", id="large", timestamp=START, link_label='"}]' + "x" * 3_000_000)
    with RudeServer(Population(hits=[large]), key=KEY) as server, closing(NP6Client(server.url, KEY)) as client:
        assert client.has_events(build_request())


def test_probe_gives_up():
    with RudeServer(ACCOUNT, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.script_always(HITS, "503")
        with pytest.raises(GaveUpError, match="503"):
            client.has_events(build_request())
        assert client.traffic.requests == 1 + FAST_RETRY.retries
