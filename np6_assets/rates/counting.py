"""Count the stored events by cohort, without `rates.sql`: for the checks of the rates, and their metadata.

An event counts for the day of its send, or for its own day where the send's is unknown, if that is at most
`window_days` days before its own day and not before NP6_START_DATE.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import date, timedelta
from typing import NamedTuple

import duckdb

from np6_assets.partition_checks import Finding
from np6_assets.partitions import event_days, parse_day, to_epoch_ms
from np6_assets.rates.compute import create_view, execute_within_memory
from np6_assets.rates.feeds import Feeds
from np6_assets.settings import Settings

Counts = dict[str, int | None]
"""A cohort's sums, by column; None where an asset that is not materialized makes them unknown."""

QUARTER = 900_000
"""A quarter of an hour, in ms."""

ROWS_AT_ONCE = 2**24
"""Most events of cohorts that are counted together; DuckDB spills what of them does not fit into memory."""

UNCOUNTED_REACTIONS = 0.05
"""The share of a feed's reactions of a day that may count in no cohort: some come after the window has closed."""

BEFORE_WINDOW = "sent more than the window before"
BEFORE_START = "sent before NP6_START_DATE"
AFTER_EVENT = "sent on a later day"
NOT_COMPUTED = "their cohort's rates are not computed"

_RECOUNT = """
    WITH cohort_events AS NOT MATERIALIZED (
        SELECT placed.*, activation_date FROM placed JOIN quarters USING (quarter)
        WHERE event_date BETWEEN activation_date AND activation_date + {window_days}
    ),
    sends AS (
        SELECT activation_date, send, bit_or({flag}) AS flags FROM cohort_events GROUP BY activation_date, send
    ),
    hits AS (
        SELECT DISTINCT activation_date, hash(event_id) AS id, is_redirection FROM cohort_events WHERE asset = 'hits'
    ),
    of_sends AS (
        SELECT activation_date,
               count(*) FILTER (flags & 1 > 0) AS activations,
               count(*) FILTER (flags & 2 > 0) AS bounced,
               count(*) FILTER (flags & 4 > 0) AS hit_activations,
               count(*) FILTER (flags & 8 > 0) AS optout_activations,
               count(*) FILTER (flags & 16 > 0) AS impression_activations,
               count(*) FILTER (flags & 14 > 0) AS reacting_activations
        FROM sends GROUP BY activation_date
    ),
    of_hits AS (
        SELECT activation_date,
               count(*) FILTER (is_redirection) AS hits,
               count(*) FILTER (NOT is_redirection) AS other_hits
        FROM hits GROUP BY activation_date
    )
    SELECT of_sends.*, coalesce(hits, 0) AS hits, coalesce(other_hits, 0) AS other_hits
    FROM of_sends LEFT JOIN of_hits USING (activation_date)
"""

# one byte for each of millions of sends
_FLAG = """
    CASE asset WHEN 'activations' THEN 1 WHEN 'bounces' THEN 2 WHEN 'optouts' THEN 8 WHEN 'impressions' THEN 16
    ELSE if(is_redirection, 4, 0) END::UTINYINT
"""

_PLACE = """
    SELECT event_date, asset, CAST(to_timestamp(quarter * 900) AT TIME ZONE '{timezone}' AS DATE) AS cohort,
           sum(events)::BIGINT, sum(untimed)::BIGINT
    FROM (
        SELECT event_date, asset, quarter, count(*) AS events, count(*) FILTER (is_untimed) AS untimed
        FROM placed GROUP BY ALL
    )
    GROUP BY ALL ORDER BY ALL
"""


def recount_cohorts(
    database: duckdb.DuckDBPyConnection, feeds: Feeds, cohorts: Sequence[str], window_days: int
) -> dict[str, Counts]:
    """Count the sends and hits of each cohort."""
    _create_events(database, feeds, sorted({day for cohort in cohorts for day in event_days(cohort, window_days)}))
    create_quarters(database, min(cohorts), max(cohorts), feeds.timezone)
    execute_within_memory(
        database, f"CREATE OR REPLACE TEMP TABLE recounted AS {_RECOUNT.format(window_days=window_days, flag=_FLAG)}"
    )
    recounted = database.table("recounted")
    counts: dict[str, Counts] = {cohort: dict.fromkeys(recounted.columns[1:], 0) for cohort in cohorts}
    for day, *numbers in recounted.fetchall():
        counts[str(day)] = dict(zip(recounted.columns[1:], numbers, strict=True))
    for cohort in cohorts:
        for asset, column in (("activations", "activations"), ("impressions", "impression_activations")):
            if not feeds.has_day(asset, cohort):
                counts[cohort][column] = None
    return counts


