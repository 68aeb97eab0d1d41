"""Halve failing requests of several days, down to the days that fail."""

from dataclasses import replace

import pytest

from np6_assets.np6.errors import AccessError, ForbiddenError, GaveUpError, NotFoundError
from np6_assets_tests.np6.collector import (
    ACCOUNT,
    HITS,
    START,
    Collectors,
    build_request,
    expect_elements,
    fetch_all,
    serve,
)
from np6_assets_tests.support.events import DAY_MS
from np6_assets_tests.support.rude_acts import Act
from np6_assets_tests.support.rude_server import Request, RudeServer


class BrokenDaysServer(RudeServer):
    """Answers `status` for each window that has noon of one of `days`, or is longer than `longest`."""

    status = "503"
    days: tuple[int, ...] = ()
    longest = 40 * DAY_MS

    def choose_act(self, request: Request) -> Act | None:
        start, end = (int(request.query[name]) - START for name in ("reactivityStart", "reactivityEnd"))
        is_broken = end - start > self.longest or any(start <= (day + 0.5) * DAY_MS < end for day in self.days)
        return Act(self.status) if is_broken else None


@pytest.mark.parametrize(
    ("status", "error", "requests"), [("503", GaveUpError, 2 * 3 + 2), ("404", NotFoundError, 3 + 2)]
)
def test_client_halves_a_request_down_to_the_failing_day(status, error, requests):
    with serve(ACCOUNT, BrokenDaysServer, retries=1) as (server, client):
        server.status, server.days = status, (1,)
        collectors = Collectors(build_request(-1, 4))
        answers = client.fetch(build_request(-1, 4), collectors)
        assert len(server.requests) == requests
    assert [answer.request for answer in answers] == [build_request(-1, 2), build_request(1), build_request(2)]
    first, failed, last = answers
    for answer in (first, last):
        assert answer.receiver.select_elements(answer.request) == expect_elements(request=answer.request)
    assert (first.error, failed.receiver, last.error) == (None, None, None)
    assert type(failed.error) is error
    assert f"GET {HITS} returned {status} " in str(failed.error)
    assert sorted(collectors.states) == ["discarded"] * (len(collectors.opened) - 2) + ["finished"] * 2


def test_client_fetches_single_days_from_an_api_with_short_windows():
    with serve(ACCOUNT, BrokenDaysServer, retries=0) as (server, client):
        server.longest = 1.5 * DAY_MS
        answers = client.fetch(build_request(-2, 5), Collectors(build_request(-2, 5)))
    assert [answer.request for answer in answers] == [build_request(number) for number in range(-2, 3)]
    for answer in answers:
        assert answer.receiver.select_elements(answer.request) == expect_elements(request=answer.request)


@pytest.mark.parametrize("status", ["401", "403"])
def test_client_halves_no_request_after_a_refused_key(status):
    with serve() as (server, client):
        server.script_always(HITS, status)
        collectors = Collectors(build_request(-1, 4))
        with pytest.raises(AccessError, match=status):
            client.fetch(build_request(-1, 4), collectors)
        assert len(server.requests) == 1
        assert collectors.states == ["discarded"]


@pytest.mark.parametrize("days", [1, 2])
def test_client_continues_after_a_forbidden_notification(days):
    request = replace(build_request(days=days), is_whole_feed=False)
    with serve() as (server, client):
        server.script_always(HITS, "403")
        answers = client.fetch(request, Collectors(request))
        assert {type(answer.error) for answer in answers} == {ForbiddenError}
        assert (answers[0].request.start, answers[-1].request.end) == (request.start, request.end)
        server.reset_faults()
        server.script_always(HITS, "401")
        with pytest.raises(AccessError, match="401"):
            client.fetch(request, Collectors(request))


def test_fetch_all_returns_failed_days_in_order():
    with serve(ACCOUNT, BrokenDaysServer, retries=1) as (server, client):
        server.days = (0, 3)
        answers = fetch_all(client, [build_request(number, 2) for number in (-2, 0, 2, 4)])
    assert [[(answer.request, answer.error is None) for answer in one] for one in answers] == [
        [(build_request(-2, 2), True)],
        [(build_request(0), False), (build_request(1), True)],
        [(build_request(2), True), (build_request(3), False)],
        [(build_request(4, 2), True)],
    ]


@pytest.mark.parametrize(("status", "most"), [("503", 5 + 2 * 9), ("404", 9)])
def test_client_gives_up_early_on_a_range(status, most):
    with serve(retries=4) as (server, client):
        server.script_always(HITS, status)
        answers = client.fetch(build_request(0, 31), Collectors(build_request(0, 31)))
        # windows of 31 days, 15, 7, 3, 1, and days and pairs until three have failed; the halves are attempted twice
        assert len(server.requests) <= most
    assert all(answer.error is not None for answer in answers)
    edges = [answer.request.start for answer in answers] + [answers[-1].request.end]
    assert edges == [build_request().start, *(answer.request.end for answer in answers)]
    assert edges[-1] == build_request(30).end
