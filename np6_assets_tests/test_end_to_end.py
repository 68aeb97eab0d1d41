"""Compare whole materializations with the oracle, over a real instance, HTTP server and files."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets.events import plan
from np6_assets.storage.files import Folder
from np6_assets_tests.support.dagster_processes import build_environment
from np6_assets_tests.support.deployment import (
    PSEUDONYM_KEY,
    Deployment,
    build_resource,
    list_days,
    read_failure,
    read_files,
)
from np6_assets_tests.support.events import KINDS, Population, build_population, dump_json
from np6_assets_tests.support.oracle import compute_day_bounds, expect_feeds, expect_rates, expect_rows
from np6_assets_tests.support.rude_server import Act, Request, RudeServer
from np6_assets_tests.support.tables import assert_rows_equal, read_rows, read_types

ROOT = Path(__file__).parents[1]
FIRST, LAST = date(2026, 3, 28), date(2026, 3, 30)  # 2026-03-29 has 23 hours in Paris
REACTIONS = ("hits", "optouts", "bounces", "impressions")


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
    population = build_population(21, FIRST, 3, timezone, misfit_days=[FIRST, LAST])
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
    population = build_population(22, FIRST, 3, misfit_days=[LAST])
    server.serve(population)
    server.fail_randomly(0.35, seed=5, wait=0)
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.materialize(list(KINDS), FIRST, LAST)
    deployment.assert_stored(population, KINDS, FIRST, LAST)
    outcomes = {request.outcome for request in server.list_requests()}
    assert len(outcomes) > 8, outcomes  # "ok" is one of them


@pytest.mark.parametrize("status", [pytest.param("401", marks=pytest.mark.slow), "404"])
def test_refused_day_keeps_its_file(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, status: str):
    server.serve(build_population(24, FIRST, 2))
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.materialize(["hits", "activations"], FIRST)
    before = read_files(deployment.data)
    server.serve(build_population(25, FIRST, 2))
    for path in ("/notifications/reactivities/hits", "/notifications/114/events/activations"):
        server.script_always(path, status)
    request_count = len(server.list_requests("/notifications/reactivities/hits"))
    # one notification that is not found costs no day; a key that is not known does
    for asset in ("hits", "activations") if status == "401" else ("hits",):
        with pytest.raises(dg.Failure, match=rf"{status} .*x-request-id"):
            deployment.materialize(asset, FIRST)
    assert read_files(deployment.data) == before
    # neither the client nor Dagster tries again
    assert len(server.list_requests("/notifications/reactivities/hits")) == request_count + 1


def refuse_days(server: RudeServer, monkeypatch: pytest.MonkeyPatch, *days: date, status: str = "503") -> None:
    """Refuse every request whose window has one of these days."""
    bounds = [compute_day_bounds(day, "UTC") for day in days]

    def choose_act(request: Request) -> Act | None:
        window = [request.query.get(f"reactivity{end}") or request.query.get(end.lower()) for end in ("Start", "End")]
        if None in window:  # the list of notifications
            return None
        first, last = map(int, window)
        return Act(status) if any(first <= start and end <= last for start, end in bounds) else None

    monkeypatch.setattr(server, "choose_act", choose_act)


def list_recorded(deployment: Deployment, asset: str) -> set[str]:
    return deployment.instance.get_materialized_partitions(dg.AssetKey(asset))


@pytest.mark.parametrize("asset", ["hits", pytest.param("activations", marks=pytest.mark.slow)])
def test_range_stores_the_other_days_of_a_failed_day(
    server: RudeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asset: str
):
    # one day a request, for activations as well
    monkeypatch.setattr(plan, "DAYS_PER_REQUEST", 1)
    old = build_population(26, FIRST, 3)
    new = old.merge(build_population(27, FIRST, 3))
    server.serve(old)
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(tmp_path / "data", server, instance)
        deployment.materialize(asset, LAST)
        server.serve(new)
        deployment.np6 = build_resource(
            server, max_concurrent_requests=1, max_retries=2, step_retries=1, step_retry_delay=0
        )
        second = FIRST + timedelta(days=1)
        refuse_days(server, monkeypatch, second)
        before = len(server.list_requests())
        failed = deployment.materialize(asset, FIRST, LAST, raise_on_error=False)
        assert not failed.success
        assert "1 of 3 days could not be fetched. The other days that were fetched are stored" in read_failure(failed)
        assert f"Failed: {second}" in read_failure(failed)
        starts = [
            request.query.get("reactivityStart") or request.query.get("start")
            for request in server.list_requests()[before:]
        ]
        # Dagster starts the step again for the day that failed alone, and the client tries three times
        assert starts.count(str(compute_day_bounds(FIRST, "UTC")[0])) == starts.count(
            str(compute_day_bounds(LAST, "UTC")[0])
        )
        assert starts.count(str(compute_day_bounds(second, "UTC")[0])) == 6 * starts.count(
            str(compute_day_bounds(FIRST, "UTC")[0])
        )
        for day in (FIRST, LAST):
            assert deployment.rows(asset, day) == expect_rows(asset, new.feed(asset), *compute_day_bounds(day, "UTC"))
        assert len(read_files(deployment.data)) == 2
        assert list_recorded(deployment, asset) == {f"{FIRST}", f"{LAST}"}

        refuse_days(server, monkeypatch)
        deployment.materialize(asset, second)
        assert list_recorded(deployment, asset) == {f"{day}" for day in list_days(FIRST, LAST)}
        deployment.assert_stored(new, [asset], FIRST, LAST)


@pytest.mark.parametrize(("asset", "status"), [("hits", "404"), ("activations", "403")])
def test_range_stores_the_other_days_of_a_refused_day(
    server: RudeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asset: str, status: str
):
    population = build_population(26, FIRST, 3)
    server.serve(population)
    second = FIRST + timedelta(days=1)
    refuse_days(server, monkeypatch, second, status=status)
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(tmp_path / "data", server, instance)
        deployment.np6 = build_resource(server, step_retries=0)
        failed = deployment.materialize(asset, FIRST, LAST, raise_on_error=False)
        assert "1 of 3 days could not be fetched. The other days that were fetched are stored" in read_failure(failed)
        assert re.search(
            rf"Failed: {second} \(GET /notifications/.* returned {status} .*x-request-id", read_failure(failed)
        )
        assert list_recorded(deployment, asset) == {f"{FIRST}", f"{LAST}"}
        for day in (FIRST, LAST):
            assert deployment.rows(asset, day) == expect_rows(
                asset, population.feed(asset), *compute_day_bounds(day, "UTC")
            )
        assert not deployment.path(asset, second).exists()


@pytest.mark.parametrize(("asset", "status"), [("hits", "403"), ("activations", "401")])
def test_refused_key_ends_the_range(
    server: RudeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asset: str, status: str
):
    monkeypatch.setattr(plan, "DAYS_PER_REQUEST", 1)
    first, last = FIRST - timedelta(days=20), LAST
    population = build_population(32, first, 3)
    server.serve(population)
    refuse_days(server, monkeypatch, *list_days(first + timedelta(days=1), last), status=status)
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(tmp_path / "data", server, instance)
        deployment.np6 = build_resource(server, max_concurrent_requests=1, step_retry_delay=0)
        with pytest.raises(dg.Failure, match=rf"^GET /notifications/.* returned {status} "):
            deployment.materialize(asset, first, last)
        # one that is refused, and what was under way by then; neither the client nor Dagster asks again
        refused = [request for request in server.list_requests() if request.outcome == status]
        assert 1 <= len(refused) <= 3
        assert list_recorded(deployment, asset) <= {f"{first}"}
        assert len(read_files(deployment.data)) == len(list_recorded(deployment, asset))


def test_range_ends_after_three_failed_days_in_a_row(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = FIRST - timedelta(days=20)
    server.serve(build_population(32, FIRST, 1))
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.np6 = build_resource(server, max_concurrent_requests=1, max_retries=0, step_retries=0)
    refuse_days(server, monkeypatch, *list_days(first + timedelta(days=2), LAST))
    failed = deployment.materialize("hits", first, LAST, raise_on_error=False)
    assert "3 of 23 days could not be fetched; gave up after 3 in a row" in read_failure(failed)
    # two good days, three that fail, and those that were asked for ahead
    assert len(server.list_requests()) <= 2 + 3 + 2
    assert len(read_files(deployment.data)) == 2


TODAY = datetime.now(UTC).date()
BEYOND = {
    "begins before": (date(2026, 1, 30), date(2026, 2, 2), "2026-01-30 is before NP6_START_DATE=2026-02-01"),
    "is before": (date(2026, 1, 2), date(2026, 1, 4), "2026-01-02 is before NP6_START_DATE=2026-02-01"),
    "ends after": (TODAY, TODAY + timedelta(days=2), f"{TODAY + timedelta(days=2)} has not begun"),
    "is after": (
        TODAY + timedelta(days=3),
        TODAY + timedelta(days=4),
        f"{TODAY + timedelta(days=4)} has not begun",
    ),
}


@pytest.mark.parametrize(
    ("asset", "which"),
    # where rates begin too early, Dagster refuses their inputs before any of this project's code runs
    [
        *((asset, which) for asset in ("hits", "activations") for which in BEYOND),
        ("reactivity_rates", "ends after"),
        ("reactivity_rates", "is after"),
    ],
)
def test_range_of_missing_days_is_refused_in_one_line(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, asset: str, which: str
):
    first, last, why = BEYOND[which]
    deployment = Deployment(tmp_path / "data", server, instance)
    with pytest.raises(dg.Failure) as refused:
        deployment.materialize(asset, first, last)
    assert refused.value.description.startswith(why)
    assert "launch days from 2026-02-01 to " in refused.value.description
    assert "\n" not in refused.value.description
    assert server.list_requests() == []
    assert read_files(deployment.data) == {}


@pytest.mark.slow
def test_range_of_activations_needs_one_request_for_31_days(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    first, last = date(2026, 3, 1), date(2026, 4, 2)  # 33 days
    population = build_population(28, FIRST, 3, "Europe/Paris", sends_per_day=8, misfit_days=[FIRST])
    server.serve(population)
    deployment = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE="Europe/Paris")
    deployment.materialize("activations", first, last)
    deployment.assert_stored(population, ["activations"], first, last)
    for notification in population.notifications:
        assert len(server.list_requests(f"/notifications/{notification['id']}/events/activations")) == 2
    assert len(server.list_requests()) == 1 + 2 * len(population.notifications)


@pytest.mark.slow
def test_small_days_of_a_range_share_a_request(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, last = date(2026, 3, 1), date(2026, 4, 13)  # 44 days, the clocks change in between
    population = build_population(33, first, 44, "Europe/Paris", sends_per_day=2)
    server.serve(population)
    together = Deployment(tmp_path / "together", server, instance, NP6_TIMEZONE="Europe/Paris")
    together.np6 = build_resource(server, max_concurrent_requests=2)
    together.materialize("hits", first, last)
    together.assert_stored(population, ["hits"], first, last)
    # a week tells that they are small, during which three more are asked for; then 31 days, and those that are left
    assert len(server.list_requests()) == 7 + 3 + 2
    monkeypatch.setattr(plan, "EVENTS_PER_REQUEST", 1)  # now they are large
    alone = Deployment(tmp_path / "alone", server, instance, NP6_TIMEZONE="Europe/Paris")
    before = len(server.list_requests())
    alone.materialize("hits", FIRST, LAST)
    assert len(server.list_requests()) == before + 3
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
    eleven = [
        str(compute_day_bounds(day, "UTC")[0] + 11 * 3_600_000) for day in list_days(first, last)
    ]  # noon, less the lookback
    assert sorted(request.query["reactivityStart"] for request in server.list_requests()[before:]) == eleven
    deployment.assert_stored(population, ["hits"], first, last)


@pytest.mark.slow
def test_failed_request_is_halved_down_to_the_failed_day(
    server: RudeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, bad, last = date(2026, 3, 1), date(2026, 3, 30), date(2026, 4, 2)
    population = build_population(34, first, 33, sends_per_day=2)
    server.serve(population)
    refuse_days(server, monkeypatch, bad)
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(tmp_path / "data", server, instance)
        deployment.np6 = build_resource(server, max_retries=0, step_retries=0)
        failed = deployment.materialize("hits", first, last, raise_on_error=False)
        assert "1 of 33 days could not be fetched" in read_failure(failed)
        assert f"Failed: {bad}" in read_failure(failed)
        good = [day for day in list_days(first, last) if day != bad]
        assert list_recorded(deployment, "hits") == {f"{day}" for day in good}
        for day in good:
            assert deployment.rows("hits", day) == expect_rows(
                "hits", population.feed("hits"), *compute_day_bounds(day, "UTC")
            )
    # with 22 others, then in halves: 12, 6, 3 and 2 days, and alone
    assert [request.outcome for request in server.list_requests()].count("503") == 6


@pytest.mark.slow
def test_rejected_event_of_a_shared_request_is_in_its_days_quarantine(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    first, odd, last = date(2026, 3, 1), date(2026, 3, 20), date(2026, 4, 2)
    population = build_population(35, first, 33, sends_per_day=2, misfit_days=[odd])
    server.serve(population)
    deployment = Deployment(tmp_path / "data", server, instance, NP6_CONTACT_DATA="keep")
    deployment.materialize("hits", first, last)
    deployment.assert_stored(population, ["hits"], first, last, "keep")
    misfits = [misfit.event for misfit in population.misfits if misfit.kind == "hits"]
    assert sorted(map(dump_json, deployment.rejected_events("hits", odd))) == sorted(map(dump_json, misfits))
    assert [path.name for path in deployment.data.glob("quarantine/hits/*")] == [f"event_date={odd}"]


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
    population = build_population(30, FIRST, 3, timezone, window_days=window)
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
    server.serve(build_population(33, FIRST, 3, misfit_days=[FIRST]))
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


# --- the command line ----------------------------------------------------------------------------------------------


class Stop(threading.Event):
    """Stalled requests wait for it; `reached` is set once one does."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)


