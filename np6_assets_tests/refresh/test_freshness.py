"""Test that yesterday must be complete by a set hour."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.refresh.freshness import find_due_day
from np6_assets.settings import Settings
from np6_assets_tests.support.clock import Clock
from np6_assets_tests.support.deployment import Deployment
from np6_assets_tests.support.events import KINDS
from np6_assets_tests.support.rude_server import RudeServer

PARIS = "Europe/Paris"
DAILY = {*KINDS, "reactivity_rates"}


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-03-10T06:59:59+00:00", "2026-03-08"),  # 07:59:59 in Paris
        ("2026-03-10T07:00:00+00:00", "2026-03-09"),
        ("2026-03-10T22:59:59+00:00", "2026-03-09"),
        ("2026-03-10T23:00:00+00:00", "2026-03-09"),  # the next day has begun
        ("2026-03-29T05:59:59+00:00", "2026-03-27"),  # the clocks went forward that night
        ("2026-03-29T06:00:00+00:00", "2026-03-28"),
    ],
)
def test_due_day_follows_the_local_clock(now: str, day: str):
    settings = Settings.from_environment({"NP6_TIMEZONE": PARIS})
    assert find_due_day(datetime.fromisoformat(now), settings).key == day


def find_stale(deployment: Deployment) -> dict[str, str]:
    """Run the schedule's job, and return the stale assets with their description."""
    repository = deployment.definitions.get_repository_def()
    result = repository.get_job("check_freshness").execute_in_process(instance=deployment.instance)
    found = result.get_asset_check_evaluations()
    assert {one.asset_key.to_user_string() for one in found} == DAILY
    assert {one.severity for one in found} == {dg.AssetCheckSeverity.WARN}
    return {one.asset_key.to_user_string(): one.description or "" for one in found if not one.passed}


def test_check_passes_if_yesterday_was_fetched_after_its_end(instance: dg.DagsterInstance, tmp_path: Path):
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    noon = datetime.combine(today, datetime.min.time(), UTC).replace(hour=12)
    clock = Clock(noon - timedelta(days=1))
    with RudeServer(seed=1) as server:
        deployment = Deployment(tmp_path / "data", server, instance, clock)
        assert find_stale(deployment).keys() == DAILY
        # fetched before it had ended
        deployment.materialize("hits", yesterday)
        clock.now = noon
        found = find_stale(deployment)
        assert found.keys() == DAILY
        assert "before it had ended" in found["hits"]
        assert found["bounces"] == f"{yesterday} is missing"
        # an old day that is fetched again changes nothing
        deployment.materialize("hits", date(2026, 2, 1))
        assert "hits" in find_stale(deployment)
        clock.now = noon.replace(hour=0, minute=10)  # not closed yet, but complete
        deployment.materialize("hits", yesterday)
        clock.now = noon
        assert find_stale(deployment).keys() == DAILY - {"hits"}
        deployment.materialize([*DAILY], yesterday)
        assert find_stale(deployment) == {}


def test_check_passes_before_the_first_day(instance: dg.DagsterInstance, tmp_path: Path):
    with RudeServer(seed=1) as server:
        deployment = Deployment(
            tmp_path / "data",
            server,
            instance,
            Clock(datetime(2026, 2, 1, 12, tzinfo=UTC)),
            NP6_START_DATE="2026-02-01",
        )
        assert find_stale(deployment) == {}


def test_schedule_runs_at_the_set_hour(tmp_path: Path, instance: dg.DagsterInstance):
    with RudeServer(seed=1) as server:
        deployment = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=PARIS, NP6_FRESH_BY_HOUR="6")
    schedule = deployment.definitions.get_repository_def().get_schedule_def("freshness")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * *", PARIS)
    [tick] = [schedule.evaluate_tick(dg.build_schedule_context(instance=instance))]
    assert len(tick.run_requests or ()) == 1
