"""When rates are requested: ticks of the sensor `rates_follow` on a real instance, over files as runs leave them."""

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
from np6_assets_tests.refresh.account import find_run_days
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
    """A deployment, and ticks of its sensor `rates_follow` with the cursor from one to the next."""

    deployment: Deployment
    clock: Clock
    cursor: str | None = None
    words: str = ""

    def requests(self) -> list[dg.RunRequest]:
        """The runs that a tick asks for."""
        definitions = self.deployment.definitions
        with dg.build_sensor_context(
            instance=self.deployment.instance,
            cursor=self.cursor,
            definitions=definitions,
            resources=definitions.resources,
        ) as context:
            made = definitions.resolve_sensor_def("rates_follow").evaluate_tick(context)
        self.cursor, self.words = made.cursor, made.skip_message or ""
        return list(made.run_requests or [])

    def tick(self) -> list[date]:
        """The cohorts that a tick asks for."""
        requests = self.requests()
        self.words = self.words or requests[0].tags["np6/why"]
        asked = [cohort for request in requests for cohort in cohorts_asked(request)]
        assert len(asked) == len(set(asked))
        return sorted(asked)

    def follow(self, *, succeeds: bool = True) -> list[date]:
        """A tick, and the run that it asks for; the cohorts."""
        requests = self.requests()
        for request in requests:
            cohorts = cohorts_asked(request)
            result = self.deployment.materialize("reactivity_rates", cohorts[0], cohorts[-1], raise_on_error=False)
            assert result.success is succeeds
        return sorted(cohort for request in requests for cohort in cohorts_asked(request))

    def run(self, job: str, first: date, last: date) -> bool:
        """A run of a job, which says so while it runs; whether it succeeded."""
        result = self.deployment.definitions.resolve_job_def(job).execute_in_process(
            instance=self.deployment.instance,
            tags=tag_range(first, last),
            resources={**(self.deployment.definitions.resources or {}), "np6": self.deployment.np6},
            raise_on_error=False,
        )
        return result.success


def cohorts_asked(request: dg.RunRequest) -> list[date]:
    return list_days(*map(date.fromisoformat, find_run_days(request)))


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def sensor(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, clock: Clock) -> Sensor:
    return loaded(tmp_path / "data", server, instance, clock)


def loaded(data: Path, server: RudeServer, instance: dg.DagsterInstance, clock: Clock, **more: str) -> Sensor:
    """The code, loaded over a folder and an instance; without a cursor."""
    settings = {"NP6_WINDOW_DAYS": f"{WINDOW}", "NP6_START_DATE": "2025-01-01", "NP6_REFRESH_MINUTES": "0", **more}
    return Sensor(Deployment(data, server, instance, clock, **settings), clock)


def store(deployment: Deployment, asset: str, day: date, content: str, until: datetime | None = None) -> None:
    """A day's file as a fetch leaves it; closed, or fetched `until` then."""
    end = datetime.fromtimestamp(compute_day_bounds(day, "UTC")[1] / 1000, UTC)
    says = {"np6.content": content, "np6.fetched_until": (until or end).isoformat()}
    path = deployment.path(asset, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    replacement = path.with_name(".new")
    pq.write_table(build_table([], list_columns(asset)).replace_schema_metadata(says), replacement)
    replacement.replace(path)


def cohorts_of(day: date) -> list[date]:
    return list_days(day - timedelta(days=WINDOW), day)


def test_missing_rates_are_requested_when_the_sensor_is_turned_on(sensor: Sensor):
    store(sensor.deployment, "hits", FIRST, "a")
    assert sensor.tick() == cohorts_of(FIRST)
    assert sensor.tick() == []
    assert sensor.words == "Requested recently: 2026-03-18 to 2026-03-20. Next attempt from 2026-04-10 12:01 UTC on."


@pytest.mark.parametrize(
    "asset", ["hits", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("impressions", "activations"))]
)
def test_changed_day_requests_the_cohorts_of_its_window_once(sensor: Sensor, asset: str):
    for day in list_days(FIRST - timedelta(days=3), FIRST + timedelta(days=3)):
        store(sensor.deployment, asset, day, "a")
    assert sensor.follow() == list_days(FIRST - timedelta(days=5), FIRST + timedelta(days=3))
    assert sensor.tick() == []
    assert sensor.words == "All rates are up to date."
    for version in ("b", "c"):
        store(sensor.deployment, asset, FIRST, version)
        [request] = sensor.requests()  # one run for all of them: a backfill would be a record of its own each time
        assert request.tags["np6/why"] == f"the events of {FIRST} changed"
        assert cohorts_asked(request) == cohorts_of(FIRST)
        sensor.deployment.materialize("reactivity_rates", FIRST - timedelta(days=WINDOW), FIRST)
        assert sensor.tick() == []