def start_command(
    server: RudeServer, home: Path, data: Path, temporary: Path, *assets: str, **more: str
) -> subprocess.Popen[str]:
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    settings = {
        "NP6_BASE_URL": server.url,
        "NP6_API_KEY": server.key,
        "NP6_DATA_DIR": str(data),
        "NP6_START_DATE": "2026-03-20",
        "NP6_MAX_CONCURRENT_REQUESTS": "1",
        **more,
    }
    selection = [
        "--select",
        ",".join(assets or ("hits",)),
        "--partition-range",
        f"{FIRST}...{FIRST + timedelta(days=2)}",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "np6_assets.definitions", *selection],
        cwd=ROOT,
        env=build_environment(**settings, DAGSTER_HOME=str(home), TMPDIR=str(temporary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_named_files(data: Path) -> dict[str, bytes]:
    """Read all files but the hidden ones that killed processes were writing."""
    return {name: content for name, content in read_files(data).items() if not name.endswith(".tmp")}


@pytest.mark.slow
def test_killed_download_leaves_whole_days(server: RudeServer, tmp_path: Path, temporary: Path):
    population = build_population(31, FIRST, 3)
    server.serve(population)
    home, data = tmp_path / "home", tmp_path / "data"
    hits = "/notifications/reactivities/hits"
    server.released = stop = Stop()
    server.script(hits, None, Act("stall in body", at=0.7))
    process = start_command(server, home, data, temporary)
    try:
        assert stop.reached.wait(120)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0]
    assert len(server.list_requests(hits)) == 2, output
    first = f"hits/event_date={FIRST}/part-0.parquet"
    assert read_named_files(data).keys() <= {first, ".in_use"}  # the lock of the folder
    assert list(temporary.iterdir()) == []

    server.released = threading.Event()
    server.script(hits, Act("cut chunked", at=0.5), None, Act("cut gzip", at=0.5))
    process = start_command(server, home, data, temporary)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    stored = [
        data / "hits" / f"event_date={day}" / "part-0.parquet" for day in list_days(FIRST, FIRST + timedelta(days=2))
    ]
    for path, day in zip(stored, list_days(FIRST, FIRST + timedelta(days=2)), strict=True):
        rows = read_rows(pq.read_table(path, partitioning=None))
        assert rows == expect_rows("hits", population.hits, *compute_day_bounds(day, "UTC"))
    assert len(read_named_files(data)) == 3
    # the key is neither logged nor stored
    assert server.key not in output
    assert not [name for name, content in read_files(home).items() if server.key.encode() in content]


@pytest.mark.slow
def test_runs_after_kills_write_the_same_files(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, temporary: Path
):
    population = build_population(38, FIRST, 3, misfit_days=[FIRST])
    server.serve(population)
    clean = Deployment(tmp_path / "clean", server, instance, NP6_START_DATE="2026-03-20")
    clean.materialize(["hits", "activations"], FIRST, FIRST + timedelta(days=2))
    home, data = tmp_path / "home", tmp_path / "data"
    rng = random.Random()
    for _ in range(2):
        server.first_request.clear()
        process = start_command(server, home, data, temporary, "hits", "activations", NP6_MAX_CONCURRENT_REQUESTS="3")
        assert server.first_request.wait(120)
        seconds = rng.uniform(0, 0.5)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        stored = read_named_files(data)
        stored.pop(".in_use", None)
        # each day is stored whole or not at all
        assert stored.items() <= read_files(clean.data).items(), seconds
        assert list(temporary.iterdir()) == []
    process = start_command(server, home, data, temporary, "hits", "activations")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert read_named_files(data) == read_files(clean.data)


@pytest.mark.slow
def test_concurrent_runs_write_the_same_files(server: RudeServer, kept_instance: dg.DagsterInstance, tmp_path: Path):
    population = build_population(39, FIRST, 3, misfit_days=[FIRST])
    server.serve(population)
    server.fail_randomly(0.2, seed=6, wait=0)
    one, other = (Deployment(tmp_path / "data", server, kept_instance) for _ in range(2))
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(each.materialize, ["hits", "activations"], FIRST, LAST) for each in (one, other)]
        assert all(run.result().success for run in runs)
    one.assert_stored(population, ["hits", "activations"], FIRST, LAST)
    alone = Deployment(tmp_path / "alone", server, kept_instance)
    alone.materialize(["hits", "activations"], FIRST, LAST)
    assert read_files(one.data) == read_files(alone.data)
