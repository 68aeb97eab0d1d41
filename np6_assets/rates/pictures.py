"""What people see of the rates: a chart of them over the cohorts.

Every rate here is of several rows: the sum of the numerators over the sum of the denominators. Rows that are
incomplete, or whose denominator is not known or 0, are left out of both.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from np6_assets.partitions import ACTIVATION_DATE, consecutive
from np6_assets.rates.columns import Status
from np6_assets.rates.statistics import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1f24"
MUTED = "#57606a"
ACCENT = "#0b5cad"

NONE = "—"
"""Stands where there is no number."""

Row: TypeAlias = Mapping[str, Any]
"""A row of `reactivity_rates`, by column: of those that pictures read."""

COLUMNS = (
    "activation_id",
    "activations",
    "bounced",
    "delivered",
    "hit_activations",
    "optout_activations",
    "status",
)
"""The columns that pictures read, next to the cohort's day."""


@dataclass(frozen=True)
class Measure:
    """A rate: the column it has in `reactivity_rates`, what people call it, and the counts that it is made of."""

    column: str
    name: str
    part: str
    whole: str

    def of(self, rows: Iterable[Row]) -> Share:
        """The rate of some rows of `reactivity_rates` together."""
        known = [row for row in rows if row[self.whole] and row["status"] != "incomplete"]
        return Share(sum(row[self.part] for row in known), sum(row[self.whole] for row in known))


@dataclass(frozen=True)
class Share:
    """`part` of `whole`, both counts. Of nothing there is no rate."""

    part: int
    whole: int

    @property
    def rate(self) -> float | None:
        """0 to 1; above 1 where there are reactions to sends that are not known; None where `whole` is 0."""
        return self.part / self.whole if self.whole else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % Wilson score interval of `rate`."""
        return wilson(self.part, self.whole)


HIT = Measure("hit_rate", "Hit rate", "hit_activations", "delivered")
OPTOUT = Measure("optout_rate", "Optout rate", "optout_activations", "delivered")
BOUNCE = Measure("bounce_rate", "Bounce rate", "bounced", "activations")
MEASURES = (HIT, OPTOUT, BOUNCE)


@dataclass(frozen=True)
class Cohort:
    """A day's rates, by column, and the status of the day: that of its row of which least is known."""

    day: date
    shares: Mapping[str, Share]
    status: Status


def cohorts_of(rates: Iterable[Row]) -> list[Cohort]:
    """The cohorts in rows of `reactivity_rates` that have their column `activation_date`, in order."""
    return [
        Cohort(day, {measure.column: measure.of(rows) for measure in MEASURES}, status_of(rows))
        for day, rows in by(ACTIVATION_DATE, rates)
    ]


def status_of(rows: Iterable[Row]) -> Status:
    """The status of some rows together."""
    found = {row["status"] for row in rows}
    return "incomplete" if "incomplete" in found else "open" if "open" in found else "final"


def sends_of(rows: Iterable[Row]) -> int | None:
    """The sends of some rows together; None where none of them knows."""
    known = [row["activations"] for row in rows if row["activations"] is not None]
    return sum(known) if known else None


def percent(share: float | None) -> str:
    """A rate as people read it; a dash where there is none."""
    return NONE if share is None else f"{share:.2%}"


def by(column: str, rows: Iterable[Row]) -> list[tuple[Any, list[Row]]]:
    """The rows by a column, in its order."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return sorted(groups.items(), key=itemgetter(0))


# --- The chart -----------------------------------------------------------------------------------------------------


def rates_chart(cohorts: Sequence[Cohort], *, columns: int, width: float, panel_height: float = 2.1) -> str:
    """An SVG of the hit, optout and bounce rate over the cohorts; sizes in inches.

    What is final is a full line with full dots; what is not, a dashed one with hollow dots, or diamonds for what is
    incomplete; the band is the 95 % interval of each day. A line is broken where a day is missing.
    """
    from matplotlib.figure import Figure

    rows = -(-len(MEASURES) // columns)
    figure = Figure(figsize=(width, panel_height * rows + 0.25))
    leave_room(figure, rows, columns)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for measure, panel in zip(MEASURES, panels.flat, strict=True):
        _panel(panel, measure, cohorts)
    return svg_of(figure, "rates")


def svg_of(figure: Figure, salt: str) -> str:
    """The figure as SVG with its texts as text. `salt` keeps the ids of several on one page apart."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    # a hundredth of a point is finer than any eye, and a third of the size
    return re.sub(r"(\.\d\d)\d+", r"\1", text[text.index("<svg") :])


def leave_room(figure: Figure, rows: int = 1, columns: int = 1, *, below: float = 0.42, above: float = 0.3) -> None:
    """Leave room for numbers and titles around the panels, `below` and `above` all of them in inches.

    matplotlib's own layouts draw everything twice to find out, which is two thirds of a chart's time.
    """
    width, height = figure.get_size_inches()
    left, right = 0.55, 0.1
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


def bare(panel: Axes) -> None:
    """Take from a panel all lines but those that carry numbers."""
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color("#8c959f")
    panel.grid(axis="y", color="#d8dee4", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(colors=MUTED, labelsize=9, length=0)


def _panel(panel: Axes, measure: Measure, cohorts: Sequence[Cohort]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    bare(panel)
    panel.set_title(measure.name, loc="left", fontsize=11, fontweight="bold", color=INK)
    there = {cohort.day: cohort for cohort in cohorts}
    for run in consecutive(sorted(there)):
        _line(panel, measure, [there[day] for day in run])
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.yaxis.set_major_locator(MaxNLocator(4))
    # the wide band of a day with few sends may leave the picture: it would flatten all other days
    highest = max((cohort.shares[measure.column].rate or 0.0 for cohort in cohorts), default=0.0)
    panel.set_ylim(0, max(min(panel.get_ylim()[1], 1.6 * highest), 0.001))
    if there:
        panel.set_xlim(*(_number(day) for day in (min(there) - timedelta(days=1), max(there) + timedelta(days=1))))
    locator = AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _line(panel: Axes, measure: Measure, cohorts: Sequence[Cohort]) -> None:
    """Cohorts of days one after the other, each with a rate of its own or without."""
    days = [_number(cohort.day) for cohort in cohorts]
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


def _number(day: date) -> float:
    """A day as matplotlib counts days: since 1970-01-01."""
    return float((day - date(1970, 1, 1)).days)
