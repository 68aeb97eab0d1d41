"""Compute the time of a request from our clock and the API's."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from np6_assets.np6.clock import ApiClock, RequestTime

NOW = datetime(2026, 3, 20, 9, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def observe_date(date: str) -> tuple[ApiClock, list[str]]:
    warnings: list[str] = []
    clock = ApiClock(warnings.append)
    clock.observe(date, NOW)
    clock.observe(date, NOW)
    return clock, warnings


@pytest.mark.parametrize("ahead", [-2 * HOUR, -timedelta(seconds=59), timedelta(0), timedelta(seconds=60), 2 * HOUR])
def test_clock_takes_the_earlier_time(ahead: timedelta):
    clock, warnings = observe_date(format_datetime(NOW + ahead, usegmt=True))
    earlier = NOW - HOUR
    assert clock.get_request_time(earlier) == RequestTime(earlier + min(ahead, timedelta(0)), earlier + ahead)
    assert len(warnings) == (abs(ahead) > timedelta(minutes=1))


def test_clock_warns_once_with_the_direction():
    assert observe_date(format_datetime(NOW - 2 * HOUR, usegmt=True))[1] == [
        "this machine's clock is 120 minutes ahead of the API's: set it right"
    ]
    assert observe_date(format_datetime(NOW + 2 * HOUR, usegmt=True))[1] == [
        "this machine's clock is 120 minutes behind the API's: set it right"
    ]


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 99 Mar 2026 09:30:00 GMT"])
def test_clock_without_a_date_header_is_a_day_behind(date: str):
    clock, warnings = observe_date(date)
    assert clock.get_request_time(NOW) == RequestTime(NOW - DAY, None)
    assert warnings == ["the API sends no Date: days are taken to be complete, and closed, a day later"]
