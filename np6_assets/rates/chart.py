"""Draw the rates over the cohorts as an SVG of its own, for Dagster's UI."""

from __future__ import annotations

from collections.abc import Sequence

from np6_assets.rates.measures import MEASURES, Cohort
from np6_assets.rates.panel import HEIGHT, WIDTH, Axis, Panel, build_axis, build_panel

_PANEL, _ABOVE, _LEFT = (190, 112), 28, 42
"""Pixels: a panel's size, and the room for its title above and the numbers on its left."""

_ROOM = _LEFT + _PANEL[0] + 12
_STYLE = """
text { font: 11px system-ui, sans-serif; fill: #57606a }
.name { font-size: 13px; font-weight: bold; fill: #1b1f24 }
path { fill: none; stroke: #0b5cad; vector-effect: non-scaling-stroke }
.grid { stroke: #d8dee4; stroke-width: 0.7 }
.band { fill: #0b5cad; fill-opacity: 0.18; stroke: none }
.line { stroke-width: 1.6; stroke-linejoin: round }
.dashed { stroke-dasharray: 3 3 }
.dot { stroke-width: 5; stroke-linecap: round }
.hollow { stroke: #fff; stroke-width: 2.4 }
.incomplete { stroke-linecap: square }
"""


def draw_chart(cohorts: Sequence[Cohort]) -> str:
    """Draw an SVG of the hit, optout and bounce rate over the cohorts, side by side.

    What is final is a full line with full dots; what is not, a dashed one with hollow dots, or squares for what is
    incomplete; the band is the 95 % interval of each day. A line is broken where a day is missing.
    """
    days = [cohort.day for cohort in cohorts]
    axis = build_axis(days, days[0], days[-1])
    panels = [build_panel(measure, cohorts, axis.places) for measure in MEASURES]
    width, height = _ROOM * len(panels), _ABOVE + _PANEL[1] + 24
    drawn = "".join(_write_panel(panel, axis, number * _ROOM + _LEFT) for number, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<style>{_STYLE}</style><rect width="{width}" height="{height}" rx="4" fill="#fff"/>{drawn}</svg>'
    )


def _write_panel(panel: Panel, axis: Axis, left: float) -> str:
    """Write a panel whose area begins at `left`, with its title and the texts at its axes."""
    width, height = _PANEL
    levels = [(text, _ABOVE + height * (1 - up / 100)) for text, up in panel.ticks]
    texts = [f'<text class="name" x="{left}" y="16">{panel.name}</text>']
    texts += [f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>' for text, y in levels]
    texts += [
        f'<text x="{left + width * place / 100:.1f}" y="{_ABOVE + height + 18}" text-anchor="middle">{text}</text>'
        for text, place in axis.ticks
    ]
    grid = "".join(f"M0 {HEIGHT - up:.1f}h{WIDTH}" for _, up in panel.ticks)
    paths = [("grid", grid), ("band", panel.band), ("line", panel.full), ("line dashed", panel.dashed)]
    for status, dots in panel.dots.items():
        paths += [(f"dot {status}", dots), *([] if status == "final" else [(f"dot {status} hollow", dots)])]
    lines = "".join(f'<path class="{name}" d="{path}"/>' for name, path in paths if path)
    return (
        f'{"".join(texts)}<svg x="{left}" y="{_ABOVE}" width="{width}" height="{height}" overflow="visible" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">{lines}</svg>'
    )
