"""The numbers of the report, from the stored rates and events. Nothing of a receiver is read but how many there are.

A rate over several rows is the sum of the numerators over the sum of the denominators; rows that are incomplete, or
whose denominator is not known or 0, are in neither. Today is left out, as its sends still go out, and so are days
whose sends were never loaded.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow.dataset as ds

from np6_assets.partitions import ACTIVATION_DATE, EVENT_DATE, partition_day
from np6_assets.rates.columns import Status, with_status
from np6_assets.rates.compute import connect, view
from np6_assets.rates.pictures import BOUNCE, MEASURES, Measure, Share
from np6_assets.report import moments
from np6_assets.report.changes import WEEK, Changes, changes
from np6_assets.report.moments import Reason, Slot
from np6_assets.report.versions import Contest, contests

IMPRESSION = Measure("impression_rate", "Impression rate", "impression_activations", "delivered")
"""Of the applications that report impressions: one that never did is in neither sum."""

_DAILY_TRENDS = 42
"""Up to how many days a trend has a point a day; it has one a week beyond."""


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
        """That of the row of which least is known."""
        return "incomplete" if self.incomplete_days else "open" if self.provisional_days else "final"


@dataclass(frozen=True)
class Findings:
    """All that the report says, over the cohorts `first` to `last`.

    `never_loaded` may be days before `first`, too. `trends`: the hits of each notification's delivered sends, by the
    day or the week (`trend_days`), the newest last. `hours` are hits by local hour of the day. `sent_lately`: the
    notifications and versions sent in the last week.
    """

    first: date
    last: date
    accounts: list[str]
    window_days: int
    measures: tuple[Measure, ...]
    total: Group
    final: Group | None
    days: list[Group]
    never_loaded: list[date]
    notifications: list[Group]
    trends: Mapping[int, Sequence[Share]]
    trend_days: int
    applications: list[Group]
    changes: Changes | None
    contests: list[Contest]
    sent_lately: frozenset[tuple[int, str | None]]
    reasons: list[Reason]
    slots: list[Slot]
    hours: list[int]
    names: Mapping[int, str]

    @property
    def provisional(self) -> list[date]:
        """The cohorts whose windows have not closed yet, in order."""
        return [day.key for day in self.days if day.status == "open"]

    @property
    def incomplete(self) -> list[date]:
        """The cohorts with rows of which something is missing, in order."""
        return [day.key for day in self.days if day.status == "incomplete"]

    def name(self, activation_id: int) -> str:
        """What people call a notification."""
        return self.names.get(activation_id, f"notification {activation_id}")


class NoRatesError(Exception):
    """There are no rates to report on."""


def find(
    rates: ds.FileSystemDataset,
    notifications: ds.FileSystemDataset,
    activations: ds.FileSystemDataset,
    hits: ds.FileSystemDataset,
    bounces: ds.FileSystemDataset,
    *,
    timezone: str,
    today: date,
    cohorts: int,
) -> Findings:
    """Work out the report on the last `cohorts` days up to the newest cohort. Raises NoRatesError without any."""
    with connect() as database:
        database.register("stored", with_status(rates.to_table()))
        for name, data in {
            "notifications": notifications,
            "activations": activations,
            "hits": hits,
            "bounces": bounces,
        }.items():
            view(database, name, data)
        last = _last_whole_day(database, today)
        never_loaded = _take_rates(database, rates, last, cohorts)
        first, last, window = _one(
            database, "SELECT min(activation_date), max(activation_date), max(window_days) FROM rates"
        )
        moments.place(database, first, last, window, timezone)
        has_impressions = _one(database, "SELECT count(*) FROM rates WHERE reports_impressions")[0]
        total = _groups(database, "1")[0]
        names = database.sql("SELECT activation_id, name FROM notifications WHERE name <> ''").fetchall()
        hit_days = [day for day in _days_of(hits, EVENT_DATE) if day < today]
        trend_days = 1 if (last - first).days < _DAILY_TRENDS else WEEK
        return Findings(
            first=first,
            last=last,
            accounts=[text for (text,) in database.sql(_ACCOUNTS).fetchall()],
            window_days=window,
            measures=(*MEASURES, IMPRESSION) if has_impressions else MEASURES,
            total=total,
            final=next(iter(_groups(database, "1", "WHERE is_final")), None),
            days=_groups(database, "activation_date"),
            never_loaded=never_loaded,
            notifications=sorted(
                _groups(database, "activation_id"), key=lambda group: (-(group.sends or 0), group.key)
            ),
            trends=_trends(database, first, last, trend_days),
            trend_days=trend_days,
            applications=sorted(
                _groups(database, "application_id"), key=lambda group: (-(group.sends or 0), group.key or "")
            ),
            changes=changes(database, last, max(hit_days, default=None)),
            contests=_contests(database),
            sent_lately=frozenset(database.execute(_SENT_LATELY, {"last": last}).fetchall()),
            reasons=moments.reasons(database, total.shares[BOUNCE.column].part),
            slots=moments.slots(database),
            hours=moments.click_hours(database),
            names=dict(names),
        )


_ACCOUNTS = """
    SELECT DISTINCT concat_ws(' ', agency, customer) AS account FROM rates WHERE account <> '' ORDER BY account
