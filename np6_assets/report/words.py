"""How numbers, days and ids are written on the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date

from np6_assets.partitions import consecutive
from np6_assets.rates.pictures import NONE, Share, percent

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

ENOUGH_CLICKS = 15
"""Clicks from which on a rate can be relied on: as many as `is_few` asks for, roughly."""

SHORTEST_ID = 8
"""Characters of an id that is shown short, at the least."""


def count(number: int | None) -> str:
    """A count; a dash where it is not known."""
    return NONE if number is None else f"{number:,}"


def about(number: float) -> str:
    """A count that is estimated: two digits of it."""
    size = round(abs(number))
    step = 10 ** max(len(str(size)) - 2, 0)
    return f"{round(size / step) * step:,}"


def of_counts(share: Share) -> str:
    """A rate with what it is made of."""
    if share.rate is None:
        return "no sends to tell a rate from"
    text = f"{percent(share.rate)}: {share.part:,} of {share.whole:,}"
    return f"{text}, 95% interval {between(share)}" if share.interval else text


def between(share: Share) -> str:
    """The 95 % interval of a rate; nothing where there is none."""
    if share.interval is None:
        return ""
    low, high = (end * 100 for end in share.interval)
    digits = 2 if high < 1 else 1
    return f"{low:.{digits}f} to {high:.{digits}f}%"


def is_few(share: Share) -> bool:
    """Whether a rate is of too few sends to rely on: its 95 % interval is wider than itself, and than one point."""
    if share.rate is None or share.interval is None:
        return False
    low, high = share.interval
    return high - low > max(share.rate, 0.01)


def points(difference: float | None) -> str:
    """A difference of rates, in percentage points."""
    return NONE if difference is None else f"{difference * 100:+.2f}".replace("-", "\N{MINUS SIGN}")


def p_value(value: float | None) -> str:
    """A p-value."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def day(moment: date) -> str:
    """A day without its year, whatever the machine's language."""
    return f"{moment.day} {_MONTHS[moment.month - 1]}"


def weekday(at: int) -> str:
    """A day of the week; 0 is Monday."""
    return _WEEKDAYS[at]


def dated(moment: date) -> str:
    """A day with its day of the week."""
    return f"{weekday(moment.weekday())} {day(moment)}"


def stretch(first: date, last: date) -> str:
    """The days from one to another, without the year."""
    if first == last:
        return day(first)
    is_same_month = (first.year, first.month) == (last.year, last.month)
    return f"{first.day if is_same_month else day(first)} to {day(last)}"


def stretches(days: Iterable[date]) -> str:
    """Some days, those that follow one another as a stretch."""
    return ", ".join(stretch(run[0], run[-1]) for run in consecutive(days))


def hour_of(hour: int) -> str:
    """An hour of the clock."""
    return f"{hour:02}:00 to {hour:02}:59"


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """The ids cut as short as leaves them different."""
    different = set(ids)
    for length in range(SHORTEST_ID, max(map(len, different), default=0) + 1):
        if len({id_[:length] for id_ in different}) == len(different):
            return {id_: id_[:length].rstrip("-") if len(id_) > length + 2 else id_ for id_ in different}
    return {id_: id_ for id_ in different}


def figures(text: str) -> list[tuple[bool, str]]:
    """A sentence in pieces, each with whether it is a figure to be seen first: a rate, or a number of clicks."""
    pieces = re.split(r"(\d[\d.,]*%|about [\d,]+ (?:more|fewer) clicks)", text)
    return [(at % 2 == 1, piece) for at, piece in enumerate(pieces) if piece]
