"""Probe whether a window holds events, with few bytes and in bounded time."""

import pytest

from np6_assets_tests.np6.collector import START, build_account, build_request, serve
from np6_assets_tests.support.events import DAY_MS, BadEvent, Population, build_event


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
    with serve(build_account(*times)) as (server, client):
        server.end_mode = end
        assert client.has_events(build_request()) == is_inside


def test_probe_counts_an_event_without_a_time():
    with serve() as (server, client):
        for odd in ({"timestamp": "2026"}, {"timestamp": None}, {}, [], [{}]):
            server.serve(Population(bad_events=[BadEvent("odd", "hits", START, 156, odd)]))
            assert client.has_events(build_request()), odd


def test_probe_reads_little_of_a_large_answer():
    with serve(build_account(*range(3000), link_label="x" * 2000)) as (server, client):
        server.transports = ["chunked"]
        assert client.has_events(build_request())
        [request] = server.requests
        assert request.headers["accept-encoding"] == "identity"  # compression may delay the first event
        for _ in range(200):
            if not request.client_disconnected:
                server.released.wait(0.05)
        assert request.client_disconnected


def test_probe_reads_a_large_event():
    large = build_event("hits", id="large", timestamp=START, link_label='"}]' + "x" * 3_000_000)
    with serve(Population(hits=[large])) as (_, client):
        assert client.has_events(build_request())
