"""Build the small charts of the notifications."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from np6_assets.rates.measures import Share
from np6_assets.rates.panel import write_dot, write_path


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
