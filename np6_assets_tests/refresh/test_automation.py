"""When rates are asked for: simulated ticks of Dagster's automation over real runs, or over what runs would record."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets.progress import Progress
from np6_assets.rates import compute as rates_compute
from np6_assets.refresh.automation import rates_sensor
from np6_assets.settings import Settings
from np6_assets_tests.support.deployment import Deployment, days, files
from np6_assets_tests.support.events import population
from np6_assets_tests.support.oracle import day_bounds
from np6_assets_tests.support.rude_server import RudeServer

FIRST = date(2026, 3, 20)
WINDOW = 2
RATES = dg.AssetKey("reactivity_rates")
HOUR = timedelta(hours=1)


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(population(41, FIRST, 3, sends_per_day=10), seed=1) as running:
        yield running


@pytest.fixture
def deployment(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "data", server, instance, NP6_WINDOW_DAYS=str(WINDOW), NP6_START_DATE="2025-01-01")


class Ticks:
    """Ticks of the sensor `rates_follow`, with its cursor from one to the next."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.cursor: Any = None

    def __call__(self, at: datetime | None = None) -> list[date]:
        """The activation days that are asked for."""
        result = dg.evaluate_automation_conditions(
            self.deployment.definitions, self.deployment.instance, evaluation_time=at, cursor=self.cursor
        )
        self.cursor = result.cursor
        return sorted(date.fromisoformat(day) for day in result.get_requested_partitions(RATES) if day)


@pytest.fixture
def tick(deployment: Deployment) -> Ticks:
    return Ticks(deployment)


def record(deployment: Deployment, asset: str, day: date, version: str) -> None:
    """What a run records that has fetched, or computed, a day."""
    tags = {"dagster/data_version": version}
    deployment.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=str(day), tags=tags))


def cohorts_of(day: date) -> list[date]:
    return days(day - timedelta(days=WINDOW), day)


def compute(deployment: Deployment, asked: list[date], *, succeeds: bool = True) -> None:
    """Do what was asked for, as one run."""
    assert asked == days(asked[0], asked[-1])
    result = deployment.materialize("reactivity_rates", asked[0], asked[-1], raise_on_error=False)
    assert result.success is succeeds


def fails(*arguments: Any) -> Any:
    raise RuntimeError("no rates today")


