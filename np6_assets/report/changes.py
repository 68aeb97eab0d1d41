"""Compare the last week with the one before, with both counted at the same age.

A send of yesterday has the clicks of one day, one of a week ago those of eight. So for each day of the week, the clicks
of both weeks count up to the age that the younger day has reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb

from np6_assets.rates.measures import Share, sum_shares
from np6_assets.report.comparison import Comparison, Strata, compare_pair, correct_by_holm
from np6_assets.report.moments import match_keys

WEEK = 7


@dataclass(frozen=True)
class Changes:
    """What changed in the week up to `last`; `days` are the days of the week that both weeks have."""

    last: date
    days: int
    total: Comparison
    notifications: list[Comparison]

    @property
    def gained(self) -> Comparison | None:
        """The notification with the most clicks more."""
        real = [change for change in self.notifications if change.is_real and change.clicks > 0]
        return max(real, key=lambda change: change.clicks, default=None)

    @property
    def lost(self) -> Comparison | None:
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
    if not days or first > begin:
        return None
    weeks = _read_weeks(database)
    both = [_sum_by_weekday(pair[at] for pair in weeks.values()) for at in (0, 1)]
    found = [_compare(activation_id, *pair) for activation_id, pair in weeks.items()]
    sent_in_both = [change for change in found if change.difference is not None]
    total = _compare(0, *both)
    return None if total.difference is None else Changes(end, days, total, correct_by_holm(sent_in_both))


def _compare(activation_id: int, now: Strata, before: Strata) -> Comparison:
    return compare_pair(activation_id, ("this week", now), ("the week before", before), is_side_by_side=False)


def _read_weeks(database: duckdb.DuckDBPyConnection) -> dict[int, tuple[Strata, Strata]]:
    """Read the two weeks of each notification, by weekday and application."""
    rows = database.sql(f"""
        WITH counted AS (
            SELECT rates.activation_id, rates.application_id, weekday, is_now, rates.status, rates.delivered,
                   rates.activation_version, rates.agency, rates.customer, coalesce(sum(clicked.sends), 0) AS hits
            FROM rates JOIN weeks USING (activation_date)
            LEFT JOIN clicked ON {match_keys("clicked", "rates")} AND clicked.age <= weeks.age
            GROUP BY ALL
        )
        SELECT activation_id, weekday, application_id,
               sum(hits) FILTER (is_now AND is_known)::BIGINT, sum(delivered) FILTER (is_now AND is_known)::BIGINT,
               sum(hits) FILTER (is_before AND is_known)::BIGINT, sum(delivered) FILTER (is_before AND is_known)::BIGINT
        FROM (SELECT *, NOT is_now AS is_before, delivered > 0 AND hits <= delivered AS is_known FROM counted)
        GROUP BY activation_id, weekday, application_id
        HAVING NOT bool_or(status = 'incomplete')
        ORDER BY ALL
    """).fetchall()
    weeks: dict[int, tuple[dict[Any, Share], dict[Any, Share]]] = defaultdict(lambda: ({}, {}))
    for activation_id, weekday, application_id, *counts in rows:
        for week, (hits, sends) in zip(weeks[activation_id], (counts[:2], counts[2:]), strict=True):
            if sends:
                week[weekday, application_id] = Share(hits, sends)
    return dict(weeks)


def _sum_by_weekday(weeks: Iterable[Strata]) -> Strata:
    by_weekday: dict[tuple[Any, ...], list[Share]] = defaultdict(list)
    for week in weeks:
        for (weekday, _), share in week.items():
            by_weekday[weekday,].append(share)
    return {weekday: sum_shares(shares) for weekday, shares in by_weekday.items()}
