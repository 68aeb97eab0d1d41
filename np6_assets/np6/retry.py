"""Retries: how often, the backoff between them, and how long the API asks to wait."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

ResetUnit = Literal["epoch milliseconds", "epoch seconds", "seconds to wait"]


@dataclass(frozen=True)
class RetryPolicy:
    """How often a failed request is retried, and the backoff between.

    `retries` counts failures in a row without progress. The first wait is random up to `backoff` seconds, each further
    one up to twice as much, and at least what the API asks for; none is longer than `longest_wait` seconds.
    """

    retries: int = 8
    backoff: float = 0.5
    longest_wait: float = 120.0

    def compute_wait(self, failures: int, requested: float | None, chance: float) -> float:
        """Compute the seconds to wait after so many failures in a row; `chance` is random from 0 to 1.

        Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        backoff = self.backoff * 2.0 ** min(failures - 1, 16) * chance
        return min(max(backoff, requested or 0.0), self.longest_wait)


def read_requested_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Read how many seconds the API asks to wait, from `Retry-After` or `X-RateLimit-Reset`; None if it does not.

    `Retry-After` is seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    requested = headers.get("retry-after", "")
    seconds = _parse_number(requested)
    if seconds is None:
        moment = parse_http_date(requested)
        seconds = None if moment is None else (moment - now).total_seconds()
    if seconds is not None:
        return max(seconds, 0.0)
    reset = read_reset(headers.get("x-ratelimit-reset", ""), now)
    return None if reset is None else reset[1]


def read_reset(text: str, now: datetime) -> tuple[ResetUnit, float] | None:
    """Read `X-RateLimit-Reset`: its unit, and the seconds to wait. The unit is not documented, and told by size."""
    reset = _parse_number(text)
    if reset is None:
        return None
    if reset > 1e11:
        return "epoch milliseconds", max(reset / 1000 - now.timestamp(), 0.0)
    if reset > 1e9:
        return "epoch seconds", max(reset - now.timestamp(), 0.0)
    return "seconds to wait", reset


def parse_http_date(text: str) -> datetime | None:
    """Parse a date of an HTTP header; None if it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # the oldest of the three forms does not name its zone, which is UTC
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _parse_number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[ \t]*\d{1,18}(\.\d{1,9})?[ \t]*", text) else None