"""

_SENT_LATELY = f"""
    SELECT DISTINCT activation_id, activation_version FROM rates WHERE activation_date > $last - {WEEK}
"""

_VERSIONS = """
    SELECT activation_id, activation_version, activation_date, agency, customer, application_id,
           hit_activations, delivered
    FROM rates
    WHERE is_final AND delivered > 0 AND hit_activations <= delivered
    ORDER BY ALL
"""


def _last_whole_day(database: duckdb.DuckDBPyConnection, today: date) -> date:
    """The newest cohort before today; today's where there is no other."""
    last, before_today = _one(
        database,
        f"SELECT max(activation_date), max(activation_date) FILTER (activation_date < DATE '{today}') FROM stored",
    )
    if last is None:
        raise NoRatesError("reactivity_rates has no rows; materialize it for some days first")
    found: date = before_today or last
    return found


def _take_rates(
    database: duckdb.DuckDBPyConnection, stored: ds.FileSystemDataset, last: date, cohorts: int
) -> list[date]:
    """Make the table `rates` of the days of the report that were loaded; gives those of its days that never were."""
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
    known = {day: True for day in _days_of(stored, ACTIVATION_DATE) if earliest <= day <= last} | known
    first = min(known)
    days = [first + timedelta(days=more) for more in range((last - first).days + 1)]
    return [day for day in days if not known.get(day)]


def _days_of(data: ds.FileSystemDataset, column: str) -> list[date]:
    """The days of which there are files."""
    folders = (posixpath.basename(posixpath.dirname(file)) for file in data.files)
    return [day for folder in folders if (day := partition_day(folder, column))]


def _groups(database: duckdb.DuckDBPyConnection, key: str, where: str = "") -> list[Group]:
    """The rates by a column, in its order."""
    known = "status <> 'incomplete'"
    counts = [
        f"coalesce(sum({column}) FILTER ({measure.whole} > 0 AND {condition}), 0)::BIGINT"
        for measure, condition in (
            *((measure, known) for measure in MEASURES),
            (IMPRESSION, f"{known} AND reports_impressions"),
        )
        for column in (measure.part, measure.whole)
    ]
    rows = database.sql(f"""
        SELECT {key} AS key, sum(activations)::BIGINT, count(DISTINCT activation_date),
               count(DISTINCT activation_date) FILTER (status = 'open'),
               count(DISTINCT activation_date) FILTER (status = 'incomplete'), {", ".join(counts)}
        FROM rates {where} GROUP BY key ORDER BY key
    """).fetchall()
    return [
        Group(key, sends, days, provisional, incomplete, _shares(counts))
        for key, sends, days, provisional, incomplete, *counts in rows
    ]


def _shares(counts: Sequence[int]) -> dict[str, Share]:
    pairs = zip(counts[::2], counts[1::2], strict=True)
    return {measure.column: Share(*pair) for measure, pair in zip((*MEASURES, IMPRESSION), pairs, strict=True)}


def _trends(database: duckdb.DuckDBPyConnection, first: date, last: date, step: int) -> dict[int, list[Share]]:
    """The hit rate of each notification, by stretches of `step` days up to the last one."""
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


def _contests(database: duckdb.DuckDBPyConnection) -> list[Contest]:
    versions: dict[int, dict[str | None, dict[Any, Share]]] = defaultdict(lambda: defaultdict(dict))
    for activation_id, version, *stratum, hits, delivered in database.sql(_VERSIONS).fetchall():
        versions[activation_id][version][tuple(stratum)] = Share(hits, delivered)
    return contests(versions)


def _one(database: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    [row] = database.sql(query).fetchall()
    return tuple(row)
