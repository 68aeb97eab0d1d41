"""Draw bar charts as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.rounds import THIS_PROJECT, WITHOUT_DAGSTER

_COLOURS = ("#9aa5b1", "#5b7c99", "#24435c", "#0d1b26")
_LEFT, _WIDTH, _BAR = 220, 560, 14


def write_chart(file: Path, title: str, values: Mapping[str, Mapping[int, float | None]]) -> None:
    """Write a chart of horizontal bars, by contender and size."""
    sizes = sorted({size for series in values.values() for size in series})
    largest = max((value or 0 for series in values.values() for value in series.values()), default=1) or 1
    parts, y = [_format_text(10, 22, title, 15, "bold")], 40
    for number, size in enumerate(sizes):
        x = 10 + number * 130
        parts += [_format_bar(x, y, 12, 12, number), _format_text(x + 18, y + 11, f"{size:,}", 12)]
    y += 32
    for name, series in values.items():
        weight = "bold" if name in (THIS_PROJECT, WITHOUT_DAGSTER) else "normal"
        parts.append(_format_text(_LEFT - 10, y + len(sizes) * _BAR / 2 + 4, name, 12, weight, "end"))
        for number, size in enumerate(sizes):
            value = series.get(size)
            width = (value or 0) / largest * (_WIDTH - 90)
            parts.append(_format_bar(_LEFT, y, width, _BAR - 2, number))
            label = "none" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
            parts.append(_format_text(_LEFT + width + 5, y + _BAR - 4, label, 11))
            y += _BAR
        y += 10
    frame = f'width="{_LEFT + _WIDTH}" height="{y}" viewBox="0 0 {_LEFT + _WIDTH} {y}"'
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="sans-serif">'
        + "\n".join([background, *parts])
        + "</svg>\n"
    )


def _format_bar(x: float, y: float, width: float, height: float, number: int) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{max(width, 1):.0f}" height="{height}" fill="{colour}"/>'


def _format_text(x: float, y: float, text: str, size: int, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="#111">{text}</text>'
    )
