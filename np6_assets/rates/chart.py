"""Draw the rates over the cohorts, for Dagster's UI."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from np6_assets.partitions import consecutive
from np6_assets.rates.measures import MEASURES, Cohort, Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1f24"
MUTED = "#57606a"
ACCENT = "#0b5cad"

_PANEL_HEIGHT = 2.1


def draw_chart(cohorts: Sequence[Cohort], *, columns: int, width: float) -> str:
    """Draw an SVG of the hit, optout and bounce rate over the cohorts; sizes in inches.

    What is final is a full line with full dots; what is not, a dashed one with hollow dots, or diamonds for what is
    incomplete; the band is the 95 % interval of each day. A line is broken where a day is missing.
    """
    from matplotlib.figure import Figure

    rows = -(-len(MEASURES) // columns)
    figure = Figure(figsize=(width, _PANEL_HEIGHT * rows + 0.25))
    _set_margins(figure, rows, columns)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for measure, panel in zip(MEASURES, panels.flat, strict=True):
        _draw_panel(panel, measure, cohorts)
    return _write_svg(figure)


def _write_svg(figure: Figure) -> str:
    """Write the figure as SVG with its texts as text."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rates"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    # a hundredth of a point is finer than any eye, and a third of the size
    return re.sub(r"(\.\d\d)\d+", r"\1", text[text.index("<svg") :])


def _set_margins(figure: Figure, rows: int, columns: int) -> None:
    """Leave room for numbers and titles around the panels.

    matplotlib's own layouts draw everything twice to find out, which is two thirds of a chart's time.
    """
    width, height = figure.get_size_inches()
    left, right, below, above = 0.55, 0.1, 0.42, 0.3  # inches
    between_columns, between_rows = 0.6, 0.35
    panel_width = (width - left - right - between_columns * (columns - 1)) / columns
    panel_height = (height - below - above - between_rows * (rows - 1)) / rows
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=below / height,
        top=1 - above / height,
        wspace=between_columns / panel_width,
        hspace=between_rows / panel_height,
    )


def _remove_frame(panel: Axes) -> None:
    """Remove from a panel all lines but those that carry numbers."""
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color("#8c959f")
    panel.grid(axis="y", color="#d8dee4", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(colors=MUTED, labelsize=9, length=0)


def _draw_panel(panel: Axes, measure: Measure, cohorts: Sequence[Cohort]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    _remove_frame(panel)
    panel.set_title(measure.name, loc="left", fontsize=11, fontweight="bold", color=INK)
    there = {cohort.day: cohort for cohort in cohorts}
    for run in consecutive(sorted(there)):
        _draw_line(panel, measure, [there[day] for day in run])
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.yaxis.set_major_locator(MaxNLocator(4))
    # the wide band of a day with few sends may leave the picture: it would flatten all other days
    highest = max((cohort.shares[measure.column].rate or 0.0 for cohort in cohorts), default=0.0)
    panel.set_ylim(0, max(min(panel.get_ylim()[1], 1.6 * highest), 0.001))
    if there:
        panel.set_xlim(*(_day_number(day) for day in (min(there) - timedelta(days=1), max(there) + timedelta(days=1))))
    locator = AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _draw_line(panel: Axes, measure: Measure, cohorts: Sequence[Cohort]) -> None:
    """Draw the rate of consecutive days; some may have none."""
    days = [_day_number(cohort.day) for cohort in cohorts]
    shares = [cohort.shares[measure.column] for cohort in cohorts]
    rates = [float("nan") if share.rate is None else share.rate for share in shares]
    low, high = zip(*(share.interval or (float("nan"),) * 2 for share in shares), strict=True)
    panel.fill_between(days, low, high, color=ACCENT, alpha=0.18, linewidth=0)
    if len(days) == 1:  # a band has no width then
        panel.vlines(days, low, high, color=ACCENT, alpha=0.4, linewidth=3)
    final = [cohort.status == "final" for cohort in cohorts]
    for is_full, steps in groupby(range(len(days) - 1), lambda at: final[at] and final[at + 1]):
        ends = list(steps)
        part = slice(ends[0], ends[-1] + 2)
        style = "-" if is_full else (0, (3, 2))
        panel.plot(days[part], rates[part], color=ACCENT, linewidth=1.6, linestyle=style)
    size = 4 if len(days) <= 45 else 2.5
    for status, marker, fill in (("final", "o", ACCENT), ("open", "o", "white"), ("incomplete", "D", "white")):
        chosen = [at for at, cohort in enumerate(cohorts) if cohort.status == status]
        panel.plot(
            [days[at] for at in chosen],
            [rates[at] for at in chosen],
            linestyle="",
            marker=marker,
            markersize=size,
            markeredgewidth=1.2,
            color=ACCENT,
            markerfacecolor=fill,
        )


def _day_number(day: date) -> float:
    """Number a day as matplotlib does: days since 1970-01-01."""
    return float((day - date(1970, 1, 1)).days)
