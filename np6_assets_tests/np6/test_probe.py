"""The probe: whether a window holds events, for few bytes and in bounded time."""

from contextlib import closing

import pytest

from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import GaveUpError
from np6_assets_tests.np6.collector import HASTE, HITS, KEY, START, day_request, fetch, simple
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

SOME = simple(0, 1000, 2000)


def probed(account: Population, *acts: Act | str, **modes: object) -> bool:
    with RudeServer(account, key=KEY, seed=3) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        vars(server).update(modes)
        server.script(HITS, *acts)
        return client.has_events(day_request())


@pytest.mark.parametrize("account", [SOME, Population()], ids=["some", "none"])
def test_probe_gets_over_every_fault_that_passes(account):
    with RudeServer(account, key=KEY, seed=3) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        for name in (*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, *ODD_BUT_WHOLE):
            server.script(HITS, *[Act(name, at=at, wait=0) for at in (0.0, 0.5)])
            assert client.has_events(day_request()) == bool(account.hits), name
            server.behave()


@pytest.mark.parametrize(
    ("times", "is_inside"),
    [
        ([], False),
        ([0], True),
        ([DAY_MS - 1], True),
        ([DAY_MS - 1, DAY_MS], True),
        ([DAY_MS], False),  # in the margin of what is asked
        ([-1], False),
        ([3 * DAY_MS], False),
    ],
)
@pytest.mark.parametrize("end", ["half open", "ignored"])
def test_probe_tells_whether_the_first_event_is_in_the_window(times, is_inside, end):
    assert probed(simple(*times), end_mode=end) == is_inside


@pytest.mark.parametrize("no_content", [True, False])
def test_probe_finds_nothing_in_an_empty_window(no_content):
    assert not probed(Population(), sends_204=no_content)


@pytest.mark.parametrize("odd", [{"timestamp": "2026"}, {"timestamp": None}, {}, [], [{}]], ids=str)
def test_probe_finds_an_event_that_does_not_say_its_time(odd):
    assert probed(Population(misfits=[Misfit("odd", "hits", START, 156, odd)]))


def test_probe_asks_as_a_fetch_does():
    with RudeServer(SOME, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        fetch(client)
        assert client.has_events(day_request())
        fetched, asked = server.requests
        assert (fetched.path, fetched.query) == (asked.path, asked.query)


def test_probe_reads_little_of_a_large_answer():
    many = simple(*range(3000), link_label="x" * 2000)
    with (
        RudeServer(many, key=KEY, seed=3, transports=["chunked"]) as server,
        closing(NP6Client(server.url, KEY, retry=HASTE)) as client,
    ):
        assert client.has_events(day_request())
        [request] = server.requests
        assert request.headers["accept-encoding"] == "identity"  # a compressed body may hold the first event back
        for _ in range(200):
            if not request.client_disconnected:
                server.released.wait(0.05)
        assert request.client_disconnected


def test_probe_reads_a_large_event():
    large = build_event("hits", id="large", timestamp=START, link_label='"}]' + "x" * 3_000_000)
    with RudeServer(Population(hits=[large]), key=KEY) as server, closing(NP6Client(server.url, KEY)) as client:
        assert client.has_events(day_request())


def test_probe_gives_up():
    with RudeServer(SOME, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.script_always(HITS, "503")
        with pytest.raises(GaveUpError, match="503"):
            client.has_events(day_request())
        assert client.traffic.requests == 1 + HASTE.retries