@pytest.mark.slow
def test_backfill_of_all_assets_leaves_the_cohorts_before_it_alone(
    sensor: Sensor, server: RudeServer, instance: dg.DagsterInstance, clock: Clock
):
    second = FIRST + timedelta(days=1)
    sensor.deployment.materialize(ALL, FIRST, second)
    before = list_days(FIRST - timedelta(days=WINDOW), FIRST - timedelta(days=1))
    assert sensor.deployment.path("reactivity_rates", second, "activation_date").exists()
    assert sensor.follow() == before
    assert sensor.tick() == []
    # nor are any after the code was loaded anew, without a cursor
    for _ in range(2):
        sensor = loaded(sensor.deployment.data, server, instance, clock)
        assert sensor.tick() == []


def test_cohorts_of_a_backfill_wait_for_it(sensor: Sensor):
    deployment = sensor.deployment
    for day in list_days(FIRST, FIRST + timedelta(days=1)):
        store(deployment, "activations", day, "a")
    with deployment.add_backfill("reactivity_rates", [f"{FIRST}"], NOW):
        assert sensor.tick() == [*cohorts_of(FIRST)[:-1], FIRST + timedelta(days=1)]
    assert sensor.tick() == [FIRST]


def test_cohort_waits_for_its_own_day_of_activations(sensor: Sensor):
    second, third = FIRST + timedelta(days=1), FIRST + timedelta(days=2)
    before = FIRST - timedelta(days=WINDOW)
    store(sensor.deployment, "activations", FIRST, "a")
    assert sensor.tick() == cohorts_of(FIRST)
    # reactions alone, to sends of these days and of the days before
    store(sensor.deployment, "hits", third, "a")
    assert sensor.tick() == [FIRST]
    # the sends of the third day say nothing of those of the second
    store(sensor.deployment, "activations", third, "a")
    assert sensor.tick() == [FIRST, third]
    store(sensor.deployment, "activations", second, "a")
    assert sensor.tick() == [before + timedelta(days=1), FIRST, second]
    assert sensor.tick() == []


@pytest.mark.slow
def test_year_of_events_is_one_request(sensor: Sensor):
    assert sensor.tick() == []
    for day in list_days(date(2025, 2, 1), date(2026, 1, 29)):
        store(sensor.deployment, "hits", day, "a")
    [request] = sensor.requests()
    assert cohorts_asked(request) == list_days(date(2025, 1, 30), date(2026, 1, 29))
    assert sensor.tick() == []


@pytest.mark.slow
def test_fetch_without_new_events_requests_no_rates(sensor: Sensor, server: RudeServer):
    deployment = sensor.deployment
    made = build_population(41, FIRST, 3, sends_per_day=10)
    all_hits, second = made.hits, FIRST + timedelta(days=1)
    made.hits = [hit for hit in all_hits if hit["timestamp"] >= compute_day_bounds(second, "UTC")[0]]
    server.serve(made)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert sensor.follow() == list_days(FIRST - timedelta(days=WINDOW), second)
    deployment.materialize("hits", FIRST)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert sensor.tick() == []
    # late-arriving events
    made.hits = all_hits
    server.serve(made)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert sensor.follow() == cohorts_of(FIRST)
    # events that the API has forgotten are kept
    made.hits = []
    server.serve(made)
    deployment.materialize(["hits", "bounces"], FIRST, second)
    assert sensor.tick() == []


