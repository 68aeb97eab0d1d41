"""The checks of the event assets: run by Dagster, on files that are right and on files that are wrong in one way."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets.events import ordering
from np6_assets.events.checks import CHECKS
from np6_assets.events.examine import volume
from np6_assets.events.kinds import KINDS, TIME
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder
from np6_assets_tests.support.deployment import Deployment, days
from np6_assets_tests.support.events import population
from np6_assets_tests.support.oracle import day_bounds
from np6_assets_tests.support.rude_server import RudeServer

PARIS = "Europe/Paris"
FIRST, LAST = date(2026, 3, 28), date(2026, 3, 30)  # 2026-03-29 has 23 hours in Paris
DAY = date(2026, 3, 29)
NAMES = {check.name for check in CHECKS}
SCHEMAS = {kind.asset: kind.schema for kind in KINDS}
HOUR = 3_600_000


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        yield running


@pytest.fixture
def deployment(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=PARIS)


def put(
    deployment: Deployment, day: date, times: Sequence[int], asset: str = "hits", *, closed: bool = True, **columns: Any
) -> None:
    """A day's file, as a run could have left it: events at some milliseconds after the day's start."""
    start, end = day_bounds(day, PARIS)
    until = datetime.fromtimestamp(end / 1000, UTC) if closed else datetime.fromtimestamp(start / 1000, UTC)
    given = {
        "event_id": [f"{day} {number}" for number in range(len(times))],
        "event_time": pa.array([start + time for time in times], pa.int64()).cast(TIME),
        "activation_id": pa.array([1] * len(times), pa.int64()),
        **columns,
    }
    schema = SCHEMAS[asset]
    arrays = [given.get(field.name, pa.nulls(len(times), field.type)) for field in schema]
    path = deployment.path(asset, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table(arrays, schema=schema).replace_schema_metadata({"np6.fetched_until": until.isoformat()}), path
    )


def sent(day: date, times: Sequence[int | None]) -> pa.Array:
    start = day_bounds(day, PARIS)[0]
    return pa.array([None if time is None else start + time for time in times], pa.int64()).cast(TIME)


def failed(found: dict[tuple[str, str | None], dg.AssetCheckEvaluation]) -> dict[str, dg.AssetCheckSeverity]:
    return {name: one.severity for (name, _), one in found.items() if name in NAMES and not one.passed}


ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


# --- what is recorded ----------------------------------------------------------------------------------------------


def test_each_day_of_a_range_has_evaluations_of_its_own(
    server: RudeServer, instance: dg.DagsterInstance, deployment: Deployment
):
    server.serve(population(41, FIRST, 3, PARIS, misfit_days=[DAY]))
    result = deployment.materialize(["hits", "activations"], FIRST, LAST, checks=True)
    found = result.get_asset_check_evaluations()
    for asset in ("hits", "activations"):
        mine = [one for one in found if one.asset_key.path[-1] == asset and one.check_name in NAMES]
        expected = {(name, f"{day}") for name in NAMES for day in days(FIRST, LAST)}
        assert sorted((one.check_name, one.partition) for one in mine) == sorted(expected)
        for one in mine:
            about_quarantine = one.check_name == "quarantine_empty" and one.partition == f"{DAY}"
            assert one.passed != about_quarantine or one.check_name == "fields_known"
            assert one.description.startswith(f"{one.partition}: ")
    # what the UI shows of each day, and that it is about the newest materialization of that very day
    keys = [dg.AssetCheckKey(dg.AssetKey("hits"), name) for name in sorted(NAMES)]
    shown = instance.event_log_storage.get_asset_check_partition_info(keys)
    assert {(info.check_key.name, info.partition_key) for info in shown} == expected
    assert all(info.is_current for info in shown)
    # a day alone: a record of its own, and the other days keep theirs
    deployment.materialize("hits", DAY, checks=True)
    again = instance.event_log_storage.get_asset_check_partition_info(keys)
    newer = {info.partition_key for info in again if info.latest_planned_run_id != result.run_id}
    assert newer == {f"{DAY}"}
    assert len(again) == len(shown)
    assert all(info.is_current for info in again)


def test_a_check_without_a_day_looks_at_the_newest(server: RudeServer, deployment: Deployment):
    server.serve(population(42, FIRST, 3, PARIS))
    deployment.materialize("optouts", FIRST, LAST)
    assert {partition for name, partition in deployment.check("optouts") if name in NAMES} == {f"{LAST}"}


def test_days_that_are_not_there_are_passed_over(deployment: Deployment):
    put(deployment, DAY, [0, HOUR])
    assert {partition for name, partition in deployment.check("hits", FIRST, LAST) if name in NAMES} == {f"{DAY}"}


def test_an_error_in_one_day_of_a_range_stops_the_rates(
    server: RudeServer, instance: dg.DagsterInstance, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
):
    server.serve(population(43, FIRST, 3, PARIS))
    assets = ["activations", "hits", "optouts", "bounces", "impressions", "reactivity_rates"]
    write = parquet.write

    def write_twice(folder: Any, relative: str, rows: Any) -> parquet.Written:
        written = write(folder, relative, rows)
        if relative.startswith("hits/") and f"{DAY}" in relative:
            table = pq.read_table(written.path, partitioning=None)
            write(folder, relative, pa.concat_tables([table, table]))
        return written

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write", write_twice)
        result = deployment.materialize(assets, FIRST, LAST, checks=True, raise_on_error=False)
    assert not result.success
    wrong = {(one.check_name, one.partition) for one in result.get_asset_check_evaluations() if not one.passed}
    assert {one for one in wrong if one[0] == "ids_unique"} == {("ids_unique", f"{DAY}")}
    made = {event.step_key for event in result.get_asset_materialization_events()}
    assert "reactivity_rates" not in made
    assert made >= set(assets) - {"reactivity_rates"}
    assert not (deployment.data / "reactivity_rates").exists()
    # the day once more, and the rates follow
    assert deployment.materialize(assets, FIRST, LAST, checks=True).success
    assert (deployment.data / "reactivity_rates").exists()


# --- each check ----------------------------------------------------------------------------------------------------


def test_good_days_pass(deployment: Deployment):
    for asset in SCHEMAS:
        put(deployment, DAY, [0, 0, HOUR, 23 * HOUR - 1], asset, activated_at=sent(DAY, [0, None, -24 * HOUR, 5]))
        assert failed(deployment.check(asset, DAY)) == {}
    put(deployment, FIRST, [])
    assert failed(deployment.check("hits", FIRST)) == {}


@pytest.mark.parametrize("asset", ["hits", "activations"])
def test_ids_that_are_there_twice(asset: str, deployment: Deployment):
    put(deployment, DAY, [0, HOUR, 2 * HOUR], asset, event_id=["one", "two", "one"])
    found = deployment.check(asset, DAY)
    assert failed(found) == {"ids_unique": ERROR}
    one = found["ids_unique", f"{DAY}"]
    assert one.metadata["some"].value == ["one"]
    assert one.metadata["repeated"].value == 1


def test_ids_that_are_there_twice_in_a_file_that_is_not_looked_at_at_once(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ordering, "_ROWS_PER_PASS", 1000)
    ids = [f"{number:04}" for number in range(5000)]
    ids[5], ids[2500] = ids[4999], ids[7]
    put(deployment, DAY, range(5000), event_id=ids)
    found = deployment.check("hits", DAY)
    assert failed(found) == {"ids_unique": ERROR}
    assert found["ids_unique", f"{DAY}"].metadata["some"].value == [ids[7], ids[4999]]


@pytest.mark.parametrize("time", [-1, 23 * HOUR])  # that day has 23 hours
def test_events_outside_the_day(time: int, deployment: Deployment):
    put(deployment, DAY, [time, HOUR])
    found = deployment.check("hits", DAY)
    assert failed(found) == {"inside_day": ERROR}
    assert found["inside_day", f"{DAY}"].metadata["events_outside"].value == 1


@pytest.mark.parametrize(("before", "is_early"), [(60_000, False), (60_001, True), (2 * HOUR, True)])
def test_events_before_their_activation(before: int, is_early: bool, deployment: Deployment):
    put(deployment, DAY, [HOUR, HOUR], activated_at=sent(DAY, [HOUR + before, HOUR]))
    found = deployment.check("hits", DAY)
    assert failed(found) == ({"not_before_activation": WARN} if is_early else {})
    if is_early:
        one = found["not_before_activation", f"{DAY}"]
        assert one.metadata["events_early"].value == 1
        assert one.metadata["seconds_early"].value == before / 1000


def test_what_is_in_quarantine_and_what_nothing_reads_is_a_warning(server: RudeServer, deployment: Deployment):
    made = population(44, DAY, 1, PARIS, misfit_days=[DAY])
    for event in made.bounces:
        event["source"]["novelty"] = "a value that nobody is to see"
    server.serve(made)
    result = deployment.materialize("bounces", DAY, checks=True)
    found = {(one.check_name, one.partition): one for one in result.get_asset_check_evaluations()}
    assert failed(found) == {"quarantine_empty": WARN, "fields_known": WARN}
    misfits = len([misfit for misfit in made.misfits if misfit.kind == "bounces"])
    assert found["quarantine_empty", f"{DAY}"].metadata["quarantined"].value == misfits
    known = found["fields_known", f"{DAY}"]
    assert "source.novelty" in known.metadata["unknown_fields"].value
    assert "source.novelty" in known.description
    assert "nobody is to see" not in str(found)


def test_a_range_names_the_days_that_are_wrong(deployment: Deployment):
    put(deployment, FIRST, [0, HOUR], event_id=["one", "one"])
    put(deployment, DAY, [0, HOUR])
    put(deployment, LAST, [0, HOUR], activated_at=sent(LAST, [2 * HOUR, None]))
    found = deployment.check("hits", FIRST, LAST)
    wrong = {key for key, one in found.items() if key[0] in NAMES and not one.passed}
    assert wrong == {("ids_unique", f"{FIRST}"), ("not_before_activation", f"{LAST}")}


def test_files_elsewhere_are_read_in_place(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    local = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=PARIS)
    put(local, DAY, [0, HOUR, 2 * HOUR], event_id=["one", "two", "one"])
    put(local, LAST, [0, HOUR])
    url = f"memory://{tmp_path.name}"
    for day in (DAY, LAST):
        file = f"hits/event_date={day}/part-0.parquet"
        parquet.write(Folder(url), file, pq.read_table(local.path("hits", day), partitioning=None))
    remote = Deployment(tmp_path, server, instance, NP6_TIMEZONE=PARIS, NP6_DATA_DIR=url)
    found = remote.check("hits", DAY, LAST)
    assert {key for key, one in found.items() if key[0] in NAMES and not one.passed} == {("ids_unique", f"{DAY}")}


# --- volume --------------------------------------------------------------------------------------------------------


def test_a_volume_is_compared_with_the_same_weekday_of_the_weeks_before(deployment: Deployment):
    sunday = date(2026, 4, 26)
    for weeks in range(1, 9):
        put(deployment, sunday - timedelta(weeks=weeks), range(60))
        put(deployment, sunday - timedelta(weeks=weeks, days=1), range(600))  # Saturdays are ten times as busy
    put(deployment, sunday, range(70))
    put(deployment, sunday - timedelta(days=1), range(70))
    found = deployment.check("hits", sunday - timedelta(days=1), sunday)
    assert found["volume_as_usual", f"{sunday}"].passed
    one = found["volume_as_usual", f"{sunday - timedelta(days=1)}"]
    assert not one.passed
    assert one.severity == WARN
    assert one.metadata["median"].value == 600
    # while the day goes on there is nothing to say
    put(deployment, sunday - timedelta(days=1), range(70), closed=False)
    assert failed(deployment.check("hits", sunday - timedelta(days=1))) == {}


@pytest.mark.parametrize(
    ("rows", "past", "passed"),
    [
        (0, [1000] * 8, False),
        (334, [1000] * 8, True),
        (333, [1000] * 8, False),
        (3000, [1000] * 8, True),
        (3001, [1000] * 8, False),
        (10_000, [1000] * 7 + [90_000], False),  # one campaign long ago does not make it usual
        (0, [1000] * 7 + [0], False),  # nor does one outage
        (500_000, [0, 400_000, 10, 300_000, 0, 500_000, 20, 0], True),  # where every week is another, all is usual
        (0, [4] * 8, True),  # few are soon none
        (0, [50] * 8, False),
        (0, [0] * 8, True),
        (3, [0] * 8, True),
        (12, [0] * 8, False),
        (0, [1000] * 3, True),  # new
        (0, [], True),
        (None, [1000] * 8, True),  # not closed
    ],
)
def test_a_usual_volume(rows: int | None, past: list[int], passed: bool):
    assert volume(rows, past).passed == passed
