"""Measures: rates of several rows of `reactivity_rates` together, as people see them.

A rate is the sum of the numerators over the sum of the denominators. Rows that are incomplete, or whose denominator is
unknown or 0, are left out of both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from operator import itemgetter
from typing import Any, TypeAlias

from np6_assets.partitions import ACTIVATION_DATE
from np6_assets.rates.columns import Status

NONE = "—"
"""Stands where there is no number."""

Z = 1.959963984540054
"""The standard normal distribution has 95 % of its weight between -Z and Z."""

Row: TypeAlias = Mapping[str, Any]
"""A row of `reactivity_rates`, by column: as far as measures read it."""

COLUMNS = ("activation_id", "activations", "bounced", "delivered", "hit_activations", "optout_activations", "status")
"""The columns that measures read, beside the cohort's day."""


@dataclass(frozen=True)
class Measure:
    """A rate: the column it has in `reactivity_rates`, what people call it, and the counts that it is made of."""

    column: str
    name: str
    part: str
    whole: str

    def of(self, rows: Iterable[Row]) -> Share:
        """Compute the rate of some rows together."""
        known = [row for row in rows if row[self.whole] and row["status"] != "incomplete"]
        return Share(sum(row[self.part] for row in known), sum(row[self.whole] for row in known))


@dataclass(frozen=True)
class Share:
    """`part` of `whole`, both counts. Of nothing there is no rate."""

    part: int
    whole: int

    @property
    def rate(self) -> float | None:
        """0 to 1; above 1 where reactions belong to sends that are missing; None where `whole` is 0."""
        return self.part / self.whole if self.whole else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % Wilson score interval of `rate`, as in rates.sql; None where that is no share."""
        if self.whole <= 0 or not 0 <= self.part <= self.whole:
            return None
        share = self.part / self.whole
        scale = 1 + Z * Z / self.whole
        centre = (share + Z * Z / (2 * self.whole)) / scale
        half_width = Z * math.sqrt(share * (1 - share) / self.whole + Z * Z / (4 * self.whole**2)) / scale
        return max(centre - half_width, 0.0), min(centre + half_width, 1.0)


def sum_shares(shares: Iterable[Share]) -> Share:
    """Sum the parts and the wholes of some shares."""
    shares = list(shares)
    return Share(sum(share.part for share in shares), sum(share.whole for share in shares))


HIT = Measure("hit_rate", "Hit rate", "hit_activations", "delivered")
OPTOUT = Measure("optout_rate", "Optout rate", "optout_activations", "delivered")
BOUNCE = Measure("bounce_rate", "Bounce rate", "bounced", "activations")
MEASURES = (HIT, OPTOUT, BOUNCE)


@dataclass(frozen=True)
class Cohort:
    """A day's rates, by column, and its status: the worst of its rows."""

    day: date
    shares: Mapping[str, Share]
    status: Status


def build_cohorts(rates: Iterable[Row]) -> list[Cohort]:
    """Build the cohorts from rows with the column `activation_date`, in order."""
    return [
        Cohort(day, {measure.column: measure.of(rows) for measure in MEASURES}, combine_status(rows))
        for day, rows in group_rows(ACTIVATION_DATE, rates)
    ]


def combine_status(rows: Iterable[Row]) -> Status:
    """Combine the status of some rows: the worst one."""
    found = {row["status"] for row in rows}
    return "incomplete" if "incomplete" in found else "open" if "open" in found else "final"


def sum_sends(rows: Iterable[Row]) -> int | None:
    """Sum the sends of some rows; None where no row knows them."""
    known = [row["activations"] for row in rows if row["activations"] is not None]
    return sum(known) if known else None


def format_percent(share: float | None) -> str:
    """Write a rate with two digits; a dash where there is none."""
    return NONE if share is None else f"{share:.2%}"


def group_rows(column: str, rows: Iterable[Row]) -> list[tuple[Any, list[Row]]]:
    """Group rows by a column, in its order."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return sorted(groups.items(), key=itemgetter(0))
