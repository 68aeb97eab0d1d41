"""Compare the rates of a Spark Connect server with DuckDB's: on Sail, or on Spark (make test-spark)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets.rates import compute, spark
from np6_assets.rates.compute import QueryRunner, build_duckdb_runner, group_cohorts, open_duckdb
from np6_assets.rates.spark import SparkError, open_spark_runner
from np6_assets.settings import Settings
from np6_assets_tests.rates.stored_feeds import ALL, Days, compute_tables, list_days_from, list_rows, write_feeds
from np6_assets_tests.support.dagster_processes import find_free_port
from np6_assets_tests.support.deployment import Deployment, read_files
from np6_assets_tests.support.events import build_event, build_population
from np6_assets_tests.support.oracle import Row, build_row, compute_day_bounds, expect_feeds, expect_rates
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.spark_servers import format_address, run_server
from np6_assets_tests.support.tables import assert_rows_equal

D = date(2026, 3, 20)
PARIS = "Europe/Paris"
TOKEN = "dapi0123456789abcdef"


@pytest.fixture(scope="module", autouse=True)
def main_module_of_a_program() -> Iterator[None]:
    """Pyspark takes a main module without a file, as in pytest-xdist's workers, for its doctests, and exits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
        yield


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with run_server() as address:
        yield address


@pytest.fixture(scope="module")
def spark_runner(address: str) -> Iterator[QueryRunner]:
    with open_spark_runner(address) as run:
        yield run


@pytest.fixture
def duckdb_runner() -> Iterator[QueryRunner]:
    with open_duckdb() as database:
        yield build_duckdb_runner(database)


def test_rates_of_a_population_match_duckdb_and_plain_python(
    spark_runner: QueryRunner, duckdb_runner: QueryRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """At a change of clocks, with missing, open and incomplete days, in several chunks."""
    first = date(2026, 3, 27)
    cohorts = list_days_from(first, 4)
    feeds = expect_feeds(build_population(4, first, 4, PARIS, window_days=2), list_days_from(first, 6), PARIS)
    feeds["activations"][cohorts[1]] = feeds["impressions"][cohorts[2]] = feeds["hits"][cohorts[3]] = None
    some_ids = sorted({row["activation_id"] for row in feeds["activations"][first] or ()})[:2]
    missing = {("activations", first): some_ids}

    def is_closed(kind: str, day: date) -> bool:
        return day < cohorts[3]

    stored = write_feeds(tmp_path, feeds, PARIS, is_closed, missing)
    at_once = sum(map(stored.count_rows, map(str, list_days_from(first, 4))))
    monkeypatch.setattr(compute, "ROWS_AT_ONCE", at_once)
    assert len(list(group_cohorts(stored, [str(day) for day in cohorts], 2, at_once))) > 1
    found = compute_tables(spark_runner, stored, cohorts, 2)
    assert found == compute_tables(duckdb_runner, stored, cohorts, 2)
    for day, rows in found.items():
        expected = expect_rates(day, PARIS, 2, feeds, is_closed, missing_ids=missing)
        assert len(expected) > 5
        assert_rows_equal(list_rows(rows, day), expected)


def build_odd_events() -> dict[str, list[Row]]:
    """Build events with odd texts and numbers, events without their send's id or time, and one id twice."""
    noon = compute_day_bounds(D, "UTC")[0] + 12 * 3_600_000
    grains: list[dict[str, Any]] = [
        {"agency": None},
        {"customer": ""},
        {"version": "é"},
        {"version": "Z"},
        {"version": "z"},
        {"application": None, "version": None},
        {"activation_id": 2**53 + 1},
        {"activation_id": -1, "version": "\U0001f600"},
        {"activation_id": -1, "version": "\uffff"},
        {"stamp_id": None},
        {"stamp_time": None},
        {"subscription": None},
    ]
    rows: dict[str, list[Row]] = {kind: [] for kind in ALL}
    for number, fields in enumerate(grains):
        for kind in ALL:
            for again in range(number % 4):
                fields_of_kind = {"verdict": ["soft", "hard", None][again]} if kind == "bounces" else {}
                if kind == "hits" and again:
                    fields_of_kind = {"link_type": ["dismissal", None][again - 1]}
                stamp = {"stamp_id": f"s{again}", "stamp_time": noon, **fields, **fields_of_kind}
                event = build_event(kind, id=f"{kind} {number} {again}", timestamp=noon + again, **stamp)
                rows[kind].append(build_row(kind, event, "drop", None))
    rows["hits"] += rows["hits"][:2]
    return rows


def test_rates_of_odd_events_match_duckdb(spark_runner: QueryRunner, duckdb_runner: QueryRunner, tmp_path: Path):
    odd_rows = build_odd_events()
    feeds: Days = {
        kind: {D: odd_rows[kind], D + timedelta(days=1): [] if kind == "hits" else None, D + timedelta(days=5): None}
        for kind in ALL
    }
    cohorts = [D, D + timedelta(days=1), D + timedelta(days=5)]
    stored = write_feeds(tmp_path, feeds, "UTC")
    found = compute_tables(spark_runner, stored, cohorts, 1)
    assert [rows.num_rows for rows in found.values()] == [len(expect_rates(D, "UTC", 1, feeds)), 0, 0]
    assert found == compute_tables(duckdb_runner, stored, cohorts, 1)


@pytest.mark.slow
def test_setting_computes_the_same_files_on_a_server(
    address: str, server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    cohorts = list_days_from(D, 2)
    write_feeds(
        tmp_path / "data",
        expect_feeds(build_population(7, D, 2, PARIS, window_days=1), list_days_from(D, 3), PARIS),
        PARIS,
    )
    with_duckdb = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=PARIS)
    with_spark = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=PARIS, NP6_SPARK_CONNECT=address)
    with_duckdb.materialize("reactivity_rates", D, cohorts[-1])
    computed = read_files(tmp_path / "data" / "reactivity_rates")
    assert all(with_duckdb.rates(day) for day in cohorts)
    for day in cohorts:
        with_duckdb.path("reactivity_rates", day, "activation_date").unlink()
    with_spark.materialize("reactivity_rates", D, cohorts[-1])
    assert read_files(tmp_path / "data" / "reactivity_rates") == computed


