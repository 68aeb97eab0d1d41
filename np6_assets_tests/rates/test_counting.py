"""Count the stored events by cohort and compare with plain Python; the check that reports events in no cohort."""

import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from np6_assets.rates.compute import open_duckdb
from np6_assets.rates.counting import PlacedEvents, check_placement, count_uncounted, place_events, recount_cohorts
from np6_assets.settings import Settings
from np6_assets_tests.rates.stored_feeds import ALL, list_days_from, write_feeds
from np6_assets_tests.support.deployment import Deployment
from np6_assets_tests.support.events import KINDS, Population, build_population
from np6_assets_tests.support.oracle import expect_feeds, expect_rates, parse_day
from np6_assets_tests.support.rude_server import RudeServer

FIELD = Path(__file__).parent.parent / "field"
PARIS = "Europe/Paris"
FIRST = date(2026, 3, 27)
DAY = date(2026, 3, 24)
EARLY = DAY - timedelta(days=3)


def test_recount_matches_plain_python(tmp_path: Path):
    """At a change of clocks, with missing days."""
    cases: list[tuple[str, int, list[tuple[str, int]]]] = [
        (PARIS, 0, []),
        (PARIS, 2, [("activations", 1), ("impressions", 2), ("hits", 0), ("optouts", 3)]),
        ("America/St_Johns", 1, [(kind, 1) for kind in KINDS]),
    ]
    for seed, (tz, window, missing) in enumerate(cases):
        cohorts = list_days_from(FIRST, 4)
        population = build_population(seed, FIRST, 4, tz, window_days=window)
        feeds = expect_feeds(population, list_days_from(FIRST, 4 + window), tz)
        for kind, ahead in missing:
            feeds[kind][cohorts[ahead]] = None
        with open_duckdb() as database:
            stored = write_feeds(tmp_path / f"{seed}", feeds, tz)
            found = recount_cohorts(database, stored, [f"{cohort}" for cohort in cohorts], window)
        assert list(found) == [f"{cohort}" for cohort in cohorts]
        for cohort in cohorts:
            rows = expect_rates(cohort, tz, window, feeds)
            numbers = {name: [row[name] for row in rows] for name in found[f"{cohort}"]}
            assert len(numbers) == 8
            expected = {name: None if None in of_rows else sum(of_rows) for name, of_rows in numbers.items()}
            assert rows
            assert found[f"{cohort}"] == expected, (tz, cohort)


def test_every_stored_event_is_placed(tmp_path: Path):
    settings = Settings.from_environment({"NP6_WINDOW_DAYS": "1", "NP6_START_DATE": f"{FIRST}"})
    days = list_days_from(FIRST, 5)
    feeds = expect_feeds(build_population(51, FIRST, 5, PARIS, window_days=1), days, PARIS)
    with open_duckdb() as database:
        found = place_events(database, write_feeds(tmp_path, feeds, PARIS), [f"{day}" for day in days])
    uncounted = 0
    for day in days:
        expected: Counter[str] = Counter()
        for kind in KINDS:
            for row in feeds[kind][day] or ():
                cohort = parse_day(row["activated_at"] or row["event_time"], PARIS)
                expected[kind if cohort >= FIRST and 0 <= (day - cohort).days <= 1 else "uncounted"] += 1
        finding = check_placement(found[f"{day}"], settings, days)
        assert finding.metadata["counted"] == {kind: expected[kind] for kind in finding.metadata["counted"]}
        reasons = count_uncounted(found[f"{day}"], settings).values()
        assert sum(sum(numbers.values()) for numbers in reasons) == expected["uncounted"]
        uncounted += expected["uncounted"]
    assert uncounted > 0


def test_check_warns_of_lost_sends_and_of_many_lost_reactions():
    settings = Settings.from_environment({"NP6_WINDOW_DAYS": "2", "NP6_START_DATE": "2026-03-01"})
    before, after = "sent more than the window before", "sent on a later day"

    def check(*placed: tuple[str, date, int], day: date = DAY, computed: tuple[date, ...] = (DAY,)) -> Any:
        finding = check_placement([PlacedEvents(day, *one, 0) for one in placed], settings, computed)
        return finding.passed, finding.metadata["not_counted"], finding.text

    assert check(("activations", EARLY, 3), ("hits", EARLY, 1)) == (
        False,
        {"activations": {before: 3}, "hits": {before: 1}},
        f"0 of 4 events are counted in a cohort; activations: 3 {before}; hits: 1 {before}",
    )
    # one reaction in twenty may come late
    assert check(("hits", DAY, 19), ("hits", EARLY, 1))[:2] == (True, {"hits": {before: 1}})
    assert check(("hits", DAY, 18), ("hits", EARLY, 1))[:2] == (False, {"hits": {before: 1}})
    assert check(("activations", DAY + timedelta(days=1), 1))[:2] == (False, {"activations": {after: 1}})
    yesterday = DAY - timedelta(days=1)
    not_computed = {"activations": {"their cohort's rates are not computed": 1}}
    assert check(("activations", yesterday, 1))[:2] == (True, not_computed)
    before_start = {"activations": {"sent before NP6_START_DATE": 1}}
    assert check(("activations", EARLY, 1), day=date(2026, 3, 2))[:2] != (True, before_start)
    assert check(("activations", date(2026, 2, 20), 1), day=date(2026, 3, 2))[:2] == (True, before_start)


def test_odd_stamps_count_in_the_cohort_of_their_send(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    """Of one day, two hits have their stamp in seconds, and four events one of three days before."""
    in_seconds, early = (
        json.loads((FIELD / f"stamp_{name}.json").read_text()) for name in ("in_seconds", "three_days_early")
    )
    feeds = {kind: in_seconds.get(kind, []) + early.get(kind, []) for kind in KINDS}
    server.serve(Population(notifications=[{"id": 156, "name": "Sale"}], **feeds))
    deployment = Deployment(tmp_path / "data", server, instance, NP6_WINDOW_DAYS="7")
    deployment.materialize([*ALL, "reactivity_rates"], DAY)
    deployment.materialize("reactivity_rates", EARLY, DAY)
    [row] = deployment.rates(DAY)
    assert (row["activations"], row["hit_activations"], row["hit_rate"]) == (5, 2, 0.4)
    [row] = deployment.rates(EARLY)
    assert (row["activations"], row["hits"], row["orphan_reactions"]) == (None, 1, None)
    found = deployment.check("reactivity_rates", DAY)["events_counted", f"{DAY}"]
    assert found.passed
    assert found.description == f"{DAY}: 11 of 11 events are counted in a cohort"
    assert found.metadata["placed"].value == {"own_day": 7, "earlier_day": 4, "time_of_send_unknown": 0}
    assert deployment.metadata("reactivity_rates", DAY)["events_in_no_cohort"] == 0
