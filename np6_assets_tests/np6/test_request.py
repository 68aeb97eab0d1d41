"""Build a request's parameters, and halve its window."""

from datetime import UTC, datetime, timedelta

import pytest

from np6_assets.np6.request import Request
from np6_assets_tests.np6.collector import HITS, START, build_request
from np6_assets_tests.support.events import DAY_MS

END = datetime(2026, 3, 21, tzinfo=UTC)
MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("since_end", "has_end"),
    [
        (timedelta(days=-400), False),
        (timedelta(0), False),
        (timedelta(hours=23, minutes=59, seconds=59), False),
        (timedelta(hours=24, milliseconds=1), True),
        (timedelta(days=400), True),
    ],
)
def test_request_sends_an_end_more_than_a_day_ago(since_end, has_end):
    parameters = build_request().build_parameters(END + since_end)
    end = {"reactivityEnd": str(START + DAY_MS + MINUTE_MS)} if has_end else {}
    assert parameters == {"reactivityStart": str(START), "sort": "asc", **end}


def test_request_overrides_start_and_sort():
    request = Request("/activations", "start", "end", (START, START + DAY_MS))
    now = END + timedelta(days=2)
    end = str(START + DAY_MS + MINUTE_MS)
    assert request.build_parameters(now, START + 5) == {"start": str(START + 5), "end": end, "sort": "asc"}
    assert request.build_parameters(now, sort="desc") == {"start": str(START), "end": end, "sort": "desc"}


@pytest.mark.parametrize("days", range(1, 12))
def test_request_halves_at_a_day(days):
    request = build_request(-3, days)
    assert (request.start, request.end) == (START - 3 * DAY_MS, START + (days - 3) * DAY_MS)
    if days == 1:
        assert request.halves == ()
        return
    first, second = request.halves
    assert (first.start, first.end, second.end) == (request.start, second.start, request.end)
    assert (first.edges + second.edges[1:], first.path) == (request.edges, HITS)
    assert abs(len(first.edges) - len(second.edges)) <= 1