def test_day_that_closes_without_another_event_requests_the_cohort_that_becomes_final(sensor: Sensor):
    last = FIRST + timedelta(days=WINDOW)
    for asset in KINDS:
        for day in list_days(FIRST, last):
            noon = datetime(2026, 3, 22, 12, tzinfo=UTC)
            store(sensor.deployment, asset, day, "a", noon if day == last else None)
    assert sensor.follow() == list_days(FIRST - timedelta(days=WINDOW), last)
    assert sensor.tick() == []
    for asset in KINDS:
        store(sensor.deployment, asset, last, "a")
    assert sensor.tick() == [FIRST]
    assert sensor.words == "the status is final, was open"


def test_open_rates_that_would_now_be_incomplete_are_requested(sensor: Sensor):
    second = FIRST + timedelta(days=1)
    for asset in KINDS:
        store(sensor.deployment, asset, FIRST, "a", datetime(2026, 3, 20, 12, tzinfo=UTC))
    assert sensor.follow() == cohorts_of(FIRST)
    # the next day is fetched until an hour and some after its begin, and the one before it is still open
    for asset in ("hits", "activations"):
        store(sensor.deployment, asset, second, "a", datetime(2026, 3, 21, 0, 59, tzinfo=UTC))
    assert sensor.follow() == list_days(FIRST - timedelta(days=1), second)
    for asset in ("hits", "activations"):
        store(sensor.deployment, asset, second, "a", datetime(2026, 3, 21, 1, 1, tzinfo=UTC))
    assert sensor.tick() == [FIRST]  # those before lack days that ended earlier
    assert sensor.words == "the status is incomplete, was open"
    sensor.deployment.materialize("reactivity_rates", FIRST)
    assert {row["status"] for row in sensor.deployment.rates(FIRST)} <= {"incomplete"}
    assert sensor.tick() == []


def test_day_that_lands_while_its_cohorts_are_computed_is_requested_after(
    sensor: Sensor, monkeypatch: pytest.MonkeyPatch
):
    store(sensor.deployment, "hits", FIRST, "a")
    during: list[list[date]] = []
    compute_all = rates_compute.compute_rates

    def rates(*arguments: Any) -> Any:
        for computed in compute_all(*arguments):
            if not during:
                store(sensor.deployment, "optouts", FIRST, "late")
            during.append(sensor.tick())
            yield computed

    monkeypatch.setattr(rates_compute, "compute_rates", rates)
    assert sensor.tick() == cohorts_of(FIRST)
    assert sensor.run("compute_rates", FIRST - timedelta(days=WINDOW), FIRST)
    monkeypatch.undo()
    assert during == [[], [], []]
    assert sensor.follow() == cohorts_of(FIRST)
    assert sensor.tick() == []


@pytest.mark.slow
def test_rates_wait_for_events_that_are_being_fetched(sensor: Sensor, monkeypatch: pytest.MonkeyPatch):
    during: list[list[date]] = []
    day_done = Progress.day_done

    def done(progress: Progress, day: str, events: int) -> None:
        day_done(progress, day, events)
        during.append(sensor.tick())

    monkeypatch.setattr(Progress, "day_done", done)
    fetched = list_days(FIRST, FIRST + timedelta(days=1))
    assert sensor.run("fetch_events", fetched[0], fetched[-1])
    monkeypatch.undo()
    assert during == [[]] * (len(KINDS) * len(fetched))
    assert sensor.tick() == list_days(FIRST - timedelta(days=WINDOW), fetched[-1])