def fail_twice(deployment: Deployment, tick: Ticks, monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """What is asked for after a fetch, and again at once after it failed, but no third time."""
    deployment.materialize("hits", FIRST)
    asked = tick()
    monkeypatch.setattr(rates_compute, "rates", fails)
    compute(deployment, asked, succeeds=False)
    assert tick() == asked
    compute(deployment, asked, succeeds=False)
    assert tick() == []
    return asked


def test_days_of_a_tick_become_one_backfill_and_one_run(deployment: Deployment):
    sensor = rates_sensor(Settings.from_environment({}))
    assert sensor.emit_backfills  # Dagster makes one backfill of what a tick asks for, and asks its policy for the runs
    [rates] = [asset for asset in deployment.definitions.assets or () if asset.key == RATES]
    assert rates.backfill_policy == dg.BackfillPolicy.single_run()
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.sensor_type.name == "AUTOMATION"  # evaluated where the project's own condition is


def test_missing_rates_are_requested_when_the_sensor_is_turned_on(deployment: Deployment, tick: Ticks):
    record(deployment, "hits", FIRST, "a")
    record(deployment, "reactivity_rates", FIRST, "r")
    assert tick() == cohorts_of(FIRST)[:-1]
    assert tick() == []


@pytest.mark.parametrize("asset", ["hits", "impressions", "activations"])
def test_changed_day_requests_the_cohorts_of_its_window_once(deployment: Deployment, tick: Ticks, asset: str):
    for day in days(FIRST - timedelta(days=5), FIRST):
        record(deployment, "reactivity_rates", day, "r")
    assert tick() == []
    for version in ("a", "b"):
        record(deployment, asset, FIRST, version)
        assert tick() == cohorts_of(FIRST)
        assert tick() == []


def test_cohort_waits_for_its_own_day_of_activations(deployment: Deployment, tick: Ticks):
    second, third = FIRST + timedelta(days=1), FIRST + timedelta(days=2)
    record(deployment, "activations", FIRST, "a")
    assert tick() == cohorts_of(FIRST)
    # reactions alone, to sends of these days and of the days before
    record(deployment, "hits", third, "a")
    assert tick() == [FIRST]
    # the sends of the third day say nothing of those of the second
    record(deployment, "activations", third, "a")
    assert tick() == [FIRST, third]
    record(deployment, "activations", second, "a")
    assert tick() == [FIRST - timedelta(days=1), FIRST, second]
    assert tick() == []


def test_cohorts_before_the_first_day_of_activations_do_not_wait(deployment: Deployment, tick: Ticks):
    before = FIRST - timedelta(days=10)
    record(deployment, "activations", FIRST, "a")
    assert tick() == cohorts_of(FIRST)
    record(deployment, "hits", before, "a")
    assert tick() == cohorts_of(before)


@pytest.mark.slow
def test_year_that_was_fetched_is_requested_at_once(deployment: Deployment, tick: Ticks):
    assert tick() == []
    for asset in ("hits", "activations"):
        for day in days(date(2025, 2, 1), date(2026, 1, 31)):
            record(deployment, asset, day, "a")
    assert tick() == days(date(2025, 1, 30), date(2026, 1, 31))
    assert tick() == []


def test_fetch_without_new_events_requests_no_rates(deployment: Deployment, tick: Ticks, server: RudeServer):
    made = population(41, FIRST, 3, sends_per_day=10)
    all_hits, second = made.hits, FIRST + timedelta(days=1)
    made.hits = [hit for hit in all_hits if hit["timestamp"] >= day_bounds(second, "UTC")[0]]
    server.serve(made)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert tick() == days(FIRST - timedelta(days=WINDOW), second)
    deployment.materialize("hits", FIRST)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert tick() == []
    # late-arriving events
    made.hits = all_hits
    server.serve(made)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert tick() == cohorts_of(FIRST)
    # events that the API has forgotten are kept
    made.hits = []
    server.serve(made)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert tick() == []


def test_change_right_after_a_request_is_requested_again(deployment: Deployment, tick: Ticks):
    tick()
    record(deployment, "hits", FIRST, "a")
    assert tick() == cohorts_of(FIRST)
    # the run that was asked for may have read the file that was there before
    record(deployment, "hits", FIRST, "b")
    assert tick() == cohorts_of(FIRST)
    assert tick() == []


def test_change_while_rates_are_computed_is_requested_once_they_are_stored(
    deployment: Deployment, tick: Ticks, monkeypatch: pytest.MonkeyPatch
):
    deployment.materialize("hits", FIRST)
    asked = tick()
    assert asked == cohorts_of(FIRST)
    during: list[list[date]] = []
    compute_all = rates_compute.rates

    def rates(*arguments: Any) -> Any:
        for computed in compute_all(*arguments):
            if not during:
                during.append(tick())
                record(deployment, "optouts", FIRST, "late")
            during.append(tick())
            yield computed

    monkeypatch.setattr(rates_compute, "rates", rates)
    compute(deployment, asked)
    monkeypatch.undo()
    # each once, when its own rates are recorded
    assert during[:2] == [[], []]
    assert sorted([day for some in during for day in some] + tick()) == asked
    compute(deployment, asked)
    assert tick() == []


def test_rates_wait_for_events_that_are_being_fetched(
    deployment: Deployment, tick: Ticks, monkeypatch: pytest.MonkeyPatch
):
    tick()
    during: list[list[date]] = []
    day_done = Progress.day_done

    def done(progress: Progress, events: int) -> None:
        day_done(progress, events)
        during.append(tick())

    monkeypatch.setattr(Progress, "day_done", done)
    fetched = days(FIRST, FIRST + timedelta(days=2))
    kinds = ["hits", "bounces", "activations"]
    deployment.materialize(kinds, fetched[0], fetched[-1])
    monkeypatch.undo()
    # no cohort of these days before the last of the assets has all that it needs, and none twice
    before_the_last = (len(kinds) - 1) * len(fetched)
    assert during[:before_the_last] == [[]] * before_the_last
    asked = [day for some in during for day in some] + tick()
    assert sorted(asked) == days(FIRST - timedelta(days=WINDOW), fetched[-1])


def test_failed_run_is_requested_again_at_once_and_then_hourly(
    deployment: Deployment, tick: Ticks, monkeypatch: pytest.MonkeyPatch
):
    asked = fail_twice(deployment, tick, monkeypatch)
    hour = datetime.now(UTC).replace(minute=5, second=0, microsecond=0) + HOUR
    assert [at for at in every_ten_minutes(hour, 2) if tick(at) == asked] == [hour, hour + HOUR]
    monkeypatch.undo()
    compute(deployment, asked)
    assert all(tick(at) == [] for at in every_ten_minutes(hour + 2 * HOUR, 1))
    assert len(files(deployment.data / "reactivity_rates")) == len(asked)


def every_ten_minutes(first: datetime, hours: int) -> list[datetime]:
    return [first + timedelta(minutes=10 * number) for number in range(6 * hours)]


def test_new_events_do_not_wait_for_a_failed_run(deployment: Deployment, tick: Ticks, monkeypatch: pytest.MonkeyPatch):
    asked = fail_twice(deployment, tick, monkeypatch)
    deployment.materialize("bounces", FIRST)
    assert tick() == asked
