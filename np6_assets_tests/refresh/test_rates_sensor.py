"""Test when the sensor `rates_follow` requests rates, over files as runs write them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets.progress import Progress
from np6_assets.rates import compute as rates_compute
from np6_assets_tests.refresh.account import evaluate_sensor, find_run_days
from np6_assets_tests.support.clock import Clock
from np6_assets_tests.support.deployment import Deployment, list_days, read_files, tag_range
from np6_assets_tests.support.events import KINDS, build_population
from np6_assets_tests.support.oracle import compute_day_bounds, list_columns
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import build_table

FIRST = date(2026, 3, 20)
WINDOW = 2
NOW = datetime(2026, 4, 10, 12, tzinfo=UTC)
ALL = [*KINDS, "reactivity_rates"]


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(build_population(41, FIRST, 3, sends_per_day=10), seed=1) as running:
        yield running


@dataclass
class Sensor:
    """A deployment with the sensor `rates_follow` and its cursor."""

    deployment: Deployment
    clock: Clock
    cursor: str | None = None
    message: str = ""

    def evaluate(self) -> list[dg.RunRequest]:
        """Tick the sensor, and return the runs that it requests."""
        result = evaluate_sensor(self.deployment, "rates_follow", self.cursor)
        self.cursor, self.message = result.cursor, result.skip_message or ""
        return list(result.run_requests or [])

    def tick(self) -> list[date]:
        """Tick the sensor, and return the cohorts that it requests."""
        requests = self.evaluate()
        self.message = self.message or requests[0].tags["np6/why"]
        cohorts = [cohort for request in requests for cohort in list_cohorts(request)]
        assert len(cohorts) == len(set(cohorts))
        return sorted(cohorts)

    def follow(self, *, succeeds: bool = True) -> list[date]:
        """Tick the sensor, do the runs that it requests, and return their cohorts."""
        requests = self.evaluate()
        for request in requests:
            cohorts = list_cohorts(request)
            result = self.deployment.materialize("reactivity_rates", cohorts[0], cohorts[-1], raise_on_error=False)
            assert result.success is succeeds
        return sorted(cohort for request in requests for cohort in list_cohorts(request))

    def run(self, job: str, first: date, last: date) -> bool:
        """Run a job as a daemon does, and return whether it succeeded."""
        result = self.deployment.definitions.resolve_job_def(job).execute_in_process(
            instance=self.deployment.instance,
            tags=tag_range(first, last),
            resources={**(self.deployment.definitions.resources or {}), "np6": self.deployment.np6},
            raise_on_error=False,
        )
        return result.success


def list_cohorts(request: dg.RunRequest) -> list[date]:
    return list_days(*map(date.fromisoformat, find_run_days(request)))


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def sensor(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, clock: Clock) -> Sensor:
    return create_sensor(tmp_path / "data", server, instance, clock)


def create_sensor(data: Path, server: RudeServer, instance: dg.DagsterInstance, clock: Clock, **more: str) -> Sensor:
    """Create a sensor over a folder and an instance, without a cursor."""
    settings = {"NP6_WINDOW_DAYS": f"{WINDOW}", "NP6_START_DATE": "2025-01-01", "NP6_REFRESH_MINUTES": "0", **more}
    return Sensor(Deployment(data, server, instance, clock, **settings), clock)


def write_day(deployment: Deployment, asset: str, day: date, content: str, until: datetime | None = None) -> None:
    """Write a day's file as a fetch does; closed, or fetched until `until`."""
    end = datetime.fromtimestamp(compute_day_bounds(day, "UTC")[1] / 1000, UTC)
    metadata = {"np6.content": content, "np6.fetched_until": (until or end).isoformat()}
    path = deployment.path(asset, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    replacement = path.with_name(".new")
    pq.write_table(build_table([], list_columns(asset)).replace_schema_metadata(metadata), replacement)
    replacement.replace(path)


def list_affected(day: date) -> list[date]:
    return list_days(day - timedelta(days=WINDOW), day)


def test_missing_rates_are_requested_when_the_sensor_is_turned_on(sensor: Sensor):
    write_day(sensor.deployment, "hits", FIRST, "a")
    assert sensor.tick() == list_affected(FIRST)
    assert sensor.tick() == []
    assert sensor.message == "Requested recently: 2026-03-18 to 2026-03-20. Next attempt from 2026-04-10 12:01 UTC on."


@pytest.mark.parametrize(
    "asset", ["hits", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("impressions", "activations"))]
)
def test_changed_day_requests_the_cohorts_of_its_window_once(sensor: Sensor, asset: str):
    for day in list_days(FIRST, FIRST + timedelta(days=1)):
        write_day(sensor.deployment, asset, day, "a")
    assert sensor.follow() == list_days(FIRST - timedelta(days=WINDOW), FIRST + timedelta(days=1))
    assert sensor.tick() == []
    assert sensor.message == "All rates are up to date."
    write_day(sensor.deployment, asset, FIRST, "b")
    [request] = sensor.evaluate()  # one run for all of them: a backfill would be a record of its own each time
    assert request.tags["np6/why"] == f"the events of {FIRST} changed"
    assert list_cohorts(request) == list_affected(FIRST)
    sensor.deployment.materialize("reactivity_rates", FIRST - timedelta(days=WINDOW), FIRST)
    assert sensor.tick() == []


