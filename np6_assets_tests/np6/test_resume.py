"""Downloads that are cut: they go on where the API is known to sort, start again elsewhere, and lose nothing."""

import json
from contextlib import closing

import pytest

from np6_assets.np6.client import NP6Client
from np6_assets_tests.np6.collector import (
    HASTE,
    HITS,
    KEY,
    OPTOUTS,
    START,
    Collectors,
    canonical,
    day_request,
    fetch,
    simple,
    starts,
    whole_day,
    with_retries,
)
from np6_assets_tests.support.events import Misfit, build_event
from np6_assets_tests.support.rude_server import Act, Refusal, RudeServer

HUNDRED = simple(*range(0, 10_000, 100))


@pytest.mark.parametrize("name", ["cut length", "cut chunked", "cut close", "cut after comma", "reset in body"])
def test_download_goes_on_from_its_last_whole_event(name):
    with RudeServer(HUNDRED, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.script(HITS, Act(name, at=0.8), None, Act(name, at=0.5))
        collector = fetch(client)
        asked = starts(server)
        assert [request.query["sort"] for request in server.requests] == ["asc", "desc", "asc", "asc"]
        assert starts(server, "desc") == [0]
    if name != "reset in body":  # which may take with it what was still on its way
        assert asked[1] == 7900  # in the middle of the event at 8000, or just before it
        assert asked[2] == 8800  # half way through the 21 that are left
    assert asked == sorted(asked)
    assert collector.distinct == whole_day(HUNDRED)
    # once each, but for the events that two answers share
    assert len(collector.elements) == 100 + (asked[1] > asked[0]) + (asked[2] > asked[1])


def test_download_that_is_cut_more_often_than_retries_allow_makes_progress(small_parts):
    account = simple(*range(0, 20_000, 100))
    with (
        RudeServer(account, key=KEY) as server,
        closing(NP6Client(server.url, KEY, retry=with_retries(1))) as client,
    ):
        server.script(HITS, Act("cut chunked", at=0.3), None, *[Act("cut chunked", at=0.3)] * 7)
        collector = fetch(client)
        asked = starts(server)
    assert len(asked) == 9
    assert asked == sorted(set(asked))
    assert asked[1] >= 5800
    assert asked[-1] >= 18_000
    assert collector.distinct == whole_day(account)
    assert len(collector.elements) == 200 + 8


def test_download_has_all_events_of_the_millisecond_at_the_cut():
    account = simple(*[0] * 5, *[500] * 30, *[900] * 5)  # the server orders ties as it likes
    with RudeServer(account, key=KEY, seed=5) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.script(HITS, Act("cut chunked", at=0.5), None, Act("cut chunked", at=0.5))
        assert fetch(client).distinct == whole_day(account)
        assert starts(server) == [0, 500, 500]


def test_client_checks_once_a_feed_whether_the_api_sorts():
    account = simple(*range(0, 10_000, 100))
    account.optouts = simple(*range(0, 10_000, 100), kind="optouts").optouts
    with RudeServer(account, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        for path in (HITS, OPTOUTS):
            server.script(path, Act("cut length"), None, Act("cut length"), None, Act("cut length"))
            for _ in range(2):
                assert len({canonical(one) for one in fetch(client, day_request(path=path)).elements}) == 100
            assert [one.query["sort"] for one in server.list_requests(path)] == [
                "asc",
                "desc",
                "asc",
                "asc",
                "asc",
                "asc",
            ]


def test_download_starts_again_where_whether_the_api_sorts_is_not_known():
    with RudeServer(HUNDRED, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.script(HITS, Act("cut length"), "503", Act("cut length"), None)
        collector = fetch(client)
        assert starts(server) == [0, 0, 4900]
        assert starts(server, "desc") == [0, 0]
    assert collector.distinct == whole_day(HUNDRED)


def test_download_starts_again_where_it_was_cut_before_the_first_whole_event(server, client):
    server.script(HITS, Act("cut length", at=0.0))
    collectors = Collectors(day_request())
    [answer] = client.fetch(day_request(), collectors)
    assert answer.receiver.distinct == whole_day()
    assert [request.query["sort"] for request in server.requests] == ["asc", "asc"]
    assert collectors.states == ["discarded", "finished"]


def test_download_starts_again_where_parts_do_not_ascend(server, client, small_parts):
    server.sorts = False
    server.script(HITS, *[Act("cut chunked", at=0.7)] * 2)
    collectors = Collectors(day_request())
    [answer] = client.fetch(day_request(), collectors)
    assert answer.receiver.distinct == whole_day()
    assert starts(server) == [0, 0, 0]
    assert starts(server, "desc") == []
    assert collectors.states == ["discarded", "discarded", "finished"]


class ByGroup(RudeServer):
    """Answers `sort` within groups of events, one group after the other."""

    groups: tuple[set[int], ...] = ()

    def select_items(self, request, **options):
        found = super().select_items(request, **options)
        groups = self.groups if request.query["sort"] == "asc" else self.groups[::-1]
        return [item for group in groups for item in found if item.ms - START in group]


@pytest.mark.parametrize(
    ("groups", "resumes"),
    [
        ((range(0, 5000, 100), range(0, 300, 50)), False),  # its newest event is before the cut
        ((range(0, 5000, 100), range(50, 9000, 100)), True),  # the order breaks where the download was resumed
    ],
    ids=["newest", "joint"],
)
@pytest.mark.parametrize("parts", ["one part", "many parts"])
def test_download_of_groups_that_are_sorted_loses_none(request, groups, resumes, parts):
    if parts == "many parts":
        request.getfixturevalue("small_parts")
    account = simple(*{time for group in groups for time in group})
    with ByGroup(account, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.groups = tuple(map(set, groups))
        server.script(HITS, Act("cut length", at=0.2))
        assert fetch(client).distinct == whole_day(account)
        asked = starts(server)
        assert asked[-1] == 0
        assert any(asked) == resumes


@pytest.mark.parametrize("time", ["yesterday", None, True, -1, [1]], ids=str)
def test_download_starts_again_where_the_newest_event_has_no_time(time):
    account = simple(*range(0, 10_000, 100))
    odd = build_event("hits", id="odd", timestamp=0) | {"timestamp": time}
    account.misfits.append(Misfit("odd", "hits", START + 9999, 156, odd))
    with RudeServer(account, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.script(HITS, Act("cut length"))
        assert fetch(client).distinct == whole_day(account)
        assert starts(server) == [0, 0]


@pytest.mark.parametrize("name", ["503", "429"])
def test_download_goes_on_after_a_status_in_its_way(name):
    with RudeServer(HUNDRED, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.script(HITS, Act("cut length", at=0.8), None, name, name)
        assert fetch(client).distinct == whole_day(HUNDRED)
        assert starts(server) == [0, 7900, 7900, 7900]


class Unsorted(RudeServer):
    """Ignores `sort`: answers in the order of the ids."""

    def select_items(self, request, **options):
        return sorted(super().select_items(request, **options), key=lambda item: int(json.loads(item.body)["id"]))


@pytest.mark.parametrize("at", [0.3, 0.6])
def test_download_starts_again_where_the_api_ignores_sort(at):
    account = simple(500, 900, 100, 950)
    with Unsorted(account, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.script(HITS, Act("cut length", at=at))
        assert fetch(client).distinct == whole_day(account)
        assert starts(server) == [0, 0]


class RefusingDesc(RudeServer):
    def select_items(self, request, **options):
        if request.query["sort"] == "desc":
            raise Refusal(400, "sort is asc")
        return super().select_items(request, **options)


def test_download_starts_again_where_the_api_refuses_desc():
    with RefusingDesc(HUNDRED, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.script(HITS, Act("cut length"))
        assert fetch(client).distinct == whole_day(HUNDRED)
        assert starts(server) == [0, 0]
