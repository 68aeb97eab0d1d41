"""Compute the rates of cases worked out by hand: each is a notification of one cohort, all in one computation."""

from collections.abc import Callable
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest

from np6_assets.rates.compute import build_duckdb_runner, open_duckdb
from np6_assets_tests.rates.stored_feeds import ALL, compute_tables, list_days_from, list_rows, write_feeds
from np6_assets_tests.support.events import build_event
from np6_assets_tests.support.oracle import Row, build_row, compute_day_bounds, parse_day

D = date(2026, 3, 20)
HOUR = 3_600_000
DAY = 24 * HOUR
MIDNIGHT, NEXT_MIDNIGHT = compute_day_bounds(D, "UTC")
NOON = MIDNIGHT + 12 * HOUR
WINDOW = 2


class Add(Protocol):
    """Adds an event of the send with this stamp, sent at noon of D, to the case's notification; returns its id."""

    def __call__(self, kind: str, stamp: str | None, at: int = NOON, **fields: Any) -> str: ...


Case = Callable[[Add], dict[str, Any]]
"""Adds events, and returns what is expected of the notification's only row."""

CASES: list[Case] = []


def expect(**values: Any) -> dict[str, Any]:
    return values


def case(function: Case) -> Case:
    CASES.append(function)
    return function


@case
def rates_of_twelve_sends(add: Add) -> dict[str, Any]:
    # s0, s1 bounce: 10 are delivered. s2 is hit twice, 3 h and 2 days later; s3 is hit once: 2 of 10.
    # s3 is muted as well, s4 is muted: 2 of 10. s5 to s9 are displayed: 5 of 10. s0 to s4 react.
    for number in range(12):
        add("activations", f"s{number}")
    add("bounces", "s0", verdict="hard")
    add("bounces", "s1", verdict="soft")
    add("hits", "s2", NOON + 3 * HOUR)
    add("hits", "s2", NOON + 2 * DAY)
    add("hits", "s3")
    add("optouts", "s3")
    add("optouts", "s4")
    for number in range(5, 10):
        add("impressions", f"s{number}")
    return expect(
        activations=12,
        bounced=2,
        delivered=10,
        hit_activations=2,
        hits=3,
        reacting_activations=5,
        orphan_reactions=0,
        hit_rate=2 / 10,
        optout_rate=2 / 10,
        impression_rate=5 / 10,
        bounce_rate=2 / 12,
        hard_bounce_rate=1 / 12,
        hits_per_hit_activation=3 / 2,
        hit_share=2 / 5,
        optout_share=2 / 5,
        bounce_share=2 / 5,
        window_days=2,
        days_loaded=3,
        status="final",
        is_final=True,
    )


@case
def bounce_counts_by_its_worst_verdict(add: Add) -> dict[str, Any]:
    for number, verdicts in enumerate(
        (["soft", "hard", "blocked"], ["soft", None], ["blocked", None], [None], ["HARD"])
    ):
        add("activations", f"s{number}")
        for verdict in verdicts:
            add("bounces", f"s{number}", verdict=verdict)
    # s0 is hard, s1 soft, s2, s3 and s4 (verdicts are spelled in lower case) other
    return expect(bounces_hard=1, bounces_soft=1, bounces_other=3, bounced=5, delivered=0)


@case
def hit_of_another_link_type_is_no_click_through(add: Add) -> dict[str, Any]:
    for number, link_type in enumerate(("dismissal", "", None, "Redirection")):
        add("activations", f"s{number}")
        add("hits", f"s{number}", link_type=link_type)
    return expect(
        hit_activations=0,
        hits=0,
        other_hits=4,
        reacting_activations=0,
        hit_rate=0.0,
        hits_per_hit_activation=None,
        hit_share=None,
    )


@case
def reaction_to_an_unknown_send_is_an_orphan(add: Add) -> dict[str, Any]:
    # one send that nothing happened to; three unknown sends: hit, muted, bounced. Delivered: 1 - 1 = 0.
    add("activations", "known")
    add("hits", "unknown 1")
    add("optouts", "unknown 2")
    add("bounces", "unknown 3")
    add("bounces", "unknown 3")
    add("impressions", "unknown 4")  # no reaction
    return expect(
        activations=1, reacting_activations=3, orphan_reactions=3, delivered=0, bounce_rate=1.0
    ) | dict.fromkeys(("hit_rate", "optout_rate", "impression_rate", "hit_rate_low"))


@case
def rates_above_1_are_not_clamped(add: Add) -> dict[str, Any]:
    for number in range(2):
        add("activations", f"s{number}")
    for number in range(5):
        for kind in ("hits", "optouts", "impressions"):
            add(kind, f"unknown {number}")
    return expect(hit_rate=2.5, optout_rate=2.5, impression_rate=2.5, hit_rate_low=None, hit_rate_high=None)


@case
def delivered_is_at_least_zero(add: Add) -> dict[str, Any]:
    for number in range(2):
        add("activations", f"s{number}")
    for number in range(3):
        add("bounces", f"unknown {number}")
    return expect(delivered=0, bounce_rate=1.5, hit_rate=None)


@case
def event_without_a_stamp_id_is_its_own_send(add: Add) -> dict[str, Any]:
    for _ in range(3):
        add("activations", None)
    for _ in range(2):
        add("hits", None)
    return expect(activations=3, hit_activations=2, hits=2, orphan_reactions=2)  # of unknown sends


