"""Test whether two hit rates differ: of versions of a notification, or of two periods. Pure arithmetic on counts.

Versions are compared inside the same day and the same application alone, as days and applications differ more than
versions do: the Cochran-Mantel-Haenszel test, which for one day and application is the two-proportion z-test. The
difference is the Mantel-Haenszel risk difference with Sato's 95 % interval (https://doi.org/10.2307/2532547). P-values
are corrected for their number by Holm's method: that even one of the differences called real is due to chance has a
probability of 5 % at most. Periods do not run side by side as versions do, so their test allows for how much days vary
(`dispersion`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from np6_assets.rates.measures import Share, Z, sum_shares

Counts = npt.NDArray[np.float64]

LEVEL = 0.05
"""The probability that one or more differences that are called real are due to chance."""

LEAST = 5
"""Without room for the hits to differ by this much from what is expected, the test says nothing (Mantel, Fleiss)."""

Strata = Mapping[tuple[Any, ...], Share]
"""The hits of the delivered sends of a version, by day and what else has to be alike, such as the application."""


@dataclass(frozen=True)
class Comparison:
    """A version against another one with more sends, over the days and applications that have both.

    `difference` is `version` less `baseline`, in hit rate. `p_value` is None where there is too little to test.
    """

    activation_id: int
    version: str | None
    baseline: str | None
    days: int
    share: Share
    baseline_share: Share
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None

    @property
    def is_real(self) -> bool:
        """Whether the difference is more than chance explains."""
        return self.p_value is not None and self.p_value < LEVEL

    @property
    def clicks(self) -> float:
        """How many more sends of `version` were clicked than would have been at the rates of `baseline`."""
        return (self.difference or 0.0) * self.share.whole


def compare_versions(versions: Mapping[int, Mapping[str | None, Strata]]) -> list[Comparison]:
    """Compare each two versions of each notification."""
    return correct_by_holm(
        [
            compare_pair(activation_id, version, baseline)
            for activation_id, by_version in versions.items()
            for baseline, version in combinations(sorted(by_version.items(), key=_rank_by_sends), 2)
        ]
    )


def _rank_by_sends(version: tuple[str | None, Strata]) -> tuple[int, str]:
    return -sum_shares(version[1].values()).whole, version[0] or ""


def compare_pair(
    activation_id: int,
    version: tuple[str | None, Strata],
    baseline: tuple[str | None, Strata],
    *,
    is_side_by_side: bool = True,
) -> Comparison:
    """Compare two versions, or two periods, which are not side by side."""
    both = [key for key in version[1] if key in baseline[1]]
    one, other = ([strata[key] for key in both] for _, strata in (version, baseline))
    middle, low, high = compute_risk_difference(one, other) or (None, None, None)
    days = len({day for day, *_ in both})
    shares = sum_shares(one), sum_shares(other)
    p_value = compute_cmh_p_value(one, other, 1.0 if is_side_by_side else estimate_dispersion(one, other))
    return Comparison(activation_id, version[0], baseline[0], days, *shares, middle, low, high, p_value)


def _list_counts(ones: Sequence[Share], others: Sequence[Share], least: int) -> Counts:
    """List parts and wholes of pairs of shares, of which both wholes are at least `least`: a, n, b and m."""
    pairs = zip(ones, others, strict=True)
    rows = [(one.part, one.whole, other.part, other.whole) for one, other in pairs]
    rows = [row for row in rows if min(row[1], row[3]) >= least and row[1] + row[3] > 1]
    return np.array(rows, float).reshape(-1, 4).T


def compute_cmh_p_value(ones: Sequence[Share], others: Sequence[Share], dispersion: float = 1.0) -> float | None:
    """Compute the two-sided p-value of the Cochran-Mantel-Haenszel test over pairs of shares.

    There is no continuity correction. `dispersion` multiplies the variance. None where there is too little to test.
    """
    a, n, b, m = _list_counts(ones, others, least=0)
    total, parts = n + m, a + b
    expected = n * parts / total
    variance = (n * m * parts * (total - parts) / (total**2 * (total - 1))).sum()
    room = (expected - np.maximum(0, parts - m)).sum(), (np.minimum(n, parts) - expected).sum()
    if min(room) < LEAST or not variance:
        return None
    return math.erfc(abs((a - expected).sum()) / math.sqrt(2 * variance * dispersion))


def compute_risk_difference(ones: Sequence[Share], others: Sequence[Share]) -> tuple[float, float, float] | None:
    """Compute the Mantel-Haenszel difference of the shares and its 95 % interval (Sato); None without pairs."""
    a, n, b, m = _list_counts(ones, others, least=1)
    if not n.size:
        return None
    total = n + m
    weight = (n * m / total).sum()
    difference = float(((a * m - b * n) / total).sum() / weight)
    p = ((n * n * b - m * m * a + n * m * (m - n) / 2) / total**2).sum()
    q = ((a * (m - b) + b * (n - a)) / (2 * total)).sum()
    half_width = float(Z * math.sqrt(max(difference * p + q, 0.0)) / weight)
    return difference, max(difference - half_width, -1.0), min(difference + half_width, 1.0)


def estimate_dispersion(ones: Sequence[Share], others: Sequence[Share]) -> float:
    """Estimate how many times more the differences of the pairs vary than by chance alone; 1 at the least.

    Cochran's Q of the differences over its degrees of freedom, as in quasi-binomial models.
    """
    counts = _list_counts(ones, others, least=1)
    parts, total = counts[0] + counts[2], counts[1] + counts[3]
    a, n, b, m = counts[:, (parts > 0) & (parts < total)]
    if n.size < 2:
        return 1.0
    mean = (a + b) / (n + m)
    differences, weights = a / n - b / m, 1 / (mean * (1 - mean) * (1 / n + 1 / m))
    middle = np.average(differences, weights=weights)
    return max(1.0, float((weights * (differences - middle) ** 2).sum() / (n.size - 1)))


def correct_by_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values for their number by Holm's method; those that are None do not count."""
    p_values = [(one.p_value, at) for at, one in enumerate(comparisons) if one.p_value is not None]
    corrected = list(comparisons)
    reached = 0.0
    for done, (p_value, at) in enumerate(sorted(p_values)):
        reached = max(reached, min(1.0, p_value * (len(p_values) - done)))
        corrected[at] = replace(corrected[at], p_value=reached)
    return corrected
