"""Compare the last week with the one before, with both counted at the same age.

A send of yesterday has the clicks of one day, one of a week ago those of eight. So for each day of the week, the clicks
of both weeks count up to the age that the younger day has reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import duckdb

from np6_assets.rates.measures import Share, sum_shares
from np6_assets.report.comparison import LEVEL, compute_cmh_p_value, correct_by_holm, estimate_dispersion
from np6_assets.report.moments import match_keys

WEEK = 7

Pair = tuple[Share, Share]
"""A week, and the one before."""


@dataclass(frozen=True)
class Change:
    """The hits of the delivered sends of a week and of the one before, of a notification or (0) of all."""

    activation_id: int
    now: Share
    before: Share
    p_value: float | None

    @property
    def clicks(self) -> float:
        """How many more sends were clicked than at the rate of the week before."""
        return self.now.part - self.now.whole * (self.before.rate or 0.0)

    @property
    def is_real(self) -> bool:
        """Whether chance does not explain the difference."""
        return self.p_value is not None and self.p_value < LEVEL


@dataclass(frozen=True)
class Changes:
    """What changed in the week up to `last`; `days` are the days of the week that both weeks have."""

    last: date
    days: int
    total: Change
    notifications: list[Change]

    @property
    def gained(self) -> Change | None:
        """The notification with the most clicks more."""
        real = [change for change in self.notifications if change.is_real and change.clicks > 0]
        return max(real, key=lambda change: change.clicks, default=None)

    @property
    def lost(self) -> Change | None:
        """The notification with the most clicks less."""
        real = [change for change in self.notifications if change.is_real and change.clicks < 0]
        return min(real, key=lambda change: change.clicks, default=None)


def compare_weeks(database: duckdb.DuckDBPyConnection, last: date, newest_hits: date | None) -> Changes | None:
    """Compare the week up to `last` with the one before; None without two weeks of sends and their clicks.

    Reads the tables `rates` and `clicked`. `newest_hits` is the last whole day of which hits are stored.
    """
    if newest_hits is None:
        return None
    end = min(last, newest_hits)
    begin = end - timedelta(days=2 * WEEK - 1)
    database.execute(f"""
        CREATE TABLE weeks AS
        WITH days AS (
            SELECT DISTINCT activation_date, isodow(activation_date) AS weekday,
                   activation_date > DATE '{end}' - {WEEK} AS is_now
            FROM rates WHERE activations IS NOT NULL AND activation_date BETWEEN DATE '{begin}' AND DATE '{end}'
        )
        SELECT days.*, DATE '{newest_hits}' - max(activation_date) OVER (PARTITION BY weekday) AS age
        FROM days QUALIFY count(*) OVER (PARTITION BY weekday) = 2
    """)
    [(days, first)] = database.sql(
        "SELECT (SELECT count(DISTINCT weekday) FROM weeks), (SELECT min(activation_date) FROM rates)"
    ).fetchall()
    strata = _read_strata(database) if days and first <= begin else {}
    if not strata:
        return None
    by_weekday: dict[Any, list[Pair]] = defaultdict(list)
    for pairs in strata.values():
        for (weekday, _), pair in pairs.items():
            by_weekday[weekday].append(pair)
    found = [_compare(key, pairs.values()) for key, pairs in strata.items()]
    found = [change for change in found if change.now.whole and change.before.whole]
    p_values = correct_by_holm([change.p_value for change in found])
    corrected = [replace(change, p_value=p_value) for change, p_value in zip(found, p_values, strict=True)]
    return Changes(end, days, _compare(0, map(_sum_pairs, by_weekday.values())), corrected)


def _read_strata(database: duckdb.DuckDBPyConnection) -> dict[int, dict[Any, Pair]]:
    """Read the pairs of weeks of each notification, by weekday and application."""
    rows = database.sql(f"""
        WITH counted AS (
            SELECT rates.activation_id, rates.application_id, weekday, is_now, rates.status, rates.delivered,
                   rates.activation_version, rates.agency, rates.customer, coalesce(sum(clicked.sends), 0) AS hits
            FROM rates JOIN weeks USING (activation_date)
            LEFT JOIN clicked ON {match_keys("clicked", "rates")} AND clicked.age <= weeks.age
            GROUP BY ALL
        )
        SELECT activation_id, application_id, weekday,
               sum(hits) FILTER (is_now AND is_known), sum(delivered) FILTER (is_now AND is_known),
               sum(hits) FILTER (NOT is_now AND is_known), sum(delivered) FILTER (NOT is_now AND is_known)
        FROM (SELECT *, delivered > 0 AND hits <= delivered AS is_known FROM counted)
        GROUP BY activation_id, application_id, weekday
        HAVING NOT bool_or(status = 'incomplete')
        ORDER BY ALL
    """).fetchall()
    found: dict[int, dict[Any, Pair]] = defaultdict(dict)
    for activation_id, application_id, weekday, *sums in rows:
        counts = [int(number or 0) for number in sums]
        found[activation_id][weekday, application_id] = Share(*counts[:2]), Share(*counts[2:])
    return dict(found)


def _compare(activation_id: int, strata: Iterable[Pair]) -> Change:
    """Compare two weeks inside each of the strata, or as wholes where none has both."""
    pairs = list(strata)
    now, before = _sum_pairs(pairs)
    alike = [pair for pair in pairs if pair[0].whole and pair[1].whole] or [(now, before)]
    ones, others = zip(*alike, strict=True)
    p_value = compute_cmh_p_value(ones, others, estimate_dispersion(ones, others))
    if p_value is not None and not _has_same_direction(now, before, alike):
        p_value = 1.0
    return Change(activation_id, now, before, p_value)


def _has_same_direction(now: Share, before: Share, pairs: list[Pair]) -> bool:
    """Tell whether the weeks as wholes differ in the same direction as their days."""
    inside = sum((one.part * other.whole - other.part * one.whole) / (one.whole + other.whole) for one, other in pairs)
    return inside * ((now.rate or 0.0) - (before.rate or 0.0)) > 0


def _sum_pairs(pairs: Iterable[Pair]) -> Pair:
    ones, others = zip(*pairs, strict=True)
    return sum_shares(ones), sum_shares(others)
