"""The numbers of the report, from the stored rates and events. Nothing of a receiver is read but how many there are.

A rate over several rows is the sum of the numerators over the sum of the denominators; rows that are incomplete, or
whose denominator is not known or 0, are in neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from np6_assets.events.kinds import TIME
from np6_assets.events.reasons import word
from np6_assets.partitions import ACTIVATION_DATE, day_of
from np6_assets.rates.columns import Status, with_status
from np6_assets.rates.compute import connect, view
from np6_assets.rates.pictures import MEASURES, Cohort, Share
from np6_assets.report.comparison import Comparison, compare


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
class Reason:
    """Sends that bounced for a reason."""

    verdict: str
    reason: str
    sends: int


@dataclass(frozen=True)
class Findings:
    """All that the report says, over the cohorts `first` to `last`. `hours` are hits by local hour of the day."""

    first: date
    last: date
    accounts: list[str]
    window_days: int
    total: Group
    final: Group | None
    cohorts: list[Cohort]
    days: list[Group]
    notifications: list[Group]
    applications: list[Group]
    comparisons: list[Comparison]
    reasons: list[Reason]
    hours: list[int]
    names: Mapping[int, str]

    @property
    def provisional(self) -> list[date]:
        """The cohorts whose windows have not closed yet, in order."""
        return [cohort.day for cohort in self.cohorts if cohort.status == "open"]

    @property
    def incomplete(self) -> list[date]:
        """The cohorts with rows of which something is missing, in order."""
        return [cohort.day for cohort in self.cohorts if cohort.status == "incomplete"]


class NoRatesError(Exception):
    """There are no rates to report on."""


def find(
    rates: ds.FileSystemDataset,
    notifications: ds.FileSystemDataset,
    hits: ds.FileSystemDataset,
    bounces: ds.FileSystemDataset,
    *,
    timezone: str,
    cohorts: int,
) -> Findings:
    """Work out the report on the last `cohorts` days up to the newest cohort. Raises NoRatesError without any."""
    with connect() as database:
        database.register("stored", with_status(rates.to_table()))
        for name, data in {"notifications": notifications, "hits": hits, "bounces": bounces}.items():
            view(database, name, data)
        (last,) = _one(database, "SELECT max(activation_date) FROM stored")
        if last is None:
            raise NoRatesError("reactivity_rates has no rows; materialize it for some days first")
        database.execute(
            "CREATE TABLE rates AS FROM stored WHERE activation_date > $last - $days",
            {"last": last, "days": cohorts},
        )
        first, window = _one(database, "SELECT min(activation_date), max(window_days) FROM rates")
        database.register("days", _days(first, last, timezone))
        database.register("hours", _hours(first, last + timedelta(days=window + 1), timezone))
        database.execute(_COHORTS)
        for events in ("hits", "bounces"):
            # with constants DuckDB passes over the files of other days
            database.execute(
                f"CREATE VIEW recent_{events} AS FROM {events} "
                f"WHERE event_date BETWEEN DATE '{first}' AND DATE '{last + timedelta(days=window)}'"
            )
        days = _groups(database, "activation_date")
        names = database.sql("SELECT activation_id, name FROM notifications WHERE name <> ''").fetchall()
        return Findings(
            first=first,
            last=last,
            accounts=[text for (text,) in database.sql(_ACCOUNTS).fetchall()],
            window_days=window,
            total=_groups(database, "1")[0],
            final=next(iter(_groups(database, "1", "WHERE is_final")), None),
            cohorts=[Cohort(day.key, day.shares, day.status) for day in days],
            days=days,
            notifications=_groups(database, "activation_id"),
            applications=_groups(database, "application_id"),
            comparisons=_comparisons(database),
            reasons=_reasons(database),
            hours=_by_hour(database),
            names=dict(names),
        )


_COHORTS = """
    CREATE TABLE cohorts AS
    SELECT activation_date, starts_at, ends_at, any_value(window_days) AS window_days
    FROM rates JOIN days USING (activation_date)
    GROUP BY ALL
"""

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

# The events of a cohort are those of rates.sql: by the time of the send, inside the window.
_PLACED = """
    SELECT events.*, cohorts.activation_date
    FROM {events} AS events
    ASOF JOIN cohorts ON coalesce(events.activated_at, events.event_time) >= cohorts.starts_at
    WHERE coalesce(events.activated_at, events.event_time) < cohorts.ends_at
      AND events.event_date BETWEEN cohorts.activation_date AND cohorts.activation_date + cohorts.window_days
