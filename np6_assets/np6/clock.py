"""The API's clock, from the Date header of its responses, compared with ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from np6_assets.np6.retry import parse_http_date

TOLERANCE = timedelta(minutes=1)
"""A larger difference between the clocks is a warning."""

WITHOUT_DATE = timedelta(days=1)
"""Without a Date header, our clock may be ahead by this much."""


@dataclass(frozen=True)
class RequestTime:
    """When a request was sent.

    Attributes:
        at: by the earlier of both clocks; until then the answer is complete, late-arriving events aside.
        by_api: by the API's clock alone; None without a Date header.
    """

    at: datetime
    by_api: datetime | None = None


class ApiClock:
    """Measures how far the API's clock is ahead of ours. `warn` takes one line, once."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._ahead: timedelta | None = None
        self._has_warned = False

    def observe(self, date: str, now: datetime) -> None:
        """Observe the Date of a response that begins now, by our clock; empty if it has none."""
        there = parse_http_date(date)
        self._ahead = None if there is None else there - now
        if self._has_warned or (self._ahead is not None and abs(self._ahead) <= TOLERANCE):
            return
        self._has_warned = True
        if self._ahead is None:
            self._warn("the API sends no Date: days are taken to be complete, and closed, a day later")
        else:
            minutes, where = abs(self._ahead) // TOLERANCE, "behind" if self._ahead > timedelta(0) else "ahead of"
            self._warn(f"this machine's clock is {minutes} minutes {where} the API's: set it right")

    def get_request_time(self, ours: datetime) -> RequestTime:
        """Return the time of a request sent at a time by our clock, once it is answered."""
        if self._ahead is None:
            return RequestTime(ours - WITHOUT_DATE)
        return RequestTime(ours + min(self._ahead, timedelta(0)), ours + self._ahead)
