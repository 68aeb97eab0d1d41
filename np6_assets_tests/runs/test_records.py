"""Remove old records on SQLite: which runs are removed, and what Dagster still knows of them."""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets_tests.support.clock import Clock
from np6_assets_tests.support.deployment import Deployment, tag_range
from np6_assets_tests.support.events import build_population
from np6_assets_tests.support.rude_server import RudeServer

FIRST, SECOND = date(2026, 3, 20), date(2026, 3, 21)
HITS = dg.AssetKey("hits")
CHECK = dg.AssetCheckKey(HITS, "events_as_expected")
CLOCK = Clock(datetime.now(UTC))


@pytest.fixture
def deployment(
    tmp_path: Path, kept_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    with RudeServer(build_population(3, FIRST, 2, sends_per_day=4), seed=3) as server:
        monkeypatch.setenv("NP6_API_KEY", server.key)
        CLOCK.now = datetime.now(UTC)
        yield Deployment(tmp_path / "data", server, kept_instance, CLOCK)


def fetch(deployment: Deployment, first: date, last: date | None = None) -> str:
    """Run the sensor's job for the hits of a day or a range of days, and return the run's id."""
    result = deployment.definitions.resolve_job_def("fetch_events").execute_in_process(
        instance=deployment.instance,
        asset_selection=[HITS],
        partition_key=None if last else f"{first}",
        tags=tag_range(first, last) if last else {},
        raise_on_error=False,
    )
    return result.run_id


def run_night(deployment: Deployment, later: timedelta) -> None:
    """Run the nightly job, `later` than now."""
    CLOCK.now = datetime.now(UTC) + later
    job = deployment.definitions.resolve_job_def("remove_old_records")
    assert job.execute_in_process(instance=deployment.instance).success


def list_run_ids(deployment: Deployment) -> set[str]:
    """List the runs of jobs other than the nightly one."""
    return {run.run_id for run in deployment.instance.get_runs() if run.job_name != "remove_old_records"}


def find_files(home: Path, run_id: str) -> list[Path]:
    """Find the files of a run in DAGSTER_HOME."""
    return [path for path in home.rglob("*") if run_id in path.name]


def test_superseded_runs_are_removed(deployment: Deployment, home: Path):
    instance = deployment.instance
    superseded, both, again = fetch(deployment, FIRST), fetch(deployment, FIRST, SECOND), fetch(deployment, SECOND)
    metadata = [deployment.metadata("hits", day) for day in (FIRST, SECOND)]
    evaluation = instance.event_log_storage.get_latest_asset_check_execution_by_key([CHECK])[CHECK]
    assert all(find_files(home, run_id) for run_id in (superseded, both, again))

    run_night(deployment, timedelta(days=6))
    assert list_run_ids(deployment) == {superseded, both, again}
    run_night(deployment, timedelta(days=8))
    assert list_run_ids(deployment) == {both, again}
    assert find_files(home, superseded) == []
    assert instance.get_materialized_partitions(HITS) == {f"{FIRST}", f"{SECOND}"}
    assert [deployment.metadata("hits", day) for day in (FIRST, SECOND)] == metadata
    assert instance.event_log_storage.get_latest_asset_check_execution_by_key([CHECK])[CHECK] == evaluation


@pytest.mark.slow
def test_superseded_runs_of_rates_are_removed(deployment: Deployment):
    fetched = fetch(deployment, FIRST)
    job = deployment.definitions.resolve_job_def("compute_rates")
    _, second = (job.execute_in_process(instance=deployment.instance, partition_key=f"{FIRST}").run_id for _ in "12")
    run_night(deployment, timedelta(days=8))
    assert list_run_ids(deployment) == {fetched, second}


@pytest.mark.slow
def test_run_stays_for_a_week_after_it_is_superseded_and_for_a_month_if_it_failed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
):
    fetch(deployment, FIRST)
    second = fetch(deployment, FIRST)
    replaced = datetime.now(UTC)
    third = fetch(deployment, FIRST)
    # a week after the second, and not after the third
    run_night(deployment, replaced + timedelta(days=7) - datetime.now(UTC))
    assert list_run_ids(deployment) == {second, third}
    monkeypatch.setenv("NP6_API_KEY", "wrong")
    failed = fetch(deployment, FIRST)
    run_night(deployment, timedelta(days=29))
    assert list_run_ids(deployment) == {third, failed}
    run_night(deployment, timedelta(days=31))
    assert list_run_ids(deployment) == {third}


def test_runs_of_others_and_receipts_stay_and_logs_of_ticks_go_after_a_week(deployment: Deployment, home: Path):
    @dg.asset
    def of_another_project() -> None: ...

    @dg.job(name="freshness_job")
    def of_version_0_1(): ...

    assert of_version_0_1.execute_in_process(instance=deployment.instance).success
    other = dg.materialize([of_another_project], instance=deployment.instance).run_id
    treatment = deployment.definitions.resolve_job_def("treat_contact_data")
    treated = treatment.execute_in_process(instance=deployment.instance).run_id
    later = timedelta(days=400)
    logs = {}
    for name in ("np6_refresh", "rates_follow", "sensor_of_another_project"):
        for ago in (6, 8):
            logs[name, ago] = home / "storage" / "__repository__" / name / f"{ago}.err"
            logs[name, ago].parent.mkdir(parents=True, exist_ok=True)
            logs[name, ago].touch()
            os.utime(logs[name, ago], ((datetime.now(UTC) + later - timedelta(days=ago)).timestamp(),) * 2)
    run_night(deployment, later)
    assert list_run_ids(deployment) == {other, treated}
    assert [one for one, file in logs.items() if not file.exists()] == [("np6_refresh", 8), ("rates_follow", 8)]
