"""Read from the events what rates do not have: hours of sends and clicks, ages of clicks, reasons of bounces.

The events of a cohort are those of rates.sql: placed by the time of their send, inside the window. An event without
the id of its send is a send of its own.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from typing import NamedTuple

import duckdb

from np6_assets.events.reasons import clean_reason
from np6_assets.rates.compute import execute_within_memory
from np6_assets.rates.counting import QUARTER, create_quarters
from np6_assets.rates.measures import Share

KEYS = "activation_date, agency, customer, activation_id, activation_version, application_id"
"""The grain of the rates."""

_SEND = "hash(subscription_id, coalesce(stamp_id, event_id), stamp_id IS NULL)"
"""Eight bytes in place of two long texts: with ten million sends, one report in a million has a collision."""


class Reason(NamedTuple):
    """Sends that bounced for a reason."""

    verdict: str
    reason: str
    sends: int


def create_tables(
    database: duckdb.DuckDBPyConnection, first: date, last: date, window_days: int, timezone: str
) -> None:
    """Create the tables that the other functions read, from the views `activations`, `hits` and `bounces`.

    Reads the table `rates`, too. `by_hour`: sends of each hour by KEYS; `clicked`: sends with a hit, by KEYS, the hour
    of the send, and `age`, the days from the send to the first hit.
    """
    end = last + timedelta(days=window_days)
    create_quarters(database, str(first), str(end), timezone)
    database.execute(f"""
        CREATE TABLE moments AS
        SELECT quarters.*, window_days
        FROM quarters JOIN (SELECT activation_date, any_value(window_days) AS window_days FROM rates GROUP BY ALL)
            USING (activation_date);
        CREATE TABLE usable AS SELECT DISTINCT {KEYS} FROM rates WHERE status <> 'incomplete' AND activations > 0
    """)
    for asset in ("activations", "hits", "bounces"):
        # with constants DuckDB skips the files of other days
        database.execute(f"""
            CREATE VIEW placed_{asset} AS
            SELECT events.*, moments.activation_date, moments.hour
            FROM {asset} AS events
            JOIN moments ON quarter = epoch_ms(coalesce(activated_at, event_time)) // {QUARTER}
            WHERE event_date BETWEEN DATE '{first}' AND DATE '{end}'
              AND event_date BETWEEN moments.activation_date AND moments.activation_date + window_days
        """)
    clicked = f"""
        CREATE OR REPLACE TABLE clicked AS
        SELECT {KEYS}, hour, age, count(*) AS sends
        FROM (
            SELECT {KEYS}, hour, {_SEND} AS send, min(event_date - activation_date) AS age
            FROM placed_hits WHERE link_type = 'redirection' GROUP BY ALL
        )
        GROUP BY ALL
    """
    by_hour = f"""
        CREATE OR REPLACE TABLE by_hour AS
        SELECT {KEYS}, hour, greatest(sum(sent) - sum(bounced), 0)::BIGINT AS delivered, sum(clicked)::BIGINT AS clicked
        FROM (
            SELECT {KEYS}, hour, count(DISTINCT {_SEND}) AS sent, 0 AS bounced, 0 AS clicked
            FROM placed_activations GROUP BY ALL
            UNION ALL
            SELECT {KEYS}, hour, 0, count(DISTINCT {_SEND}), 0 FROM placed_bounces GROUP BY ALL
            UNION ALL
            SELECT {KEYS}, hour, 0, 0, sum(sends) FROM clicked GROUP BY ALL
        ) AS events
        SEMI JOIN usable ON {match_keys("events", "usable")}
        GROUP BY ALL
    """
    for statement in (clicked, by_hour):
        execute_within_memory(database, statement)


def match_keys(one: str, other: str) -> str:
    """Write the condition that rows of two tables have the same KEYS."""
    return " AND ".join(f"{one}.{key} IS NOT DISTINCT FROM {other}.{key}" for key in KEYS.split(", "))


def read_slots(database: duckdb.DuckDBPyConnection) -> dict[tuple[int, int], Share]:
    """Read the hits of the delivered sends of each weekday (0 is Monday) and hour that has any."""
    rows = database.sql("""
        SELECT isodow(activation_date) - 1 AS weekday, hour, sum(clicked)::BIGINT, sum(delivered)::BIGINT
        FROM by_hour WHERE delivered > 0 GROUP BY ALL
    """).fetchall()
    return {(weekday, hour): Share(*counts) for weekday, hour, *counts in rows}


def read_bounce_reasons(database: duckdb.DuckDBPyConnection, bounced: int) -> list[Reason]:
    """Read the reasons of the bounced sends, `bounced` in all, the most frequent first.

    Each send counts once, with its worst bounce. Where events were fetched since the rates were computed, the
    difference has a line of its own.
    """
    rows = database.sql(f"""
        WITH sends AS (
            SELECT arg_min(
                {{'verdict': bounce_verdict, 'reason': bounce_reason}},
                {{
                    'rank': CASE bounce_verdict WHEN 'hard' THEN 0 WHEN 'soft' THEN 1 ELSE 2 END,
                    'time': event_time,
                    'id': event_id
                }}
            ) AS worst
            FROM placed_bounces AS events
            SEMI JOIN usable ON {match_keys("events", "usable")}
            GROUP BY {KEYS}, {_SEND}
        )
        SELECT worst.verdict, worst.reason, count(*) FROM sends GROUP BY ALL
    """).fetchall()
    sends: dict[tuple[str, str], int] = defaultdict(int)
    for verdict, reason, number in rows:
        sends[clean_reason(verdict), clean_reason(reason)] += number
    found = sorted((Reason(*key, number) for key, number in sends.items()), key=lambda one: (-one.sends, str(one)))
    if more := bounced - sum(one.sends for one in found):
        found.append(Reason("", "changed since the rates were computed", more))
    return found


def count_clicks_by_hour(database: duckdb.DuckDBPyConnection) -> list[int]:
    """Count the hits of each hour of the clock."""
    rows = database.sql(f"""
        SELECT clock.hour, count(DISTINCT event_id)
        FROM placed_hits JOIN quarters AS clock ON clock.quarter = epoch_ms(event_time) // {QUARTER}
        WHERE link_type = 'redirection'
        GROUP BY clock.hour
    """).fetchall()
    found = dict(rows)
    return [found.get(hour, 0) for hour in range(24)]
