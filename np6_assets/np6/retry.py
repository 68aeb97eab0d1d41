"""Retries: how often and after how long a failed request is repeated, and how long the API asks to wait."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

ResetUnit = Literal["epoch milliseconds", "epoch seconds", "seconds to wait"]


@dataclass(frozen=True)
class Retry:
    """How often a failed request is repeated, and the backoff between.

    `retries` counts failures in a row, without any progress. The first wait is random up to `backoff` seconds, each
    further one up to twice as much, and at least what the API asked for; none is longer than `longest_wait` seconds.
    """

    retries: int = 8
    backoff: float = 0.5
    longest_wait: float = 120.0

    def wait(self, failures: int, asked: float | None, chance: float) -> float:
        """Seconds to wait after so many failures in a row; `chance` is a random number from 0 to 1.

        Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        backoff = self.backoff * 2.0 ** min(failures - 1, 16) * chance
        return min(max(backoff, asked or 0.0), self.longest_wait)


def asked_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """How many seconds the API asks to wait, from `Retry-After` or `X-RateLimit-Reset`; None where it does not ask.

    `Retry-After` is seconds or an HTTP date (RFC 9110, 10.2.3). What `X-RateLimit-Reset` counts is not documented:
    a number is taken for epoch milliseconds, epoch seconds or seconds to wait by its size.
    """
    asked = headers.get("retry-after", "")
    seconds = _number(asked)
    if seconds is None:
        moment = http_date(asked)
        seconds = None if moment is None else (moment - now).total_seconds()
    if seconds is not None:
        return max(seconds, 0.0)
    reset = read_reset(headers.get("x-ratelimit-reset", ""), now)
    return None if reset is None else reset[1]


def read_reset(text: str, now: datetime) -> tuple[ResetUnit, float] | None:
    """What a value of `X-RateLimit-Reset` counts, told by its size, and how many seconds it asks to wait."""
    reset = _number(text)
    if reset is None:
        return None
    if reset > 1e11:
        return "epoch milliseconds", max(reset / 1000 - now.timestamp(), 0.0)
    if reset > 1e9:
        return "epoch seconds", max(reset - now.timestamp(), 0.0)
    return "seconds to wait", reset


def http_date(text: str) -> datetime | None:
    """The instant that a date of HTTP names; None where it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # the oldest of the three forms does not name its zone, which is UTC
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[ \t]*\d{1,18}(\.\d{1,9})?[ \t]*", text) else None
