"""The report as one HTML page: its charts, its words and `template.html`. Everything that is filled in is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from zoneinfo import ZoneInfo

import jinja2
from markupsafe import Markup

from np6_assets.rates.columns import COLUMNS
from np6_assets.rates.pictures import ACCENT, MEASURES, NONE, bare, leave_room, percent, rates_chart, svg_of
from np6_assets.report.comparison import LEAST, Comparison
from np6_assets.report.queries import Findings, Group

STATES = {"final": "● final", "open": "○ provisional", "incomplete": "◇ incomplete"}
"""What the page calls a status."""


def render(findings: Findings, made_at: datetime, timezone: str) -> str:
    """The page."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "count": _count,
        "points": _points,
        "p_value": _p_value,
        "raw": _raw,
    }
    template = environment.from_string(files(__package__).joinpath("template.html").read_text(encoding="utf-8"))
    return template.render(
        findings=findings,
        made_at=made_at.astimezone(ZoneInfo(timezone)),
        timezone=timezone,
        measures=MEASURES,
        notifications=sorted(findings.notifications, key=lambda group: (-(group.sends or 0), group.key)),
        name=lambda key: findings.names.get(key, f"notification {key}"),
        verdict=_verdict,
        none=NONE,
        states=STATES,
        least=LEAST,
        columns=[(name, description) for name, _, description, _ in COLUMNS],
        bounced=sum(reason.sends for reason in findings.reasons),
        hits=sum(findings.hours),
        busiest=max(range(24), key=lambda hour: findings.hours[hour]),
        charts={
            "rates_wide": Markup(rates_chart(findings.cohorts, columns=3, width=10.5, panel_height=2.4)),
            "rates_narrow": Markup(rates_chart(findings.cohorts, columns=1, width=3.7, panel_height=1.9)),
            "hours_wide": Markup(_hours_chart(findings.hours, width=10.5, step=1)),
            "hours_narrow": Markup(_hours_chart(findings.hours, width=3.7, step=4)),
        },
        muted=_muted(findings.applications),
    )


def _hours_chart(hours: Sequence[int], *, width: float, step: int) -> str:
    """An SVG of the share of the hits in each hour of the day, every `step`th hour named."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    total = sum(hours)
    figure = Figure(figsize=(width, 2.2))
    leave_room(figure, below=0.28, above=0.12)
    panel = figure.subplots()
    bare(panel)
    panel.bar(range(24), [count / total if total else 0.0 for count in hours], width=0.75, color=ACCENT)
    panel.set_xticks(range(0, 24, step), [f"{hour}" for hour in range(0, 24, step)])
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.set_xlim(-0.6, 23.6)
    return svg_of(figure, f"hours {width}")


def _muted(applications: Sequence[Group]) -> list[Group]:
    """The applications, the one with the most sends first."""
    return sorted(applications, key=lambda group: (-(group.sends or 0), group.key or ""))


def _verdict(comparison: Comparison) -> str:
    if comparison.difference is None:
        return "never sent on the same day"
    if comparison.p_value is None:
        return "too few to tell"
    if not comparison.is_real:
        return "no proof of a difference"
    return "better" if comparison.difference > 0 else "worse"


def _count(number: int | None) -> str:
    return NONE if number is None else f"{number:,}"


def _points(difference: float | None) -> str:
    return NONE if difference is None else f"{difference * 100:+.2f}".replace("-", "\N{MINUS SIGN}")


def _p_value(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _raw(number: float | None) -> str:
    """A number to sort by; one that is not there comes last."""
    return "-1" if number is None else repr(number)