@pytest.mark.slow
def test_backfill_of_all_assets_requests_only_earlier_cohorts(
    sensor: Sensor, server: RudeServer, instance: dg.DagsterInstance, clock: Clock
):
    second = FIRST + timedelta(days=1)
    sensor.deployment.materialize(ALL, FIRST, second)
    before = list_days(FIRST - timedelta(days=WINDOW), FIRST - timedelta(days=1))
    assert sensor.deployment.path("reactivity_rates", second, "activation_date").exists()
    assert sensor.follow() == before
    assert sensor.tick() == []
    # not after a restart without a cursor either
    for _ in range(2):
        sensor = create_sensor(sensor.deployment.data, server, instance, clock)
        assert sensor.tick() == []


def test_cohorts_of_a_backfill_wait_for_it(sensor: Sensor):
    deployment = sensor.deployment
    for day in list_days(FIRST, FIRST + timedelta(days=1)):
        write_day(deployment, "activations", day, "a")
    with deployment.add_backfill("reactivity_rates", [f"{FIRST}"], NOW):
        assert sensor.tick() == [*list_affected(FIRST)[:-1], FIRST + timedelta(days=1)]
    assert sensor.tick() == [FIRST]


def test_cohort_waits_for_its_own_day_of_activations(sensor: Sensor):
    second, third = FIRST + timedelta(days=1), FIRST + timedelta(days=2)
    before = FIRST - timedelta(days=WINDOW)
    write_day(sensor.deployment, "activations", FIRST, "a")
    assert sensor.tick() == list_affected(FIRST)
    # reactions alone, to sends of these days and of the days before
    write_day(sensor.deployment, "hits", third, "a")
    assert sensor.tick() == [FIRST]
    # the third day's sends tell nothing of the second's
    write_day(sensor.deployment, "activations", third, "a")
    assert sensor.tick() == [FIRST, third]
    write_day(sensor.deployment, "activations", second, "a")
    assert sensor.tick() == [before + timedelta(days=1), FIRST, second]
    assert sensor.tick() == []


@pytest.mark.slow
def test_year_of_events_is_requested_in_one_run(sensor: Sensor):
    assert sensor.tick() == []
    for day in list_days(date(2025, 2, 1), date(2026, 1, 29)):
        write_day(sensor.deployment, "hits", day, "a")
    [request] = sensor.evaluate()
    assert list_cohorts(request) == list_days(date(2025, 1, 30), date(2026, 1, 29))
    assert sensor.tick() == []