@contextmanager
def expect_one_line(start: str) -> Iterator[pytest.ExceptionInfo[SparkError]]:
    """Expect an error in one line that starts like this, without the token or a cause."""
    with pytest.raises(SparkError) as caught:
        yield caught
    assert str(caught.value).startswith(f"NP6_SPARK_CONNECT: {start}")
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert caught.value.__suppress_context__


def test_silent_server_fails_the_run_in_one_line(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert spark.ANSWERS_WITHIN <= 60
    monkeypatch.setattr(spark, "ANSWERS_WITHIN", 0.2)
    silent = format_address(find_free_port())
    parameters = f"/;use_ssl=true;token={TOKEN};x-databricks-cluster-id=0123"
    deployment = Deployment(tmp_path / "data", server, instance, NP6_SPARK_CONNECT=silent + parameters)
    with expect_one_line(f"{silent} did not answer within 0.2 seconds"):
        deployment.materialize("reactivity_rates", D)
    assert not read_files(tmp_path / "data")


def test_server_that_fails_or_does_not_see_the_files_is_an_error(address: str, tmp_path: Path):
    feeds = expect_feeds(build_population(9, D, 1, "UTC", window_days=0), [D], "UTC")
    stored = write_feeds(tmp_path, feeds, "UTC")
    hits = {"hits": stored.select_days("hits", [str(D)])}
    with open_spark_runner(f"{address}/;user_id={TOKEN}") as run:
        with expect_one_line(f"{address} failed: ") as caught:
            run(f"SELECT\n{TOKEN} FROM hits", hits, {})
        assert "***" in str(caught.value)
        for file in (tmp_path / "hits").rglob("*.parquet"):
            file.unlink()
        with expect_one_line(f"{address} failed: ") as caught:
            run("SELECT 1", hits, {})
        assert str(tmp_path) in str(caught.value)


def test_setting_and_client_accept_the_same_addresses():
    from pyspark.sql.connect.client import DefaultChannelBuilder

    for text, endpoint in {
        "sc://spark.example.com": "spark.example.com:15002",
        "sc://[::1]:80": "[::1]:80",
        f"sc://a-b.example.com:443/;use_ssl=true;token={TOKEN};x-databricks-cluster-id=01-ab": "a-b.example.com:443",
    }.items():
        assert Settings.from_environment({"NP6_SPARK_CONNECT": f" {text}\n"}).spark_connect == text
        assert DefaultChannelBuilder(text).endpoint == endpoint