@case
def event_without_a_stamp_time_is_in_the_cohort_of_its_day(add: Add) -> dict[str, Any]:
    add("activations", "s", stamp_time=None)
    add("hits", "s", NOON + HOUR, stamp_time=None)
    add("hits", "s", NOON + DAY, stamp_time=None)  # of the next day's cohort
    add("hits", "s", NOON + DAY)
    return expect(activations=1, hit_activations=1, hits=2)


@case
def send_is_identified_by_stamp_and_subscription(add: Add) -> dict[str, Any]:
    for subscription in ("phone", "tablet", None):
        add("activations", "s", subscription=subscription)
        add("activations", "s", subscription=subscription)  # published twice, under two ids
    add("hits", "s", subscription=None)
    add("hits", "s", subscription="tablet")
    return expect(activations=3, hit_activations=2, orphan_reactions=0)


@case
def stamp_id_equal_to_an_event_id_is_another_send(add: Add) -> dict[str, Any]:
    without_stamp = add("activations", None)
    add("activations", without_stamp)
    return expect(activations=2)


@case
def event_stored_on_two_days_counts_once(add: Add) -> dict[str, Any]:
    add("activations", "s")
    first = add("hits", "s")
    add("hits", "s", NOON + DAY, id=first)
    return expect(hits=1)


@case
def window_ends_with_its_last_day(add: Add) -> dict[str, Any]:
    end = MIDNIGHT + (WINDOW + 1) * DAY
    add("activations", "s")
    add("hits", "s", end - 1)
    add("hits", "s", end)
    add("optouts", "s", end)
    return expect(hits=1, optout_activations=0)


@case
def cohort_is_the_day_of_the_stamp(add: Add) -> dict[str, Any]:
    for stamp_time in (MIDNIGHT, NEXT_MIDNIGHT - 1):
        add("activations", f"in {stamp_time}", NEXT_MIDNIGHT, stamp_time=stamp_time)
    for stamp_time in (MIDNIGHT - 1, NEXT_MIDNIGHT):
        add("activations", f"out {stamp_time}", stamp_time=stamp_time)
        add("hits", f"out {stamp_time}", stamp_time=stamp_time)
    add("activations", "in 2", NEXT_MIDNIGHT + DAY)
    add("activations", "too late", NEXT_MIDNIGHT + 2 * DAY)
    return expect(activations=3, hits=0)


# Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3; and 10 of 100, from any textbook's calculator
WILSON = (
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
    (10, 100, 0.0552, 0.1744),
    (20, 20, 0.8389, 1.0),
)


def build_wilson_case(hit: int, delivered: int, low: float, high: float) -> Case:
    def interval_is_wilsons(add: Add) -> dict[str, Any]:
        for number in range(delivered):
            add("activations", f"s{number}")
        for number in range(hit):
            add("hits", f"s{number}")
        return expect(hit_rate_low=pytest.approx(low, abs=5e-5), hit_rate_high=pytest.approx(high, abs=5e-5))

    return interval_is_wilsons


def test_rates_match_cases_worked_out_by_hand(tmp_path: Path):
    feeds: dict[str, dict[date, list[Row] | None]] = {kind: {day: [] for day in list_days_from(D, 4)} for kind in ALL}
    ids = count()

    def build_add(activation_id: int) -> Add:
        def add(kind: str, stamp: str | None, at: int = NOON, **fields: Any) -> str:
            fields = {"id": f"{next(ids)}", "stamp_time": NOON, "subscription": "phone", **fields}
            event = build_event(kind, timestamp=at, stamp_id=stamp, activation_id=activation_id, **fields)
            rows = feeds[kind][parse_day(at, "UTC")]
            assert rows is not None
            rows.append(build_row(kind, event, "drop", None))
            return str(fields["id"])

        return add

    cases = [*CASES, *(build_wilson_case(*one) for one in WILSON)]
    expected = {number: one(build_add(number)) for number, one in enumerate(cases)}
    # what of a day after the window is not read is as if it were not stored
    with open_duckdb() as database:
        rates = compute_tables(build_duckdb_runner(database), write_feeds(tmp_path, feeds, "UTC"), [D], WINDOW)[D]
    found = {row["activation_id"]: row for row in list_rows(rates, D)}
    assert len(found) == rates.num_rows == len(cases)
    for number, values in expected.items():
        assert {name: found[number][name] for name in values} == values, cases[number].__name__


def test_rows_are_grouped_by_grain_and_nulls_are_groups(tmp_path: Path):
    grain = ("agency", "customer", "activation_id", "activation_version", "application_id")
    ordered: list[tuple[Any, ...]] = [
        ("A", "1", 7, "1", "x"),
        ("A", "1", 7, "1", None),
        ("A", "1", 7, "2", "x"),
        ("A", "1", 2**53, "1", "x"),
        ("A", "1", 2**53 + 1, "1", "x"),
        ("A", None, 7, "1", "x"),
        ("B", "1", 7, "1", "x"),
        (None, "1", 7, "1", "x"),
    ]
    events = [
        build_event(
            "activations",
            id=f"{number}",
            timestamp=NOON,
            stamp_time=NOON,
            **dict(zip(("agency", "customer", "activation_id", "version", "application"), one, strict=True)),
        )
        for number, one in enumerate(reversed(ordered))
    ]
    rows: list[Row] | None = [build_row("activations", event, "drop", None) for event in events]
    feeds = {kind: {D: rows if kind == "activations" else []} for kind in ALL}
    with open_duckdb() as database:
        rates = compute_tables(build_duckdb_runner(database), write_feeds(tmp_path, feeds, "UTC"), [D], 0)[D]
    assert [tuple(row[name] for name in grain) for row in list_rows(rates, D)] == ordered
    assert rates["activations"].to_pylist() == [1] * len(ordered)
