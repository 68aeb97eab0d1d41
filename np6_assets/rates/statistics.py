"""The confidence interval of a rate. Pure arithmetic on counts."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""The standard normal distribution has 95 % of its weight between -Z and Z."""


def wilson_interval(part: int, whole: int) -> tuple[float, float] | None:
    """Compute the 95 % Wilson score interval of `part / whole`, as in rates.sql; None where that is no share."""
    if whole <= 0 or not 0 <= part <= whole:
        return None
    share = part / whole
    scale = 1 + Z * Z / whole
    centre = (share + Z * Z / (2 * whole)) / scale
    half_width = Z * math.sqrt(share * (1 - share) / whole + Z * Z / (4 * whole * whole)) / scale
    return max(centre - half_width, 0.0), min(centre + half_width, 1.0)