@pytest.mark.slow
def test_fetch_without_new_events_requests_no_rates(sensor: Sensor, server: RudeServer):
    deployment = sensor.deployment
    population = build_population(41, FIRST, 3, sends_per_day=10)
    all_hits, second = population.hits, FIRST + timedelta(days=1)
    population.hits = [hit for hit in all_hits if hit["timestamp"] >= compute_day_bounds(second, "UTC")[0]]
    server.serve(population)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert sensor.follow() == list_days(FIRST - timedelta(days=WINDOW), second)
    deployment.materialize("hits", FIRST)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert sensor.tick() == []
    # late-arriving events
    population.hits = all_hits
    server.serve(population)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert sensor.follow() == list_affected(FIRST)
    # events that the API no longer serves are kept
    population.hits = []
    server.serve(population)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert sensor.tick() == []


def test_closing_day_requests_the_cohort_that_becomes_final(sensor: Sensor):
    last = FIRST + timedelta(days=WINDOW)
    for asset in KINDS:
        for day in list_days(FIRST, last):
            noon = datetime(2026, 3, 22, 12, tzinfo=UTC)
            write_day(sensor.deployment, asset, day, "a", noon if day == last else None)
    assert sensor.follow() == list_days(FIRST - timedelta(days=WINDOW), last)
    assert sensor.tick() == []
    for asset in KINDS:
        write_day(sensor.deployment, asset, last, "a")
    assert sensor.tick() == [FIRST]
    assert sensor.message == "the status is final, was open"


def test_rates_that_become_incomplete_are_requested(sensor: Sensor):
    second = FIRST + timedelta(days=1)
    for asset in KINDS:
        write_day(sensor.deployment, asset, FIRST, "a", datetime(2026, 3, 20, 12, tzinfo=UTC))
    assert sensor.follow() == list_affected(FIRST)
    # the next day is fetched until about an hour after its start, and the day before is still open
    for asset in ("hits", "activations"):
        write_day(sensor.deployment, asset, second, "a", datetime(2026, 3, 21, 0, 59, tzinfo=UTC))
    assert sensor.follow() == list_days(FIRST - timedelta(days=1), second)
    for asset in ("hits", "activations"):
        write_day(sensor.deployment, asset, second, "a", datetime(2026, 3, 21, 1, 1, tzinfo=UTC))
    assert sensor.tick() == [FIRST]  # those before lack days that ended earlier
    assert sensor.message == "the status is incomplete, was open"
    sensor.deployment.materialize("reactivity_rates", FIRST)
    assert {row["status"] for row in sensor.deployment.rates(FIRST)} <= {"incomplete"}
    assert sensor.tick() == []


def test_day_changed_during_its_computation_is_requested_again(sensor: Sensor, monkeypatch: pytest.MonkeyPatch):
    write_day(sensor.deployment, "hits", FIRST, "a")
    during: list[list[date]] = []
    compute_all = rates_compute.compute_rates

    def compute_and_tick(*arguments: Any) -> Any:
        for computed in compute_all(*arguments):
            if not during:
                write_day(sensor.deployment, "optouts", FIRST, "late")
            during.append(sensor.tick())
            yield computed

    monkeypatch.setattr(rates_compute, "compute_rates", compute_and_tick)
    assert sensor.tick() == list_affected(FIRST)
    assert sensor.run("compute_rates", FIRST - timedelta(days=WINDOW), FIRST)
    monkeypatch.undo()
    assert during == [[], [], []]
    assert sensor.follow() == list_affected(FIRST)
    assert sensor.tick() == []


@pytest.mark.slow
def test_rates_wait_for_events_that_are_being_fetched(sensor: Sensor, monkeypatch: pytest.MonkeyPatch):
    during: list[list[date]] = []
    record_day = Progress.record_day

    def tick_after_day(progress: Progress, day: str, events: int) -> None:
        record_day(progress, day, events)
        during.append(sensor.tick())

    monkeypatch.setattr(Progress, "record_day", tick_after_day)
    fetched = list_days(FIRST, FIRST + timedelta(days=1))
    assert sensor.run("fetch_events", fetched[0], fetched[-1])
    monkeypatch.undo()
    assert during == [[]] * (len(KINDS) * len(fetched))
    assert sensor.tick() == list_days(FIRST - timedelta(days=WINDOW), fetched[-1])


