"""The API's clock, as the Date of its answers says it, beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from np6_assets.np6.retry import http_date

TOLERANCE = timedelta(minutes=1)
"""Clocks that differ by more are a warning."""

WITHOUT_DATE = timedelta(days=1)
"""Where the API sends no Date, ours is taken to be ahead by this much."""


@dataclass(frozen=True)
class AskedAt:
    """When the API was asked for something.

    Attributes:
        at: by the earlier of both clocks; the answer is complete until then, but for what the API publishes late.
        by_api: by the API's clock alone; None where it sends no Date.
    """

    at: datetime
    by_api: datetime | None = None


class ApiClock:
    """Learns from answers how far the API's clock is ahead of ours. `warn` takes one line, once."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._ahead: timedelta | None = None
        self._has_warned = False

    def observe(self, date: str, now: datetime) -> None:
        """Take the Date of an answer that begins now, by our clock; empty where it has none."""
        there = http_date(date)
        self._ahead = None if there is None else there - now
        if self._has_warned or (self._ahead is not None and abs(self._ahead) <= TOLERANCE):
            return
        self._has_warned = True
        if self._ahead is None:
            self._warn("the API sends no Date: days are taken to be complete, and closed, a day later")
        else:
            minutes, where = abs(self._ahead) // TOLERANCE, "behind" if self._ahead > timedelta(0) else "ahead of"
            self._warn(f"this machine's clock is {minutes} minutes {where} the API's: set it right")

    def asked_at(self, ours: datetime) -> AskedAt:
        """What was asked for at a time by our clock, once it is answered."""
        if self._ahead is None:
            return AskedAt(ours - WITHOUT_DATE)
        return AskedAt(ours + min(self._ahead, timedelta(0)), ours + self._ahead)
