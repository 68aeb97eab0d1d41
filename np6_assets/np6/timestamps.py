"""The unit of a time in the API's JSON, told by its size."""

from __future__ import annotations

MILLISECONDS_FROM, MICROSECONDS_FROM, NANOSECONDS_FROM = 10**11, 10**14, 10**17
"""A number below the first counts seconds, from the second on microseconds, from the third on nanoseconds."""


def to_milliseconds(number: int) -> int | None:
    """Convert a time to ms since the epoch; None for zero and negative numbers."""
    if number <= 0:
        return None
    if number < MILLISECONDS_FROM:
        return number * 1000
    if number < MICROSECONDS_FROM:
        return number
    return number // (1000 if number < NANOSECONDS_FROM else 1_000_000)
