"""Test in which cohort an event is counted, and the check that reports events in no cohort."""

import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets_tests.support.deployment import Deployment, list_days
from np6_assets_tests.support.events import KINDS, Population, build_event, build_population
from np6_assets_tests.support.oracle import (
    compute_day_bounds,
    find_reason,
    parse_day,
    read_activated_at,
    read_event_time,
)
from np6_assets_tests.support.rude_server import RudeServer

FIELD = Path(__file__).parent.parent / "field"
DAY = date(2026, 3, 24)
EARLY = DAY - timedelta(days=3)


def serve_field_file(name: str, server: RudeServer) -> None:
    """Serve the events of a file in field/."""
    events = json.loads((FIELD / name).read_text())
    feeds = {kind: events.get(kind, []) for kind in KINDS}
    server.serve(Population(notifications=[{"id": 156, "name": "Sale"}], **feeds))


def check_events_counted(deployment: Deployment, first: date, last: date) -> dict[str, Any]:
    """Return the check's evaluation by day."""
    found = deployment.check("reactivity_rates", first, last)
    return {day: one for (name, day), one in found.items() if name == "events_counted" and day is not None}


def test_event_with_a_stamp_in_seconds_is_counted(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    serve_field_file("stamp_in_seconds.json", server)
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.materialize([*KINDS, "reactivity_rates"], DAY, DAY)
    [row] = deployment.rates(DAY)
    assert (row["activations"], row["hit_activations"], row["hit_rate"]) == (5, 2, 0.4)
    found = check_events_counted(deployment, DAY, DAY)[f"{DAY}"]
    assert found.passed
    assert found.metadata["placed"].value == {"own_day": 7, "earlier_day": 0, "time_of_send_unknown": 0}
    assert deployment.metadata("reactivity_rates", DAY)["events_in_no_cohort"] == 0


def test_event_with_an_early_stamp_is_counted_in_one_cohort(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    serve_field_file("stamp_three_days_early.json", server)
    deployment = Deployment(tmp_path / "data", server, instance, NP6_WINDOW_DAYS="7")
    deployment.materialize([*KINDS, "reactivity_rates"], EARLY, DAY)
    rows = {day: deployment.rates(day) for day in list_days(EARLY, DAY)}
    assert [len(found) for found in rows.values()] == [1, 0, 0, 0]
    assert (rows[EARLY][0]["activations"], rows[EARLY][0]["hits"], rows[EARLY][0]["orphan_reactions"]) == (3, 1, 0)
    found = check_events_counted(deployment, EARLY, DAY)
    assert all(one.passed for one in found.values())
    assert found[f"{DAY}"].metadata["placed"].value == {"own_day": 0, "earlier_day": 4, "time_of_send_unknown": 0}
    assert found[f"{DAY}"].description == f"{DAY}: 4 of 4 events are counted in a cohort"


@pytest.mark.slow
def test_check_warns_of_sends_in_no_cohort(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    serve_field_file("stamp_three_days_early.json", server)
    deployment = Deployment(tmp_path / "data", server, instance, NP6_WINDOW_DAYS="2")
    deployment.materialize([*KINDS, "reactivity_rates"], EARLY, DAY)
    assert [deployment.rates(day) for day in list_days(EARLY, DAY)] == [[]] * 4
    found = check_events_counted(deployment, EARLY, DAY)[f"{DAY}"]
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert found.metadata["stored"].value == {"hits": 1, "activations": 3}
    reason = "sent more than the window before"
    assert found.metadata["not_counted"].value == {"hits": {reason: 1}, "activations": {reason: 3}}
    assert f"activations: 3 {reason}" in found.description
    assert deployment.metadata("reactivity_rates", DAY)["events_in_no_cohort"] == 4
    assert deployment.metadata("reactivity_rates", EARLY)["events_in_no_cohort"] == 0


def test_check_reports_few_late_reactions_without_a_warning(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    noon = compute_day_bounds(DAY, "UTC")[0] + 12 * 3_600_000
    hits = [
        build_event(
            "hits", id=f"{number}", timestamp=noon, stamp_time=noon - (10 * 86_400_000 if number == 0 else 1000)
        )
        for number in range(30)
    ]
    server.serve(Population(notifications=[{"id": 156, "name": "Sale"}], hits=hits))
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.materialize([*KINDS, "reactivity_rates"], DAY, DAY)
    found = check_events_counted(deployment, DAY, DAY)[f"{DAY}"]
    assert found.passed
    assert found.description == (
        f"{DAY}: 29 of 30 events are counted in a cohort; hits: 1 sent more than the window before"
    )


@pytest.mark.slow
def test_check_counts_every_stored_event(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    first, last, window, timezone = date(2026, 3, 27), date(2026, 3, 31), 1, "Europe/Paris"
    population = build_population(51, first, 5, timezone, window_days=window)
    server.serve(population)
    deployment = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=timezone, NP6_START_DATE=f"{first}")
    deployment.materialize([*KINDS, "reactivity_rates"], first, last)
    found = check_events_counted(deployment, first, last)
    for day in list_days(first, last):
        expected: Counter[str] = Counter()
        start, end = compute_day_bounds(day, timezone)
        for kind in KINDS:
            for event in {
                event["id"]: event for event in population.feed(kind) if find_reason(kind, event) is None
            }.values():
                at = read_event_time(event)
                assert at is not None
                if start <= at < end:
                    cohort = parse_day(read_activated_at(event) or at, timezone)
                    is_counted = first <= cohort and 0 <= (day - cohort).days <= window
                    expected[kind] += is_counted
                    expected["not counted"] += not is_counted
        metadata = found[f"{day}"].metadata
        assert {kind: metadata["counted"].value[kind] for kind in KINDS} == {kind: expected[kind] for kind in KINDS}
        assert deployment.metadata("reactivity_rates", day)["events_in_no_cohort"] == expected["not counted"]
        missing = sum(sum(reasons.values()) for reasons in metadata["not_counted"].value.values())
        assert missing == expected["not counted"]
