"""Build the charts as SVG paths and positions in percent: they hold no text, so that they stretch to any width.

A chart is 1000 wide and 100 high; the page draws lines of the same width however it is stretched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

from np6_assets.partitions import consecutive
from np6_assets.rates.measures import Measure, Share
from np6_assets.report.formatting import format_day
from np6_assets.report.queries import Group

Point = tuple[float, float]
"""From the left, from the top."""

WIDTH, HEIGHT = 1000, 100

_HALF_BAR = 0.3
"""Half the width of the interval of a single day, in percent."""


@dataclass(frozen=True)
class Panel:
    """A rate over the days. `ticks` are texts and how far up they stand, in percent; `heights` those of the days."""

    name: str
    ticks: list[tuple[str, float]]
    band: str
    full: str
    dashed: str
    dots: dict[str, str]
    heights: list[float | None]


@dataclass(frozen=True)
class Axis:
    """The days of a chart: `places` are those of the days with rows, `ticks` texts and places; in percent."""

    places: list[float]
    ticks: list[tuple[str, float]]


def build_axis(days: Sequence[Group], first: date, last: date) -> Axis:
    """Place the days from left to right."""
    number = (last - first).days + 1

    def place(day: date) -> float:
        return round(((day - first).days + 0.5) / number * 100, 2)

    step = next(step for step in (1, 2, 7, 14, 28, 56, 91, 182, 364, 3660) if number / step <= 5)
    named = [last - timedelta(days=ago) for ago in range(step // 2 if number > step else 0, number, step)]
    return Axis([place(day.key) for day in days], [(format_day(day), place(day)) for day in reversed(named)])


def build_panel(measure: Measure, days: Sequence[Group], places: Sequence[float]) -> Panel:
    """Draw a rate over the days; the line is broken where a day has none, and dashed where a day is not final."""
    shares = [day.shares[measure.column] for day in days]
    highest = max((share.rate or 0.0 for share in shares), default=0.0)
    # the wide interval of a day with few sends may leave the picture: it would flatten all other days
    reached = max((share.interval[1] for share in shares if share.interval), default=0.0)
    ticks = choose_ticks(max(min(reached, 1.6 * highest), 0.001))
    top = ticks[-1]

    def at(place: float, rate: float) -> Point:
        return place * WIDTH / 100, HEIGHT * (1 - min(rate, 1.5 * top) / top)

    band: list[str] = []
    full: list[str] = []
    dashed: list[str] = []
    known = [index for index, share in enumerate(shares) if share.rate is not None]
    for run in consecutive(days[index].key for index in known):
        indices = [index for index in known if run[0] <= days[index].key <= run[-1]]
        line = [at(places[index], shares[index].rate or 0.0) for index in indices]
        bands = [(places[index], shares[index].interval) for index in indices]
        if len(bands) == 1:  # a band has no width then
            bands = [(bands[0][0] + offset, bands[0][1]) for offset in (-_HALF_BAR, _HALF_BAR)]
        upper = [at(place, ends[1]) for place, ends in bands if ends]
        lower = [at(place, ends[0]) for place, ends in bands if ends]
        band.append(_write_path([*upper, *reversed(lower)]) + "Z" if upper else "")
        is_final = [days[index].status == "final" for index in indices]
        for whole, steps in groupby(range(len(indices) - 1), _are_both(is_final)):
            ends = list(steps)
            (full if whole else dashed).append(_write_path(line[ends[0] : ends[-1] + 2]))
    dots = {
        status: "".join(
            _write_dot(at(places[index], shares[index].rate or 0.0)) for index in known if days[index].status == status
        )
        for status in ("final", "open", "incomplete")
    }
    heights = [None if share.rate is None else round(min(share.rate / top, 1.0) * 100, 1) for share in shares]
    texts = [(_format_tick(tick, top), tick / top * 100) for tick in ticks]
    return Panel(measure.name, texts, "".join(band), "".join(full), "".join(dashed), dots, heights)


def _are_both(flags: Sequence[bool]) -> Callable[[int], bool]:
    return lambda at: flags[at] and flags[at + 1]


def choose_ticks(highest: float) -> list[float]:
    """Choose round numbers from 0 to at least `highest`, three or four of them."""
    raw = highest / 3
    unit = 10 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit * 3 >= highest * 0.999)
    return [step * number for number in range(math.ceil(highest * 0.999 / step) + 1)]


def _format_tick(tick: float, top: float) -> str:
    digits = 0 if top >= 0.1 else 1 if top >= 0.01 else 2
    return f"{tick * 100:.{digits}f}".rstrip("0").rstrip(".") + "%" if digits else f"{tick * 100:.0f}%"


def build_sparkline(shares: Sequence[Share]) -> tuple[str, str]:
    """Draw a line of 100 by 20 from 0 to its highest value, and the dot at its end; broken as a panel's."""
    top = max((share.rate or 0.0 for share in shares), default=0.0) or 1.0
    points = [
        None if share.rate is None else (2 + 96 * (at + 0.5) / len(shares), 18 - 16 * share.rate / top)
        for at, share in enumerate(shares)
    ]
    runs = [list(run) for is_there, run in groupby(points, lambda point: point is not None) if is_there]
    line = "".join(
        _write_path([point for point in run if point]) if len(run) > 1 else _write_dot(run[0]) for run in runs if run[0]
    )
    last = next((point for point in reversed(points) if point), None)
    return line, _write_dot(last) if last else ""


def _write_path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{_format_number(x)} {_format_number(y)}" for x, y in points)


def _write_dot(point: Point | None) -> str:
    """Write a line of no length: with round ends it is a dot however the chart is stretched."""
    return "" if point is None else f"M{_format_number(point[0])} {_format_number(point[1])}h0"


def _format_number(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