"""

# One row a send, with its worst bounce.
_REASONS = f"""
    WITH sends AS (
        SELECT arg_min(
            {{'verdict': bounce_verdict, 'reason': bounce_reason}},
            {{
                'rank': CASE bounce_verdict WHEN 'hard' THEN 0 WHEN 'soft' THEN 1 ELSE 2 END,
                'time': event_time,
                'id': event_id
            }}
        ) AS worst
        FROM ({_PLACED.format(events="recent_bounces")})
        GROUP BY activation_date, agency, customer, activation_id, activation_version, application_id,
                 subscription_id, coalesce(stamp_id, event_id), stamp_id IS NULL
    )
    SELECT worst.verdict, worst.reason, count(*) FROM sends GROUP BY ALL
"""

_HOURS = f"""
    SELECT hours.hour, count(DISTINCT event_id)
    FROM ({_PLACED.format(events="recent_hits")}) AS placed
    ASOF JOIN hours ON placed.event_time >= hours.starts_at
    WHERE link_type = 'redirection'
    GROUP BY hours.hour
"""


def _groups(database: duckdb.DuckDBPyConnection, key: str, where: str = "") -> list[Group]:
    """The rates by a column, in its order."""
    counts = ", ".join(
        f"coalesce(sum({count}) FILTER ({measure.whole} > 0 AND status <> 'incomplete'), 0)::BIGINT"
        for measure in MEASURES
        for count in (measure.part, measure.whole)
    )
    rows = database.sql(f"""
        SELECT {key} AS key, sum(activations)::BIGINT, count(DISTINCT activation_date),
               count(DISTINCT activation_date) FILTER (status = 'open'),
               count(DISTINCT activation_date) FILTER (status = 'incomplete'), {counts}
        FROM rates {where} GROUP BY key ORDER BY key
    """).fetchall()
    return [
        Group(key, sends, days, provisional, incomplete, _shares(counts))
        for key, sends, days, provisional, incomplete, *counts in rows
    ]


def _shares(counts: Sequence[int]) -> dict[str, Share]:
    pairs = zip(counts[::2], counts[1::2], strict=True)
    return {measure.column: Share(*pair) for measure, pair in zip(MEASURES, pairs, strict=True)}


def _comparisons(database: duckdb.DuckDBPyConnection) -> list[Comparison]:
    versions: dict[int, dict[str | None, dict[Any, Share]]] = defaultdict(lambda: defaultdict(dict))
    for activation_id, version, *stratum, hits, delivered in database.sql(_VERSIONS).fetchall():
        versions[activation_id][version][tuple(stratum)] = Share(hits, delivered)
    return compare(versions)


def _reasons(database: duckdb.DuckDBPyConnection) -> list[Reason]:
    sends: dict[tuple[str, str], int] = defaultdict(int)
    for verdict, reason, count in database.sql(_REASONS).fetchall():
        sends[word(verdict), word(reason)] += count
    return sorted(
        (Reason(*key, count) for key, count in sends.items()), key=lambda reason: (-reason.sends, str(reason))
    )


def _by_hour(database: duckdb.DuckDBPyConnection) -> list[int]:
    counted = dict(database.sql(_HOURS).fetchall())
    return [counted.get(hour, 0) for hour in range(24)]


def _one(database: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    [row] = database.sql(query).fetchall()
    return tuple(row)


def _days(first: date, last: date, timezone: str) -> pa.Table:
    dates = [first + timedelta(days=more) for more in range((last - first).days + 1)]
    days = [day_of(day.isoformat(), timezone) for day in dates]
    return pa.table(
        {
            ACTIVATION_DATE: pa.array(dates, pa.date32()),
            "starts_at": pa.array([day.start for day in days], TIME),
            "ends_at": pa.array([day.end for day in days], TIME),
        }
    )


def _hours(first: date, last: date, timezone: str) -> pa.Table:
    """When each hour of the clock begins. Clocks change by quarters of an hour at the least."""
    at, end = (day_of(day.isoformat(), timezone).start for day in (first, last))
    zone = ZoneInfo(timezone)
    starts: list[datetime] = []
    hours: list[int] = []
    while at < end:
        hour = at.astimezone(zone).hour
        if not hours or hour != hours[-1]:
            starts.append(at.astimezone(UTC))
            hours.append(hour)
        at += timedelta(minutes=15)
    return pa.table({"starts_at": pa.array(starts, TIME), "hour": pa.array(hours, pa.int8())})
