"""Build a chart of a rate over the days as SVG paths and positions in percent, which stretch to any size.

A chart is 1000 wide and 100 high and holds no text; its lines have one width however it is stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby, pairwise

from np6_assets.partitions import consecutive
from np6_assets.rates.columns import Status
from np6_assets.rates.measures import Cohort, Measure, Share

Point = tuple[float, float]
"""From the left, from the top."""

WIDTH, HEIGHT = 1000, 100

_HALF_BAR = 3
"""Half the width of the interval of a single day."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Panel:
    """A rate over the days. `ticks` are texts and how far up they stand, in percent; `heights` those of the days.

    `dots` are by status.
    """

    name: str
    ticks: list[tuple[str, float]]
    band: str
    full: str
    dashed: str
    dots: Mapping[str, str]
    heights: list[float | None]


@dataclass(frozen=True)
class Axis:
    """The days of a chart: `places` are those of the days with rows, `ticks` texts and places; in percent."""

    places: list[float]
    ticks: list[tuple[str, float]]


_Mark = tuple[Point, tuple[float, float] | None, Status]
"""A day with a rate: its point, the heights of the ends of its interval, its status."""


def build_axis(days: Iterable[date], first: date, last: date) -> Axis:
    """Place the days from left to right."""
    number = (last - first).days + 1

    def place(day: date) -> float:
        return round(((day - first).days + 0.5) / number * 100, 2)

    step = next(step for step in (1, 2, 7, 14, 28, 56, 91, 182, 364, 3660) if number / step <= 5)
    named = [last - timedelta(days=ago) for ago in range(step // 2 if number > step else 0, number, step)]
    return Axis([place(day) for day in days], [(format_day(day), place(day)) for day in reversed(named)])


def build_panel(measure: Measure, cohorts: Sequence[Cohort], places: Sequence[float]) -> Panel:
    """Draw a rate over the cohorts; the line is broken where a day has none, and dashed where a day is not final."""
    shares = [cohort.shares[measure.column] for cohort in cohorts]
    ticks = choose_ticks(_find_highest(shares))
    top = ticks[-1]

    def to_height(rate: float) -> float:
        return HEIGHT * (1 - min(rate, 1.5 * top) / top)

    marks = {
        cohort.day: (
            (place * WIDTH / 100, to_height(share.rate)),
            share.interval and (to_height(share.interval[0]), to_height(share.interval[1])),
            cohort.status,
        )
        for cohort, place, share in zip(cohorts, places, shares, strict=True)
        if share.rate is not None
    }
    runs = [[marks[day] for day in run] for run in consecutive(marks)]
    return Panel(
        measure.name,
        [(_format_tick(tick, top), tick / top * 100) for tick in ticks],
        "".join(map(_write_band, runs)),
        "".join(_write_lines(run, final=True) for run in runs),
        "".join(_write_lines(run, final=False) for run in runs),
        {
            status: "".join(write_dot(point) for point, _, found in marks.values() if found == status)
            for status in ("final", "open", "incomplete")
        },
        [None if share.rate is None else round(min(share.rate / top, 1.0) * 100, 1) for share in shares],
    )


def build_sparkline(shares: Sequence[Share]) -> tuple[str, str]:
    """Draw a line of 100 by 20 from 0 to its highest value, and the dot at its end; broken as a panel's."""
    top = max((share.rate or 0.0 for share in shares), default=0.0) or 1.0
    points = [
        None if share.rate is None else (2 + 96 * (at + 0.5) / len(shares), 18 - 16 * share.rate / top)
        for at, share in enumerate(shares)
    ]
    runs = [[point for point in run if point] for _, run in groupby(points, lambda point: point is None)]
    line = "".join(write_path(run) if len(run) > 1 else write_dot(run[0]) for run in runs if run)
    last = next((point for point in reversed(points) if point), None)
    return line, write_dot(last) if last else ""


def choose_ticks(highest: float) -> list[float]:
    """Choose round numbers from 0 to at least `highest`, three or four of them."""
    raw = highest / 3
    unit = 10 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit * 3 >= highest * 0.999)
    return [step * number for number in range(math.ceil(highest * 0.999 / step) + 1)]


def write_path(points: Iterable[Point]) -> str:
    """Write a line through some points."""
    return "M" + "L".join(f"{_format_number(x)} {_format_number(y)}" for x, y in points)


def write_dot(point: Point) -> str:
    """Write a line of no length: with round ends it is a dot however the chart is stretched."""
    return f"M{_format_number(point[0])} {_format_number(point[1])}h0"


def format_day(moment: date) -> str:
    """Format a day without its year, in English whatever the locale."""
    return f"{moment.day} {_MONTHS[moment.month - 1]}"


def _find_highest(shares: Sequence[Share]) -> float:
    """Find what has to be inside the chart: the wide interval of a day with few sends would flatten all other days."""
    highest = max((share.rate or 0.0 for share in shares), default=0.0)
    reached = max((share.interval[1] for share in shares if share.interval), default=0.0)
    return max(min(reached, 1.6 * highest), 0.001)


def _write_band(run: Sequence[_Mark]) -> str:
    """Write the area between the ends of the intervals of consecutive days."""
    offsets = (-_HALF_BAR, _HALF_BAR) if len(run) == 1 else (0,)
    ends = [(x + offset, interval) for (x, _), interval, _ in run if interval for offset in offsets]
    upper, lower = [(x, high) for x, (_, high) in ends], [(x, low) for x, (low, _) in ends]
    return write_path([*upper, *reversed(lower)]) + "Z" if ends else ""


def _write_lines(run: Sequence[_Mark], *, final: bool) -> str:
    """Write the lines between consecutive days that are both final, or between the others."""
    lines = groupby(pairwise(run), lambda pair: all(status == "final" for *_, status in pair))
    return "".join(
        write_path([pairs[0][0][0], *(after[0] for _, after in pairs)])
        for is_final, pairs in ((key, list(found)) for key, found in lines)
        if is_final == final
    )


def _format_tick(tick: float, top: float) -> str:
    digits = 0 if top >= 0.1 else 1 if top >= 0.01 else 2
    return f"{tick * 100:.{digits}f}".rstrip("0").rstrip(".") + "%" if digits else f"{tick * 100:.0f}%"


def _format_number(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