def test_run_that_fails_half_way_is_requested_again_for_the_rest(sensor: Sensor, monkeypatch: pytest.MonkeyPatch):
    store(sensor.deployment, "hits", FIRST, "a")
    compute_all = rates_compute.compute_rates

    def rates(*arguments: Any) -> Any:
        yield next(compute_all(*arguments))
        raise RuntimeError("no more rates today")

    monkeypatch.setattr(rates_compute, "compute_rates", rates)
    tries = []
    for minute in (*range(7), 20, 21, 22):
        sensor.clock.now = NOW + timedelta(minutes=minute)
        if cohorts := sensor.follow(succeeds=False):
            tries.append((minute, cohorts))
        if len(tries) == 2:
            monkeypatch.setattr(rates_compute, "compute_rates", fails)
    rest = cohorts_of(FIRST)[2:]
    # 1, 4 and 16 minutes after the one before
    assert tries == [(0, cohorts_of(FIRST)), (1, cohorts_of(FIRST)[1:]), (5, rest), (21, rest)]
    # new events do not wait, and nothing is left in the end
    monkeypatch.undo()
    store(sensor.deployment, "optouts", FIRST, "new")
    assert sensor.follow() == cohorts_of(FIRST)
    assert sensor.tick() == []
    assert len(read_files(sensor.deployment.data / "reactivity_rates")) == len(cohorts_of(FIRST))


def fails(*arguments: Any) -> Any:
    raise RuntimeError("no rates today")


@pytest.mark.slow
def test_cohort_is_requested_no_more_often_than_the_settings_say(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, clock: Clock
):
    sensor = loaded(tmp_path / "data", server, instance, clock, NP6_REFRESH_MINUTES="15")
    asked = []
    for minute in (0, 1, 14, 15, 16, 29, 30, 31):
        clock.now = NOW + timedelta(minutes=minute)
        store(sensor.deployment, "hits", FIRST, f"{minute}")
        asked += [minute for _ in sensor.follow()[:1]]
    assert asked == [0, 15, 30]
    # nothing that was paused is lost
    clock.now = NOW + timedelta(minutes=45)
    assert sensor.follow() == cohorts_of(FIRST)
    clock.forward(hours=1)
    assert sensor.tick() == []


def test_rates_without_a_record_are_requested(sensor: Sensor):
    store(sensor.deployment, "hits", FIRST, "a")
    known = sensor.deployment.instance
    with dg.DagsterInstance.ephemeral() as sensor.deployment.instance:
        assert sensor.follow() == cohorts_of(FIRST)
    sensor.deployment.instance = known
    sensor.cursor = None
    assert sensor.follow() == cohorts_of(FIRST)
    assert sensor.tick() == []


@pytest.mark.parametrize(
    "cursor", ["0", "[]", "{", '{"2026-03-20": 1}', '{"2026-03-20": {"count": 1, "last_at": "soon", "state": ""}}']
)
def test_foreign_cursor_is_ignored(sensor: Sensor, cursor: str):
    store(sensor.deployment, "hits", FIRST, "a")
    sensor.cursor = cursor
    assert sensor.tick() == cohorts_of(FIRST)


def test_tick_ends_in_time_and_the_next_one_continues(sensor: Sensor, server: RudeServer):
    for asset in KINDS:
        for day in list_days(FIRST, FIRST + timedelta(days=9)):
            store(sensor.deployment, asset, day, "a")
    slow = SlowClock(NOW)
    sensor = loaded(sensor.deployment.data, server, sensor.deployment.instance, slow)
    assert sensor.tick() == []
    assert sensor.words == "10 files are still to be read; the next tick goes on."
    assert sensor.tick() == list_days(FIRST - timedelta(days=WINDOW), FIRST + timedelta(days=9))


class SlowClock(Clock):
    """It goes on by more than a tick may read for, whenever it is looked at."""

    def __call__(self) -> datetime:
        self.forward(seconds=25)
        return self.now