def test_failed_run_is_requested_again_for_the_rest(sensor: Sensor, monkeypatch: pytest.MonkeyPatch):
    write_day(sensor.deployment, "hits", FIRST, "a")
    compute_all = rates_compute.compute_rates

    def compute_one_and_fail(*arguments: Any) -> Any:
        yield next(compute_all(*arguments))
        raise RuntimeError("no more rates today")

    monkeypatch.setattr(rates_compute, "compute_rates", compute_one_and_fail)
    tries = []
    for minute in (*range(7), 20, 21, 22):
        sensor.clock.now = NOW + timedelta(minutes=minute)
        if cohorts := sensor.follow(succeeds=False):
            tries.append((minute, cohorts))
        if len(tries) == 2:
            monkeypatch.setattr(rates_compute, "compute_rates", fail)
    rest = list_affected(FIRST)[2:]
    # 1, 4 and 16 minutes after the one before
    assert tries == [(0, list_affected(FIRST)), (1, list_affected(FIRST)[1:]), (5, rest), (21, rest)]
    # new events do not wait
    monkeypatch.undo()
    write_day(sensor.deployment, "optouts", FIRST, "new")
    assert sensor.follow() == list_affected(FIRST)
    assert sensor.tick() == []
    assert len(read_files(sensor.deployment.data / "reactivity_rates")) == len(list_affected(FIRST))


def fail(*arguments: Any) -> Any:
    raise RuntimeError("no rates today")


@pytest.mark.slow
def test_cohort_is_requested_as_often_as_set(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, clock: Clock
):
    sensor = create_sensor(tmp_path / "data", server, instance, clock, NP6_REFRESH_MINUTES="15")
    minutes = []
    for minute in (0, 1, 14, 15, 16, 29, 30, 31):
        clock.now = NOW + timedelta(minutes=minute)
        write_day(sensor.deployment, "hits", FIRST, f"{minute}")
        minutes += [minute for _ in sensor.follow()[:1]]
    assert minutes == [0, 15, 30]
    # delayed changes are not lost
    clock.now = NOW + timedelta(minutes=45)
    assert sensor.follow() == list_affected(FIRST)
    clock.forward(hours=1)
    assert sensor.tick() == []


def test_rates_without_a_record_are_requested(sensor: Sensor):
    write_day(sensor.deployment, "hits", FIRST, "a")
    instance = sensor.deployment.instance
    with dg.DagsterInstance.ephemeral() as sensor.deployment.instance:
        assert sensor.follow() == list_affected(FIRST)
    sensor.deployment.instance = instance
    sensor.cursor = None
    assert sensor.follow() == list_affected(FIRST)
    assert sensor.tick() == []


def test_foreign_cursor_is_ignored(sensor: Sensor):
    write_day(sensor.deployment, "hits", FIRST, "a")
    for sensor.cursor in ("{", '{"2026-03-20": 1}', '{"2026-03-20": {"count": 1, "last_at": "soon", "state": ""}}'):
        assert sensor.tick() == list_affected(FIRST)


def test_tick_ends_in_time_and_the_next_one_continues(sensor: Sensor, server: RudeServer):
    for asset in KINDS:
        for day in list_days(FIRST, FIRST + timedelta(days=9)):
            write_day(sensor.deployment, asset, day, "a")
    slow = Clock(NOW, step=timedelta(seconds=25))  # more than a tick may read
    sensor = create_sensor(sensor.deployment.data, server, sensor.deployment.instance, slow)
    assert sensor.tick() == []
    assert sensor.message == "10 files are still to be read; the next tick goes on."
    assert sensor.tick() == list_days(FIRST - timedelta(days=WINDOW), FIRST + timedelta(days=9))
