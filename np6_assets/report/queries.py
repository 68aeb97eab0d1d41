"""Read the numbers of the report from the stored rates and events. No data of a receiver is read.

A rate over several rows is the sum of the numerators over the sum of the denominators; rows that are incomplete, or
whose denominator is not known or 0, are in neither. Today is left out, as its sends still go out, and so are days
whose sends were never loaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow.dataset as ds

from np6_assets.partitions import ACTIVATION_DATE, EVENT_DATE
from np6_assets.rates.columns import Status, fill_status
from np6_assets.rates.compute import create_view, open_duckdb
from np6_assets.rates.measures import BOUNCE, MEASURES, Measure, Share
from np6_assets.report import moments
from np6_assets.report.changes import WEEK, compare_weeks
from np6_assets.report.versions import Contest, decide_contests
from np6_assets.storage.parquet import list_partitions

IMPRESSION = Measure("impression_rate", "Impression rate", "impression_activations", "delivered")
"""Only applications that report impressions count."""

_DAILY_TRENDS = 42
"""Up to so many days a trend has one point a day, beyond them one a week."""


@dataclass(frozen=True)
class Group:
    """Some rows of the rates together; `sends` may be unknown.

    `days` is the number of cohorts, `provisional_days` and `incomplete_days` of those with rows that are.
    """

    key: Any
    sends: int | None
    days: int
    provisional_days: int
    incomplete_days: int
    shares: Mapping[str, Share]

    @property
    def status(self) -> Status:
        """The worst status of the rows."""
        return "incomplete" if self.incomplete_days else "open" if self.provisional_days else "final"


class ReportData:
    """The content of the report, over the cohorts `first` to `last`.

    `never_loaded` may be days before `first`, too. `trends`: the hits of each notification's delivered sends, by the
    day or the week (`trend_days`), the newest last. `hours` are hits by local hour of the day.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        stored: Mapping[str, ds.FileSystemDataset],
        timezone: str,
        today: date,
        cohorts: int,
    ) -> None:
        last = _find_last_day(database, today)
        self.never_loaded = _create_rates(database, stored["reactivity_rates"], last, cohorts)
        [row] = database.sql(_OVERVIEW).fetchall()
        self.first: date = row[0]
        self.last: date = row[1]
        self.window_days: int = row[2]
        self.measures = (*MEASURES, IMPRESSION) if row[3] else MEASURES
        moments.create_tables(database, self.first, self.last, self.window_days, timezone)
        self.accounts: list[str] = [text for (text,) in database.sql(_ACCOUNTS).fetchall()]
        self.total = _read_groups(database, "1")[0]
        self.final = next(iter(_read_groups(database, "1", "WHERE is_final")), None)
        self.days = _read_groups(database, "activation_date")
        self.notifications = _read_groups(database, "activation_id", order=_MOST_SENDS)
        self.applications = _read_groups(database, "application_id", order=_MOST_SENDS)
        self.trend_days = 1 if (self.last - self.first).days < _DAILY_TRENDS else WEEK
        self.trends = _read_trends(database, self.first, self.last, self.trend_days)
        hit_days = [day for day in map(date.fromisoformat, list_partitions(stored["hits"], EVENT_DATE)) if day < today]
        self.changes = compare_weeks(database, self.last, max(hit_days, default=None))
        self.contests = _read_contests(database)
        self.reasons = moments.read_bounce_reasons(database, self.total.shares[BOUNCE.column].part)
        self.slots = moments.read_slots(database)
        self.hours = moments.count_clicks_by_hour(database)
        self._names: dict[int, str] = dict(database.sql("SELECT activation_id, name FROM notifications").fetchall())

    @property
    def provisional(self) -> list[date]:
        """The cohorts whose windows have not closed yet, in order."""
        return [day.key for day in self.days if day.status == "open"]

    @property
    def incomplete(self) -> list[date]:
        """The cohorts with rows of which something is missing, in order."""
        return [day.key for day in self.days if day.status == "incomplete"]

    def name(self, activation_id: int) -> str:
        """Return the name of a notification, as people know it."""
        return self._names.get(activation_id) or f"notification {activation_id}"


def read_report_data(
    stored: Mapping[str, ds.FileSystemDataset], timezone: str, today: date, cohorts: int
) -> ReportData:
    """Read the report on the last `cohorts` days up to the newest cohort. Raises ValueError without any.

    `stored` has the assets `reactivity_rates`, `notifications`, `activations`, `hits` and `bounces`.
    """
    with open_duckdb() as database:
        database.register("stored", fill_status(stored["reactivity_rates"].to_table()))
        for name in ("notifications", "activations", "hits", "bounces"):
            create_view(database, name, stored[name])
        return ReportData(database, stored, timezone, today, cohorts)


