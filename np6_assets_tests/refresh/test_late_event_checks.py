"""Test the check of late events, with late events and with both schedules off."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets_tests.refresh.account import Account, turn_on
from np6_assets_tests.support.events import KINDS, build_population
from np6_assets_tests.support.oracle import compute_day_bounds, expect_rows
from np6_assets_tests.support.rude_server import RudeServer

FIRST = date(2026, 3, 2)
OFF = "neither np6_refresh nor daily_ingest is on: nothing fetches late events; turn one on"


@pytest.fixture
def instance(kept_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """An instance that knows which schedules are on; one in memory does not."""
    return kept_instance


@pytest.fixture
def account(instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[Account]:
    """Two days; some hits of the first are published three days late."""
    events = build_population(71, FIRST, 2, sends_per_day=6)
    with RudeServer(seed=1) as server:
        start = datetime(2026, 3, 4, 3, 30, tzinfo=UTC)
        account = Account.create(tmp_path / "data", server, instance, start, events, NP6_START_DATE=f"{FIRST}")
        begin, end = compute_day_bounds(FIRST, "UTC")
        first_day = {row["event_id"] for row in expect_rows("hits", events.hits, begin, end)}
        account.late = dict.fromkeys(sorted(first_day)[:3], timedelta(days=3))
        yield account


def run_check(account: Account) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the schedule's job, and return its evaluations by asset."""
    repository = account.deployment.definitions.get_repository_def()
    result = repository.get_job("check_lateness").execute_in_process(instance=account.instance)
    evaluations = result.get_asset_check_evaluations()
    assert {one.severity for one in evaluations} == {dg.AssetCheckSeverity.WARN}
    return {one.asset_key.to_user_string(): one for one in evaluations}


def test_check_passes_if_the_schedule_is_on(account: Account):
    turn_on(account.instance, "freshness")
    evaluations = run_check(account)
    assert evaluations.keys() == set(KINDS)
    assert {(one.description, one.passed) for one in evaluations.values()} == {(OFF, False)}
    turn_on(account.instance, "daily_ingest")
    evaluations = run_check(account)
    assert all(one.passed for one in evaluations.values())
    assert evaluations["hits"].description == "no fetch of a closed day brought late events"


@pytest.mark.slow
def test_check_names_the_lookback_that_late_events_need(account: Account):
    second, late = FIRST + timedelta(days=1), len(account.late)
    assert late > 1
    account.publish()
    account.deployment.materialize(["hits", "bounces"], FIRST, second)  # 27.5 and 3.5 hours after their ends
    assert run_check(account)["hits"].description == OFF
    account.clock.forward(days=4)
    account.publish()
    account.deployment.materialize(["hits", "bounces"], FIRST, second)
    evaluations = run_check(account)
    assert evaluations["hits"].description == (
        f"{OFF}; late events came after their day was closed ({FIRST}: {late}); "
        f"set NP6_LOOKBACK_MINUTES above {27 * 60 + 30}"
    )
    assert evaluations["hits"].metadata["events_gained"].value == {f"{FIRST}": late}
    assert evaluations["bounces"].description == OFF


@pytest.mark.slow
def test_sends_of_a_failed_notification_are_not_late(account: Account):
    id_ = account.events.activations[0]["source"]["detail"]["activation"]["id"]
    account.server.script_always(f"/notifications/{id_}/events", "403")
    account.publish()
    account.deployment.materialize("activations", FIRST)
    account.server.reset_faults()
    account.clock.forward(days=1)
    account.deployment.materialize("activations", FIRST)
    assert account.deployment.metadata("activations", FIRST)["events_gained"] > 0
    assert run_check(account)["activations"].description == OFF
