"""Run the checks of the rates, on right rates and on rates with one error."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets.partition_checks import Records
from np6_assets.partitions import parse_day
from np6_assets.rates import counting
from np6_assets.rates.checks import CHECKS
from np6_assets.rates.counting import recount_cohorts
from np6_assets.rates.examine import check_cohorts, check_range
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets_tests.support.deployment import Deployment, list_days, read_files
from np6_assets_tests.support.events import KINDS, build_population
from np6_assets_tests.support.oracle import expect_feeds, expect_rates, list_columns
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import build_table

PARIS = "Europe/Paris"
FIRST, LAST = date(2026, 3, 27), date(2026, 3, 31)
DAY = date(2026, 3, 28)
NAMES = {check.name for check in CHECKS}
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
COUNTS = (
    "activations",
    "bounced",
    "hit_activations",
    "hits",
    "other_hits",
    "optout_activations",
    "impression_activations",
    "reacting_activations",
)


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(scope="module")
def shared_deployment(instance: dg.DagsterInstance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Events and rates of five days; the activations of the day after them are missing."""
    with RudeServer(seed=1) as server:
        server.serve(build_population(51, FIRST, 5, PARIS, window_days=1))
        deployment = Deployment(tmp_path_factory.mktemp("data"), server, instance, NP6_TIMEZONE=PARIS)
        deployment.materialize([*KINDS, "reactivity_rates"], FIRST, LAST)
        yield deployment


@pytest.fixture
def deployment(shared_deployment: Deployment) -> Iterator[Deployment]:
    """Restore the files of the shared deployment after the test."""
    before = read_files(shared_deployment.data)
    yield shared_deployment
    for name, content in before.items():
        path = shared_deployment.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def rewrite_rates(deployment: Deployment, day: date, change: Callable[[pa.Table], pa.Table]) -> None:
    path = deployment.path("reactivity_rates", day, "activation_date")
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def set_first_value(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    """Return a function that sets a column's value in the first row."""

    def change(table: pa.Table) -> pa.Table:
        values = [value, *table.column(name).to_pylist()[1:]]
        index = table.column_names.index(name)
        return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return change


def remove_rates(table: pa.Table) -> pa.Table:
    """Set all rates to null."""
    for name in [field.name for field in table.schema if field.type == pa.float64()]:
        index = table.column_names.index(name)
        table = table.set_column(index, table.schema.field(name), pa.nulls(table.num_rows, pa.float64()))
    return table


def select_failed(
    evaluations: dict[tuple[str, str | None], dg.AssetCheckEvaluation], name: str
) -> dict[str | None, Any]:
    return {
        partition: one.severity for (check, partition), one in evaluations.items() if check == name and not one.passed
    }


def test_checks_pass_rates_whose_events_are_no_longer_stored(
    shared_deployment: Deployment, instance: dg.DagsterInstance, tmp_path: Path
):
    path = shared_deployment.path("reactivity_rates", DAY, "activation_date")
    copy = tmp_path / path.relative_to(shared_deployment.data)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())
    settings = Settings.from_environment({"NP6_TIMEZONE": PARIS, "NP6_RETENTION_DAYS": "30"})
    [(day, found)] = check_cohorts(settings, Folder(str(tmp_path)), [f"{DAY}"], Records(instance, settings))
    assert day == f"{DAY}"
    assert {name: (one.passed, one.text) for name, one in found.items()} == dict.fromkeys(
        NAMES, (True, "its events are no longer stored: nothing to compare with")
    )


