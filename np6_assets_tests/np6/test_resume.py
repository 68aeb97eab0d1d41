"""Resume cut downloads if the API is known to sort, else restart them."""

import json
from contextlib import closing

import pytest

from np6_assets.np6.client import NP6Client
from np6_assets_tests.np6.collector import (
    FAST_RETRY,
    HITS,
    KEY,
    OPTOUTS,
    START,
    Collectors,
    build_account,
    build_request,
    expect_day,
    fetch,
    list_starts,
    with_retries,
)
from np6_assets_tests.support.events import Misfit, build_event, dump_json
from np6_assets_tests.support.rude_server import Act, Refusal, RudeServer

HUNDRED = build_account(*range(0, 10_000, 100))


@pytest.mark.parametrize("name", ["cut length", "cut chunked", "cut close", "cut after comma", "reset in body"])
def test_download_resumes_from_its_last_whole_event(name):
    with RudeServer(HUNDRED, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.script(HITS, Act(name, at=0.8), None, Act(name, at=0.5))
        collector = fetch(client)
        starts = list_starts(server)
        assert [request.query["sort"] for request in server.requests] == ["asc", "desc", "asc", "asc"]
        assert list_starts(server, "desc") == [0]
    if name != "reset in body":  # a reset may lose bytes that were sent
        assert starts[1] == 7900  # in the middle of the event at 8000, or just before it
        assert starts[2] == 8800  # half of the remaining 21
    assert starts == sorted(starts)
    assert collector.window_elements == expect_day(HUNDRED)
    # once each, except events shared by two answers
    assert len(collector.elements) == 100 + (starts[1] > starts[0]) + (starts[2] > starts[1])


def test_download_progresses_through_more_cuts_than_retries(small_parts):
    account = build_account(*range(0, 20_000, 100))
    with (
        RudeServer(account, key=KEY) as server,
        closing(NP6Client(server.url, KEY, retry=with_retries(1))) as client,
    ):
        server.script(HITS, Act("cut chunked", at=0.3), None, *[Act("cut chunked", at=0.3)] * 7)
        collector = fetch(client)
        starts = list_starts(server)
    assert len(starts) == 9
    assert starts == sorted(set(starts))
    assert starts[1] >= 5800
    assert starts[-1] >= 18_000
    assert collector.window_elements == expect_day(account)
    assert len(collector.elements) == 200 + 8


def test_download_has_all_events_of_the_millisecond_of_a_cut():
    account = build_account(*[0] * 5, *[500] * 30, *[900] * 5)  # the server orders ties at random
    with (
        RudeServer(account, key=KEY, seed=5) as server,
        closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client,
    ):
        server.script(HITS, Act("cut chunked", at=0.5), None, Act("cut chunked", at=0.5))
        assert fetch(client).window_elements == expect_day(account)
        assert list_starts(server) == [0, 500, 500]


def test_client_checks_sorting_once_a_feed():
    account = build_account(*range(0, 10_000, 100))
    account.optouts = build_account(*range(0, 10_000, 100), kind="optouts").optouts
    with RudeServer(account, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        for path in (HITS, OPTOUTS):
            server.script(path, Act("cut length"), None, Act("cut length"), None, Act("cut length"))
            for _ in range(2):
                assert len({dump_json(one) for one in fetch(client, build_request(path=path)).elements}) == 100
            assert [one.query["sort"] for one in server.list_requests(path)] == [
                "asc",
                "desc",
                "asc",
                "asc",
                "asc",
                "asc",
            ]


def test_download_restarts_if_sorting_cannot_be_checked():
    with RudeServer(HUNDRED, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.script(HITS, Act("cut length"), "503", Act("cut length"), None)
        collector = fetch(client)
        assert list_starts(server) == [0, 0, 4900]
        assert list_starts(server, "desc") == [0, 0]
    assert collector.window_elements == expect_day(HUNDRED)


def test_download_restarts_after_a_cut_before_the_first_event(server, client):
    server.script(HITS, Act("cut length", at=0.0))
    collectors = Collectors(build_request())
    [answer] = client.fetch(build_request(), collectors)
    assert answer.receiver.window_elements == expect_day()
    assert [request.query["sort"] for request in server.requests] == ["asc", "asc"]
    assert collectors.states == ["discarded", "finished"]


def test_download_restarts_if_parts_do_not_ascend(server, client, small_parts):
    server.sorts = False
    server.script(HITS, *[Act("cut chunked", at=0.7)] * 2)
    collectors = Collectors(build_request())
    [answer] = client.fetch(build_request(), collectors)
    assert answer.receiver.window_elements == expect_day()
    assert list_starts(server) == [0, 0, 0]
    assert list_starts(server, "desc") == []
    assert collectors.states == ["discarded", "discarded", "finished"]


class GroupingServer(RudeServer):
    """Sorts within groups of events only."""

    groups: tuple[set[int], ...] = ()

    def select_items(self, request, **options):
        found = super().select_items(request, **options)
        groups = self.groups if request.query["sort"] == "asc" else self.groups[::-1]
        return [item for group in groups for item in found if item.ms - START in group]


@pytest.mark.parametrize(
    ("groups", "resumes"),
    [
        ((range(0, 5000, 100), range(0, 300, 50)), False),  # the newest event lies before the cut
        ((range(0, 5000, 100), range(50, 9000, 100)), True),  # the order breaks at the resumption
    ],
    ids=["newest", "joint"],
)
@pytest.mark.parametrize("parts", ["one part", "many parts"])
def test_download_loses_no_event_of_sorted_groups(request, groups, resumes, parts):
    if parts == "many parts":
        request.getfixturevalue("small_parts")
    account = build_account(*{time for group in groups for time in group})
    with GroupingServer(account, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.groups = tuple(map(set, groups))
        server.script(HITS, Act("cut length", at=0.2))
        assert fetch(client).window_elements == expect_day(account)
        starts = list_starts(server)
        assert starts[-1] == 0
        assert any(starts) == resumes


@pytest.mark.parametrize("time", ["yesterday", None, True, -1, [1]], ids=str)
def test_download_restarts_if_the_newest_event_has_no_time(time):
    account = build_account(*range(0, 10_000, 100))
    odd = build_event("hits", id="odd", timestamp=0) | {"timestamp": time}
    account.misfits.append(Misfit("odd", "hits", START + 9999, 156, odd))
    with RudeServer(account, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.script(HITS, Act("cut length"))
        assert fetch(client).window_elements == expect_day(account)
        assert list_starts(server) == [0, 0]


@pytest.mark.parametrize("name", ["503", "429"])
def test_download_resumes_after_error_statuses(name):
    with RudeServer(HUNDRED, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.script(HITS, Act("cut length", at=0.8), None, name, name)
        assert fetch(client).window_elements == expect_day(HUNDRED)
        assert list_starts(server) == [0, 7900, 7900, 7900]


class UnsortedServer(RudeServer):
    """Ignores `sort` and orders by id."""

    def select_items(self, request, **options):
        return sorted(super().select_items(request, **options), key=lambda item: int(json.loads(item.body)["id"]))


@pytest.mark.parametrize("at", [0.3, 0.6])
def test_download_restarts_if_the_api_ignores_sort(at):
    account = build_account(500, 900, 100, 950)
    with UnsortedServer(account, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.script(HITS, Act("cut length", at=at))
        assert fetch(client).window_elements == expect_day(account)
        assert list_starts(server) == [0, 0]


class AscendingServer(RudeServer):
    def select_items(self, request, **options):
        if request.query["sort"] == "desc":
            raise Refusal(400, "sort is asc")
        return super().select_items(request, **options)


def test_download_restarts_if_the_api_refuses_desc():
    with AscendingServer(HUNDRED, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.script(HITS, Act("cut length"))
        assert fetch(client).window_elements == expect_day(HUNDRED)
        assert list_starts(server) == [0, 0]
