"""Format numbers, days and ids for the page."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from np6_assets.partitions import consecutive
from np6_assets.rates.measures import NONE, Share, format_percent
from np6_assets.rates.panel import format_day

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

SHORTEST_ID = 8
"""Characters of an id that is shown short, at the least."""


def format_count(number: int | None) -> str:
    """Format a count; a dash where it is unknown."""
    return NONE if number is None else f"{number:,}"


def format_estimate(number: float) -> str:
    """Format an estimated count: two digits of it."""
    size = round(abs(number))
    step = 10 ** max(len(str(size)) - 2, 0)
    return f"{round(size / step) * step:,}"


def format_share(share: Share) -> str:
    """Format a rate with its counts."""
    if share.rate is None:
        return "no sends to tell a rate from"
    text = f"{format_percent(share.rate)}: {share.part:,} of {share.whole:,}"
    return f"{text}, 95% interval {format_interval(share)}" if share.interval else text


def format_interval(share: Share) -> str:
    """Format the 95 % interval of a rate; empty where there is none."""
    if share.interval is None:
        return ""
    low, high = (end * 100 for end in share.interval)
    digits = 2 if high < 1 else 1
    return f"{low:.{digits}f} to {high:.{digits}f}%"


def is_few(share: Share) -> bool:
    """Tell whether a rate has too few sends to rely on: its 95 % interval is wider than itself, and than one point."""
    if share.rate is None or share.interval is None:
        return False
    low, high = share.interval
    return high - low > max(share.rate, 0.01)


def format_points(difference: float | None) -> str:
    """Format a difference of rates, in percentage points."""
    return NONE if difference is None else f"{difference * 100:+.2f}".replace("-", "\N{MINUS SIGN}")


def format_p_value(value: float | None) -> str:
    """Format a p-value."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def format_date(moment: date) -> str:
    """Format a day with its day of the week."""
    return f"{WEEKDAYS[moment.weekday()]} {format_day(moment)}"


def format_range(first: date, last: date) -> str:
    """Format the days from one to another, without the year."""
    if first == last:
        return format_day(first)
    is_same_month = (first.year, first.month) == (last.year, last.month)
    return f"{first.day if is_same_month else format_day(first)} to {format_day(last)}"


def format_ranges(days: Iterable[date]) -> str:
    """Format some days, consecutive ones as a range."""
    return ", ".join(format_range(run[0], run[-1]) for run in consecutive(days))


def format_hour(hour: int) -> str:
    """Format an hour of the clock."""
    return f"{hour:02}:00 to {hour:02}:59"


def shorten_ids(ids: Iterable[str | None]) -> dict[str, str]:
    """Shorten ids as far as they stay different; missing ones are left out."""
    different = {id_ for id_ in ids if id_}
    for length in range(SHORTEST_ID, max(map(len, different), default=0) + 1):
        if len({id_[:length] for id_ in different}) == len(different):
            return {id_: id_[:length].rstrip("-") if len(id_) > length + 2 else id_ for id_ in different}
    return {id_: id_ for id_ in different}


FILTERS = {
    "percent": format_percent,
    "count": format_count,
    "about": format_estimate,
    "between": format_interval,
    "of_counts": format_share,
    "points": format_points,
    "p_value": format_p_value,
    "stretches": format_ranges,
    "dated": format_date,
    "raw": lambda number: "-1" if number is None else repr(number),  # to sort by: what is missing comes last
}
"""The templates' filters."""
