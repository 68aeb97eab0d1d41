"""Compare whole materializations with the oracle, over a real instance, HTTP server and files."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets.events import plan
from np6_assets.storage.files import Folder
from np6_assets_tests.support.deployment import (
    PSEUDONYM_KEY,
    Deployment,
    build_resource,
    list_days,
    read_files,
)
from np6_assets_tests.support.events import KINDS, Population, build_population
from np6_assets_tests.support.oracle import compute_day_bounds, expect_feeds, expect_rates
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import assert_rows_equal, read_types

FIRST, LAST = date(2026, 3, 28), date(2026, 3, 30)  # 2026-03-29 has 23 hours in Paris


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        assert ephemeral.root_directory  # creates its temporary folder
        yield ephemeral


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder, which must be empty at the end of the test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


# --- events --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timezone", "contact", "kinds"),
    [
        ("Europe/Paris", "pseudonymize", ["hits", "activations"]),
        pytest.param("UTC", "keep", list(KINDS), marks=pytest.mark.slow),
    ],
)
def test_range_writes_the_bytes_of_single_days(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, timezone: str, contact: str, kinds: list[str]
):
    population = build_population(21, FIRST, 3, timezone, sends_per_day=10, bad_event_days=[FIRST])
    server.serve(population)
    environment = {"NP6_TIMEZONE": timezone, "NP6_CONTACT_DATA": contact, "NP6_PSEUDONYM_KEY": PSEUDONYM_KEY}
    together = Deployment(tmp_path / "together", server, instance, **environment)
    together.materialize(kinds, FIRST, LAST)
    together.assert_stored(population, kinds, FIRST, LAST, contact)
    alone = Deployment(tmp_path / "alone", server, instance, **environment)
    for day in reversed(list_days(FIRST, LAST)):
        alone.materialize(kinds, day)
    assert read_files(alone.data) == read_files(together.data)


@pytest.mark.slow
def test_run_survives_a_third_of_failing_requests(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    population = build_population(22, FIRST, 3, bad_event_days=[LAST])
    server.serve(population)
    server.fail_randomly(0.35, seed=5, wait=0)
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.materialize(list(KINDS), FIRST, LAST)
    deployment.assert_stored(population, KINDS, FIRST, LAST)
    outcomes = {request.outcome for request in server.list_requests()}
    assert len(outcomes) > 8, outcomes  # "ok" is one of them


def test_range_of_missing_days_is_refused_in_one_line(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    today = datetime.now(UTC).date()
    before_start = "2026-01-30 is before NP6_START_DATE=2026-02-01"
    deployment = Deployment(tmp_path / "data", server, instance)
    for asset, first, last, why in (
        ("hits", date(2026, 1, 30), date(2026, 2, 2), before_start),
        ("hits", date(2026, 1, 30), date(2026, 1, 31), before_start),
        ("activations", date(2026, 1, 30), date(2026, 2, 2), before_start),
        # where rates begin too early, Dagster refuses their inputs before any of this project's code runs
        *((asset, today, today + timedelta(days=2), "") for asset in ("hits", "activations", "reactivity_rates")),
        ("reactivity_rates", today + timedelta(days=3), today + timedelta(days=4), ""),
    ):
        with pytest.raises(dg.Failure) as refused:
            deployment.materialize(asset, first, last)
        description = refused.value.description or ""
        assert description.startswith(why or f"{last} has not begun")
        assert "launch days from 2026-02-01 to " in description
        assert "\n" not in description
    assert server.list_requests() == []
    assert read_files(deployment.data) == {}


@pytest.mark.slow
def test_small_days_of_a_range_share_a_request(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, odd, last = date(2026, 3, 1), date(2026, 3, 20), date(2026, 4, 13)  # 44 days, with a change of clocks
    population = build_population(33, first, 44, "Europe/Paris", sends_per_day=2, bad_event_days=[odd])
    server.serve(population)
    together = Deployment(tmp_path / "together", server, instance, NP6_TIMEZONE="Europe/Paris")
    together.np6 = build_resource(server, max_concurrent_requests=2)
    kinds = ["hits", "activations"]
    together.materialize(kinds, first, last)
    together.assert_stored(population, kinds, first, last)
    for kind in kinds:
        assert [path.name for path in together.data.glob(f"quarantine/{kind}/*")] == [f"event_date={odd}"]
    # of hits, a week tells that they are small, during which three more are requested; then 31 days, and the others
    assert len(server.list_requests("/notifications/reactivities")) == 7 + 3 + 2
    for notification in population.notifications:
        assert len(server.list_requests(f"/notifications/{notification['id']}/events/activations")) == 2
    monkeypatch.setattr(plan, "EVENTS_PER_REQUEST", 1)  # now they are large
    alone = Deployment(tmp_path / "alone", server, instance, NP6_TIMEZONE="Europe/Paris")
    server.requests.clear()
    alone.materialize("hits", FIRST, LAST)
    assert len(server.requests) == 3
    stored = read_files(together.data)
    assert read_files(alone.data) == {name: stored[name] for name in read_files(alone.data)}


@pytest.mark.slow
def test_open_days_of_a_range_are_fetched_incrementally_one_request_each(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    first, last = date(2026, 3, 1), date(2026, 3, 4)
    population = build_population(36, first, 4, sends_per_day=8)
    server.serve(population)
    for day in list_days(first, last):
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        Deployment(tmp_path, server, instance, lambda noon=noon: noon).materialize("hits", day)
    before = len(server.list_requests())
    deployment = Deployment(tmp_path, server, instance)
    deployment.np6 = build_resource(server, max_concurrent_requests=1)
    deployment.materialize("hits", first, last)
    # noon, less the lookback
    eleven = [str(compute_day_bounds(day, "UTC")[0] + 11 * 3_600_000) for day in list_days(first, last)]
    assert sorted(request.query["reactivityStart"] for request in server.list_requests()[before:]) == eleven
    deployment.assert_stored(population, ["hits"], first, last)


def test_account_without_notifications_has_empty_days(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.materialize("activations", FIRST, LAST)
    deployment.assert_stored(Population(), ["activations"], FIRST, LAST)


def test_notifications_are_listed_by_id(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    population = build_population(29, FIRST, 1)
    server.serve(population)
    now = datetime(2026, 4, 2, 9, tzinfo=UTC)
    deployment = Deployment(tmp_path / "data", server, instance, lambda: now)
    deployment.materialize("notifications")
    table = pq.read_table(deployment.data / "notifications" / "part-0.parquet")
    time = "timestamp[ms, tz=UTC]"
    types = {"activation_id": "int64", "name": "string", "type": "string", "unlisted_since": time, "first_seen": time}
    assert read_types(table) == types
    assert table.to_pylist() == [
        {
            "activation_id": entry["id"],
            "name": entry.get("name"),
            "type": entry.get("type"),
            "unlisted_since": None,
            "first_seen": now,
        }
        for entry in sorted(population.notifications, key=lambda entry: entry["id"])
    ]


def test_file_has_the_watermark_of_its_day(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    zone = ZoneInfo("Europe/Paris")
    deployment = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE="Europe/Paris")
    before = datetime.now(UTC)
    today = before.astimezone(zone).date()
    deployment.materialize("hits", date(2026, 3, 29))
    deployment.materialize("hits", today)
    after = datetime.now(UTC)
    # the closed day: its end, which is 22:00 UTC in summer time; today: when it was asked for, to a second
    assert deployment.fetched_until("hits", date(2026, 3, 29)) == datetime(2026, 3, 29, 22, tzinfo=UTC)
    end = datetime.fromtimestamp(compute_day_bounds(today, "Europe/Paris")[1] / 1000, UTC)
    assert (
        min(before - timedelta(seconds=1), end - timedelta(milliseconds=1))
        <= deployment.fetched_until("hits", today)
        <= after
    )
    assert deployment.fetched_until("hits", today) < end


# --- rates ---------------------------------------------------------------------------------------------------------


def test_rates_match_the_oracle(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    timezone, window = "Europe/Paris", 2
    population = build_population(30, FIRST, 3, timezone, sends_per_day=15, window_days=window)
    server.serve(population)
    deployment = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=timezone, NP6_WINDOW_DAYS=str(window))
    deployment.materialize(list(KINDS), FIRST, LAST)
    deployment.materialize("reactivity_rates", FIRST, LAST)
    feeds = expect_feeds(population, list_days(FIRST, LAST), timezone)
    for number, day in enumerate(list_days(FIRST, LAST)):
        expected = expect_rates(day, timezone, window, feeds)
        assert {row["is_final"] for row in expected} == {number < 1}
        found = deployment.rates(day)
        assert len(expected) > 5
        assert_rows_equal(found, expected)
        # plotted by the UI
        metadata = deployment.metadata("reactivity_rates", day)
        known = [row for row in expected if row["delivered"]]
        hit, delivered = (sum(row[name] for row in known) for name in ("hit_activations", "delivered"))
        assert metadata["hit_rate"] == hit / delivered
        assert metadata["notifications"].startswith("| Notification | Sends |")
        assert ("chart" in metadata) == ("dagster/column_lineage" in metadata) == (day == LAST)
        # the most important first, the path last
        names = [name for name in metadata if name not in ("chart", "dagster/column_lineage")]
        assert names[:3] == ["dagster/partition_row_count", "rates", "notifications"]
        assert names[-3:] == ["bytes", "path", "rows_digest"]
        assert metadata["rates"].startswith(f"hit {hit / delivered:.2%} (")
    together = read_files(deployment.data / "reactivity_rates")
    for day in list_days(FIRST, LAST):
        deployment.materialize("reactivity_rates", day)
    assert read_files(deployment.data / "reactivity_rates") == together


@pytest.mark.slow
def test_remote_folder_has_the_files_of_a_local_one(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    server.serve(build_population(33, FIRST, 3, bad_event_days=[FIRST]))
    url = f"memory://{tmp_path.name}/data"
    now = datetime.now(UTC)
    local = Deployment(tmp_path / "data", server, instance, lambda: now)
    remote = Deployment(tmp_path / "unused", server, instance, lambda: now, NP6_DATA_DIR=url)
    for deployment in (local, remote):
        deployment.materialize(["hits", "activations", "notifications"], FIRST)
        deployment.materialize("reactivity_rates", FIRST)
        deployment.materialize("reactivity_report")
    folder = Folder(url)
    found = {file: folder.open(file).read() for file in folder.list_files("")}
    report = "reactivity_report/report.html"
    assert found.pop(report).startswith(b"<!DOCTYPE html>")
    assert found.pop("np6.json") == (local.data / "np6.json").read_bytes()
    assert found == {name: content for name, content in read_files(local.data).items() if name != report}