_OVERVIEW = """
    SELECT min(activation_date), max(activation_date), max(window_days), bool_or(reports_impressions) FROM rates
"""

_MOST_SENDS = "sends DESC NULLS LAST, key NULLS FIRST"

_ACCOUNTS = """
    SELECT DISTINCT concat_ws(' ', agency, customer) AS account FROM rates WHERE account <> '' ORDER BY account
"""

_VERSIONS = """
    SELECT activation_id, activation_version, activation_date, agency, customer, application_id,
           hit_activations, delivered
    FROM rates
    WHERE is_final AND delivered > 0 AND hit_activations <= delivered
    ORDER BY ALL
"""


def _find_last_day(database: duckdb.DuckDBPyConnection, today: date) -> date:
    """Find the newest cohort before today; today's where there is no other."""
    days: list[date] = [day for (day,) in database.sql("SELECT DISTINCT activation_date FROM stored").fetchall()]
    if not days:
        raise ValueError("reactivity_rates has no rows; materialize it for some days first")
    return max((day for day in days if day < today), default=max(days))


def _create_rates(
    database: duckdb.DuckDBPyConnection, stored: ds.FileSystemDataset, last: date, cohorts: int
) -> list[date]:
    """Create the table `rates` of the report's days that were loaded; returns its days that never were."""
    database.execute(
        f"""
        CREATE TABLE rates AS
        SELECT *, impression_activations IS NOT NULL AND coalesce(sum(impression_activations) OVER (
            PARTITION BY agency, customer, application_id
        ), 0) > 0 AS reports_impressions
        FROM stored WHERE activation_date > DATE '{last}' - {cohorts} AND activation_date <= DATE '{last}'
        """
    )
    known = dict(
        database.sql("SELECT activation_date, bool_or(activations IS NOT NULL) FROM rates GROUP BY ALL").fetchall()
    )
    if not any(known.values()):
        return sorted(known)
    database.execute("DELETE FROM rates WHERE activations IS NULL")
    earliest = last - timedelta(days=cohorts - 1)
    with_files = map(date.fromisoformat, list_partitions(stored, ACTIVATION_DATE))
    known = {day: True for day in with_files if earliest <= day <= last} | known
    first = min(known)
    days = [first + timedelta(days=more) for more in range((last - first).days + 1)]
    return [day for day in days if not known.get(day)]


def _read_groups(database: duckdb.DuckDBPyConnection, key: str, where: str = "", order: str = "key") -> list[Group]:
    """Group the rates by a column, in its order or another one."""
    conditions = {IMPRESSION: "AND reports_impressions"}
    counts = [
        f"""coalesce(sum({column}) FILTER (
                {measure.whole} > 0 AND status <> 'incomplete' {conditions.get(measure, "")}
            ), 0)::BIGINT"""
        for measure in (*MEASURES, IMPRESSION)
        for column in (measure.part, measure.whole)
    ]
    rows = database.sql(f"""
        SELECT {key} AS key, sum(activations)::BIGINT AS sends, count(DISTINCT activation_date),
               count(DISTINCT activation_date) FILTER (status = 'open'),
               count(DISTINCT activation_date) FILTER (status = 'incomplete'), {", ".join(counts)}
        FROM rates {where} GROUP BY key ORDER BY {order}
    """).fetchall()
    groups = []
    for key, sends, days, provisional, incomplete, *numbers in rows:
        pairs = zip((*MEASURES, IMPRESSION), numbers[::2], numbers[1::2], strict=True)
        shares = {measure.column: Share(part, whole) for measure, part, whole in pairs}
        groups.append(Group(key, sends, days, provisional, incomplete, shares))
    return groups


def _read_trends(database: duckdb.DuckDBPyConnection, first: date, last: date, step: int) -> dict[int, list[Share]]:
    """Read the hit rate of each notification, one for each `step` days up to the last day."""
    rows = database.sql(f"""
        SELECT activation_id, (DATE '{last}' - activation_date) // {step} AS ago,
               sum(hit_activations)::BIGINT, sum(delivered)::BIGINT
        FROM rates WHERE delivered > 0 AND status <> 'incomplete' GROUP BY ALL
    """).fetchall()
    points = (last - first).days // step + 1
    found: dict[int, list[Share]] = defaultdict(lambda: [Share(0, 0)] * points)
    for activation_id, ago, hits, delivered in rows:
        found[activation_id][points - 1 - ago] = Share(hits, delivered)
    return dict(found)


def _read_contests(database: duckdb.DuckDBPyConnection) -> list[Contest]:
    versions: dict[int, dict[str | None, dict[Any, Share]]] = defaultdict(lambda: defaultdict(dict))
    for activation_id, version, *stratum, hits, delivered in database.sql(_VERSIONS).fetchall():
        versions[activation_id][version][tuple(stratum)] = Share(hits, delivered)
    return decide_contests(versions)
