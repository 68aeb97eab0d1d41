"""Resume cut downloads if the API is known to sort, else restart them."""

import json

import pytest

from np6_assets_tests.np6.collector import (
    HITS,
    OPTOUTS,
    START,
    Collectors,
    build_account,
    build_request,
    expect_elements,
    fetch,
    list_starts,
    serve,
    write_small_parts,
)
from np6_assets_tests.support.events import BadEvent, build_event
from np6_assets_tests.support.rude_acts import Act
from np6_assets_tests.support.rude_server import Refusal, RudeServer

HUNDRED = build_account(*range(0, 10_000, 100))


@pytest.mark.parametrize("name", ["cut length", "cut chunked", "cut close", "cut after comma", "reset in body"])
def test_download_resumes_from_its_last_whole_event(name):
    with serve(HUNDRED) as (server, client):
        server.script(HITS, Act(name, at=0.8), None, Act(name, at=0.5))
        collector = fetch(client)
        starts = list_starts(server)
        assert [request.query["sort"] for request in server.requests] == ["asc", "desc", "asc", "asc"]
        assert list_starts(server, "desc") == [0]
    if name != "reset in body":  # a reset may lose bytes that were sent
        assert starts[1] == 7900  # in the middle of the event at 8000, or just before it
        assert starts[2] == 8800  # half of the remaining 21
    assert starts == sorted(starts)
    assert collector.select_elements() == expect_elements(HUNDRED)
    # once each, except events shared by two answers
    assert len(collector.elements) == 100 + (starts[1] > starts[0]) + (starts[2] > starts[1])


def test_download_progresses_through_more_cuts_than_retries(monkeypatch):
    write_small_parts(monkeypatch)
    with serve(HUNDRED, retries=1) as (server, client):
        server.script(HITS, Act("cut chunked", at=0.3), None, *[Act("cut chunked", at=0.3)] * 5)
        collector = fetch(client)
        starts = list_starts(server)
    assert len(starts) == 7
    assert starts == sorted(set(starts))
    assert starts[-1] >= 8_000
    assert collector.select_elements() == expect_elements(HUNDRED)
    assert len(collector.elements) == 100 + 6


def test_download_has_all_events_of_the_millisecond_of_a_cut():
    account = build_account(*[0] * 5, *[500] * 30, *[900] * 5)  # the server orders ties at random
    with serve(account) as (server, client):
        server.script(HITS, Act("cut chunked", at=0.5), None, Act("cut chunked", at=0.5))
        assert fetch(client).select_elements() == expect_elements(account)
        assert list_starts(server) == [0, 500, 500]


def test_client_checks_sorting_once_a_feed():
    account = build_account(*range(0, 10_000, 100))
    account.optouts = build_account(*range(0, 10_000, 100), kind="optouts").optouts
    with serve(account) as (server, client):
        for path in (HITS, OPTOUTS):
            server.script(path, Act("cut length"), None, Act("cut length"), None, Act("cut length"))
            for _ in range(2):
                assert len(set(fetch(client, build_request(path=path)).texts)) == 100
            sorts = [one.query["sort"] for one in server.list_requests(path)]
            assert sorts == ["asc", "desc", "asc", "asc", "asc", "asc"]


@pytest.mark.parametrize("name", ["503", "429"])
def test_download_resumes_after_error_statuses(name):
    with serve(HUNDRED) as (server, client):
        server.script(HITS, Act("cut length", at=0.8), None, name, name)
        assert fetch(client).select_elements() == expect_elements(HUNDRED)
        assert list_starts(server) == [0, 7900, 7900, 7900]


# --- restarts -----------------------------------------------------------------------------------------------------


def test_download_restarts_if_sorting_cannot_be_checked():
    with serve(HUNDRED) as (server, client):
        server.script(HITS, Act("cut length"), "503", Act("cut length"), None)
        assert fetch(client).select_elements() == expect_elements(HUNDRED)
        assert (list_starts(server), list_starts(server, "desc")) == ([0, 0, 4900], [0, 0])


@pytest.mark.parametrize("cut", ["before the first event", "where parts do not ascend"])
def test_download_restarts_without_checking_sorting(monkeypatch, cut):
    write_small_parts(monkeypatch)
    with serve() as (server, client):
        server.sorts = cut == "before the first event"
        server.script(HITS, Act("cut chunked", at=0.0 if server.sorts else 0.7))
        collectors = Collectors(build_request())
        [answer] = client.fetch(build_request(), collectors)
        assert answer.receiver.select_elements() == expect_elements()
        assert (list_starts(server), list_starts(server, "desc")) == ([0, 0], [])
        assert collectors.states == ["discarded", "finished"]


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
@pytest.mark.parametrize("parts", ["one", "many"])
def test_download_loses_no_event_of_sorted_groups(monkeypatch, groups, resumes, parts):
    if parts == "many":
        write_small_parts(monkeypatch)
    account = build_account(*{time for group in groups for time in group})
    with serve(account, GroupingServer) as (server, client):
        server.groups = tuple(map(set, groups))
        server.script(HITS, Act("cut length", at=0.2))
        assert fetch(client).select_elements() == expect_elements(account)
        starts = list_starts(server)
    assert starts[-1] == 0
    assert any(starts) == resumes


class UnsortedServer(RudeServer):
    """Ignores `sort` and orders by id."""

    def select_items(self, request, **options):
        return sorted(super().select_items(request, **options), key=lambda item: int(json.loads(item.body)["id"]))


class AscendingServer(RudeServer):
    """Refuses to sort in descending order."""

    def select_items(self, request, **options):
        if request.query["sort"] == "desc":
            raise Refusal(400, "sort is asc")
        return super().select_items(request, **options)


@pytest.mark.parametrize("time", ["yesterday", None, True, -1, [1]], ids=str)
def test_download_restarts_if_the_newest_event_has_no_time(time):
    account = build_account(*range(0, 10_000, 100))
    odd = build_event("hits", id="odd", timestamp=0) | {"timestamp": time}
    account.bad_events.append(BadEvent("odd", "hits", START + 9999, 156, odd))
    assert_restarted(account, RudeServer)


@pytest.mark.parametrize("at", [0.3, 0.6])
def test_download_restarts_if_the_api_ignores_sort(at):
    assert_restarted(build_account(500, 900, 100, 950), UnsortedServer, at)


def test_download_restarts_if_the_api_refuses_desc():
    assert_restarted(HUNDRED, AscendingServer)


def assert_restarted(account, server_type, at=0.5):
    with serve(account, server_type) as (server, client):
        server.script(HITS, Act("cut length", at=at))
        assert fetch(client).select_elements() == expect_elements(account)
        assert list_starts(server) == [0, 0]