# --- reconciled with the event files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "tz", "window", "missing"),
    [
        (1, "UTC", 7, []),
        (2, PARIS, 0, []),
        (3, PARIS, 2, [("activations", 1), ("impressions", 2), ("hits", 0), ("optouts", 3)]),
        (4, "America/St_Johns", 1, [(kind, 1) for kind in KINDS]),
    ],
)
@pytest.mark.parametrize(
    "at_once", [pytest.param(0, marks=pytest.mark.slow), 2**15, pytest.param(2**30, marks=pytest.mark.slow)]
)
def test_recount_matches_plain_python(
    seed: int,
    tz: str,
    window: int,
    missing: list[tuple[str, int]],
    at_once: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(counting, "BYTES_AT_ONCE", at_once)
    cohorts = [FIRST + timedelta(days=ahead) for ahead in range(4)]
    population = build_population(seed, FIRST, 4, tz, window_days=window)
    feeds = expect_feeds(population, list_days(FIRST, FIRST + timedelta(days=4 + window)), tz)
    for kind, ahead in missing:
        feeds[kind][FIRST + timedelta(days=ahead)] = None
    for kind, by_day in feeds.items():
        for day, rows in by_day.items():
            if rows is not None:
                path = tmp_path / kind / f"event_date={day}" / "part-0.parquet"
                path.parent.mkdir(parents=True)
                pq.write_table(build_table(rows, list_columns(kind)), path)
    settings = Settings.from_environment({"NP6_TIMEZONE": tz, "NP6_WINDOW_DAYS": f"{window}"})
    # with a gap
    days = [parse_day(f"{cohort}", tz) for cohort in cohorts if cohort != cohorts[2]]
    found = {day.key: counts for day, counts, _ in recount_cohorts(Folder(str(tmp_path)), days, settings)}
    assert list(found) == [day.key for day in days]
    for key, counts in found.items():
        rows = expect_rates(date.fromisoformat(key), tz, window, feeds)
        assert rows
        for name in COUNTS:
            numbers = [row[name] for row in rows]
            assert counts[name] == (None if None in numbers else sum(numbers)), (key, name)


def test_checks_pass_good_rates_of_each_day(instance: dg.DagsterInstance, deployment: Deployment):
    found = deployment.check("reactivity_rates", FIRST, LAST)
    assert {partition for name, partition in found if name == "counts_reconciled"} == {
        f"{day}" for day in list_days(FIRST, LAST)
    }
    assert select_failed(found, "counts_reconciled") == {}
    keys = [dg.AssetCheckKey(dg.AssetKey("reactivity_rates"), name) for name in sorted(NAMES)]
    shown = instance.event_log_storage.get_asset_check_partition_info(keys)
    assert len(shown) == len(NAMES) * 5
    assert all(info.is_current for info in shown)


def test_wrong_count_is_an_error(deployment: Deployment):
    """Each day but the first has another wrong count."""
    for names in (COUNTS[:4], COUNTS[4:]):
        wrong = dict(zip(list_days(FIRST, LAST)[1:], names, strict=True))
        before = read_files(deployment.data)
        for day, name in wrong.items():
            rewrite_rates(deployment, day, set_first_value(name, 1000))
        found = deployment.check("reactivity_rates", FIRST, LAST)
        assert select_failed(found, "counts_reconciled") == {f"{day}": ERROR for day in wrong}
        for day, name in wrong.items():
            one = found["counts_reconciled", f"{day}"]
            assert one.blocking
            assert list(one.metadata["differences"].value) == [name]
        for path, content in before.items():
            (deployment.data / path).write_bytes(content)


def test_rates_older_than_their_events_are_a_warning(deployment: Deployment):
    deployment.path("hits", DAY).unlink()
    assert set(select_failed(deployment.check("reactivity_rates", DAY), "counts_reconciled").values()) == {ERROR}
    deployment.materialize("hits", DAY)
    rewrite_rates(deployment, DAY, set_first_value("hits", 1000))
    found = deployment.check("reactivity_rates", FIRST, LAST)
    assert select_failed(found, "counts_reconciled") == {f"{DAY}": WARN}
    assert "hits were materialized again" in found["counts_reconciled", f"{DAY}"].description
    deployment.materialize("reactivity_rates", DAY)
    assert select_failed(deployment.check("reactivity_rates", DAY), "counts_reconciled") == {}


# --- within 0 and 1, and orphans -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "passed"),
    [
        ("hit_rate", 0.0, True),
        ("hit_rate", None, True),
        ("hit_rate", 1.0000001, False),
        ("optout_rate", -0.1, False),
        ("impression_rate", float("nan"), False),
        ("hit_rate_high", 1.5, False),
        ("bounce_share", 1.0, True),
        ("bounce_share", float("inf"), False),
        ("hits_per_hit_activation", 1.0, True),
        ("hits_per_hit_activation", 7.0, True),
        ("hits_per_hit_activation", 0.5, False),
        ("hits_per_hit_activation", float("nan"), False),
    ],
)
def test_range_check_accepts_a_rate_within_its_range(
    name: str, value: float | None, passed: bool, shared_deployment: Deployment
):
    table = remove_rates(
        pq.read_table(shared_deployment.path("reactivity_rates", DAY, "activation_date"), partitioning=None)
    )
    finding = check_range(set_first_value(name, value)(table), is_sent=True)
    assert finding.passed == passed
    if not passed:
        assert finding.metadata["rows_out_of_range"] == {name: 1}


def test_rate_out_of_range_is_an_error_or_while_sends_are_missing_a_warning(deployment: Deployment):
    for day in list_days(FIRST, LAST):
        rewrite_rates(deployment, day, remove_rates)
    for day in (DAY, LAST):
        rewrite_rates(deployment, day, set_first_value("delivered", 10**6))
        rewrite_rates(deployment, day, set_first_value("hit_rate", 1.5))
    found = deployment.check("reactivity_rates", FIRST, LAST)
    assert select_failed(found, "rates_within_0_and_1") == {f"{DAY}": ERROR, f"{LAST}": WARN}


def test_rate_above_1_is_a_warning_if_more_sends_reacted_than_were_delivered(shared_deployment: Deployment):
    table = remove_rates(
        pq.read_table(shared_deployment.path("reactivity_rates", DAY, "activation_date"), partitioning=None)
    )
    for name, number in (("delivered", 1), ("impression_activations", 2), ("impression_rate", 2.0)):
        table = set_first_value(name, number)(table)
    finding = check_range(table, is_sent=True)
    assert (finding.passed, finding.tolerated) == (False, True)
    assert "bounced" in finding.text
    assert not check_range(set_first_value("bounce_rate", 2.0)(table), is_sent=True).tolerated


@pytest.mark.parametrize(("lost", "passed"), [(1, True), (2, False)])
def test_many_orphans_are_a_warning(lost: int, passed: bool, deployment: Deployment):
    def add_orphans(table: pa.Table) -> pa.Table:
        for name, number in (("orphan_reactions", lost), ("reacting_activations", 100)):
            zeros = table.set_column(
                table.column_names.index(name), table.schema.field(name), pa.array([0] * table.num_rows, pa.int64())
            )
            table = set_first_value(name, number)(zeros)
        return table

    for day in (DAY, LAST):
        rewrite_rates(deployment, day, add_orphans)
    found = deployment.check("reactivity_rates", DAY, LAST)
    failed = select_failed(found, "orphans_few")
    assert failed.get(f"{DAY}") == (None if passed else WARN)
    assert f"{LAST}" not in failed  # its sends are missing