def create_quarters(database: duckdb.DuckDBPyConnection, first: str, last: str, timezone: str) -> None:
    """Create the table `quarters`: the quarters of an hour of some days, from the epoch on, their local day and hour.

    Clocks change by multiples of a quarter, and a time zone's calculation for each event is half of a count's time.
    """
    bounds = (
        to_epoch_ms(moment) // QUARTER for moment in (parse_day(first, timezone).start, parse_day(last, timezone).end)
    )
    database.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE quarters AS
        SELECT quarter, CAST(local AS DATE) AS activation_date, hour(local)::TINYINT AS hour
        FROM (
            SELECT quarter, to_timestamp(quarter * 900) AT TIME ZONE '{timezone}' AS local
            FROM range(?, ?) AS quarters(quarter)
        )
        """,
        [*bounds],
    )


def _create_events(database: duckdb.DuckDBPyConnection, feeds: Feeds, days: Sequence[str]) -> None:
    """Create the view `placed`: the events of some days, with their send and its quarter."""
    for asset in feeds.datasets:
        create_view(database, asset, feeds.select_days(asset, days))
    events = " UNION ALL BY NAME ".join(f"SELECT '{asset}' AS asset, * FROM {asset}" for asset in feeds.datasets)
    database.execute(f"""
        CREATE OR REPLACE TEMP VIEW placed AS
        SELECT asset, event_id, event_date, activated_at IS NULL AS is_untimed,
               epoch_ms(coalesce(activated_at, event_time)) // {QUARTER} AS quarter,
               asset = 'hits' AND link_type IS NOT DISTINCT FROM 'redirection' AS is_redirection,
               hash(agency, customer, activation_id, activation_version, application_id, subscription_id,
                    coalesce(stamp_id, event_id), stamp_id IS NULL) AS send
        FROM ({events})
    """)


class PlacedEvents(NamedTuple):
    """Events of an asset and an event day whose sends went out on one day; of `untimed` ones that is not known."""

    day: date
    asset: str
    cohort: date
    events: int
    untimed: int


def place_events(
    database: duckdb.DuckDBPyConnection, feeds: Feeds, days: Sequence[str]
) -> dict[str, list[PlacedEvents]]:
    """Count the stored events of each event day by the day of their send."""
    _create_events(database, feeds, days)
    rows = database.execute(_PLACE.format(timezone=feeds.timezone)).fetchall()
    placed: dict[str, list[PlacedEvents]] = {day: [] for day in days}
    for row in rows:
        placed[str(row[0])].append(PlacedEvents(*row))
    return placed


def count_uncounted(
    placed: Iterable[PlacedEvents], settings: Settings, computed: Collection[date] | None = None
) -> dict[str, dict[str, int]]:
    """Count the events that count in no cohort, by asset and reason.

    `computed` are the cohorts that have rates; where it is None, each one has.
    """
    uncounted: dict[str, dict[str, int]] = {}
    for one in placed:
        if reason := _explain_uncounted(one, settings, computed):
            reasons = uncounted.setdefault(one.asset, {})
            reasons[reason] = reasons.get(reason, 0) + one.events
    return uncounted


def _explain_uncounted(one: PlacedEvents, settings: Settings, computed: Collection[date] | None) -> str | None:
    """Say why events count in no cohort; None where they do."""
    first = one.day - timedelta(days=settings.window_days)
    if one.cohort > one.day:
        return AFTER_EVENT
    if one.cohort < max(first, settings.start_date):
        return BEFORE_WINDOW if first >= settings.start_date else BEFORE_START
    return None if computed is None or one.cohort in computed else NOT_COMPUTED


def check_placement(placed: Sequence[PlacedEvents], settings: Settings, computed: Collection[date]) -> Finding:
    """Check that the events of a day are counted; `computed` are the cohorts that have rates."""
    stored: dict[str, int] = {}
    for one in placed:
        stored[one.asset] = stored.get(one.asset, 0) + one.events
    uncounted = count_uncounted(placed, settings, computed)
    counted = {asset: number - sum(uncounted.get(asset, {}).values()) for asset, number in stored.items()}
    untimed = sum(one.untimed for one in placed)
    by_rule = {
        "own_day": sum(one.events for one in placed if one.cohort == one.day) - untimed,
        "earlier_day": sum(one.events for one in placed if 0 < (one.day - one.cohort).days <= settings.window_days),
        "time_of_send_unknown": untimed,
    }
    text = f"{sum(counted.values())} of {sum(stored.values())} events are counted in a cohort"
    for asset, reasons in uncounted.items():
        text += f"; {asset}: " + ", ".join(f"{number} {reason}" for reason, number in reasons.items())
    # what no cohort will ever count
    lost = {asset: reasons.get(BEFORE_WINDOW, 0) + reasons.get(AFTER_EVENT, 0) for asset, reasons in uncounted.items()}
    tolerated = {asset: 0 if asset == "activations" else UNCOUNTED_REACTIONS * stored[asset] for asset in lost}
    metadata = {"stored": stored, "counted": counted, "not_counted": uncounted, "placed": by_rule}
    return Finding(all(lost[asset] <= tolerated[asset] for asset in lost), text, metadata)
