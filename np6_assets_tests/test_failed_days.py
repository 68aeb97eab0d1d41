"""Materialize ranges in which days fail, and runs that are killed: the other days are stored, each as a whole."""

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
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.events import plan
from np6_assets_tests.support.dagster_processes import build_environment
from np6_assets_tests.support.deployment import Deployment, build_resource, list_days, read_failure, read_files
from np6_assets_tests.support.events import build_population
from np6_assets_tests.support.oracle import compute_day_bounds, expect_rows
from np6_assets_tests.support.rude_server import Act, Request, RudeServer

ROOT = Path(__file__).parents[1]
FIRST, SECOND, LAST = date(2026, 3, 28), date(2026, 3, 29), date(2026, 3, 30)
HITS = "/notifications/reactivities/hits"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        assert ephemeral.root_directory  # creates its temporary folder
        yield ephemeral


@pytest.fixture(autouse=True)
def temporary(instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder, which must be empty at the end of the test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


class FailingServer(RudeServer):
    """Refuses with `status` every request whose window has one of `days`."""

    days: tuple[date, ...] = ()
    status = "503"

    def choose_act(self, request: Request) -> Act | None:
        first, last = read_window(request)
        bounds = [compute_day_bounds(day, "UTC") for day in self.days]
        is_failing = any(first <= start and end <= last for start, end in bounds)
        return Act(self.status) if is_failing else super().choose_act(request)


def read_window(request: Request) -> tuple[int, int]:
    """Return the requested window in ms; an empty one of the list of notifications."""
    start, end = (
        request.query.get(f"reactivity{edge}") or request.query.get(edge.lower()) for edge in ("Start", "End")
    )
    return int(start or 0), int(end or 0)


@pytest.fixture
def server() -> Iterator[FailingServer]:
    with FailingServer(seed=1) as running:
        yield running


def list_recorded(deployment: Deployment, asset: str) -> set[str]:
    return deployment.instance.get_materialized_partitions(dg.AssetKey(asset))


# --- days ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [pytest.param("401", marks=pytest.mark.slow), "404"])
def test_refused_day_keeps_its_file(server: FailingServer, instance: dg.DagsterInstance, tmp_path: Path, status: str):
    server.serve(build_population(24, FIRST, 2, sends_per_day=6))
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.materialize(["hits", "activations"], FIRST)
    before = read_files(deployment.data)
    server.serve(build_population(25, FIRST, 2, sends_per_day=6))
    server.script_always("/notifications/", status)
    request_count = len(server.list_requests(HITS))
    for asset in ("hits", "activations"):
        with pytest.raises(dg.Failure, match=rf"{status} .*x-request-id"):
            deployment.materialize(asset, FIRST)
    assert read_files(deployment.data) == before
    # neither the client nor Dagster tries again
    assert len(server.list_requests(HITS)) == request_count + 1


@pytest.mark.parametrize(
    ("asset", "status", "attempts"),  # Dagster starts the step once more, and the client tries three times
    [("hits", "503", 6), ("hits", "404", 1), pytest.param("activations", "503", 6, marks=pytest.mark.slow)],
)
def test_range_stores_the_other_days_of_a_failed_day(
    server: FailingServer,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asset: str,
    status: str,
    attempts: int,
):
    # one day a request, for activations as well
    monkeypatch.setattr(plan, "DAYS_PER_REQUEST", 1)
    population = build_population(26, FIRST, 3, sends_per_day=6)
    server.serve(population)
    server.days, server.status = (SECOND,), status
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.np6 = build_resource(
        server, max_concurrent_requests=1, max_retries=2, step_retries=1, step_retry_delay=0
    )
    failed = deployment.materialize(asset, FIRST, LAST, raise_on_error=False)
    assert not failed.success
    why = read_failure(failed)
    assert "1 of 3 days could not be fetched. The other days that were fetched are stored" in why
    assert re.search(rf"Failed: {SECOND} \(GET /notifications/.* returned {status} ", why)
    starts = [read_window(request)[0] for request in server.requests]
    once, failing, last = (starts.count(compute_day_bounds(day, "UTC")[0]) for day in (FIRST, SECOND, LAST))
    assert (failing, last) == (attempts * once, once)
    for day in (FIRST, LAST):
        expected = expect_rows(asset, population.feed(asset), *compute_day_bounds(day, "UTC"))
        assert deployment.rows(asset, day) == expected
    assert len(read_files(deployment.data)) == 2
    assert list_recorded(deployment, asset) == {f"{FIRST}", f"{LAST}"}
    server.days = ()
    deployment.materialize(asset, SECOND)
    assert list_recorded(deployment, asset) == {f"{day}" for day in list_days(FIRST, LAST)}
    deployment.assert_stored(population, [asset], FIRST, LAST)


# --- ranges --------------------------------------------------------------------------------------------------------


def test_refused_key_ends_the_range(server: FailingServer, instance: dg.DagsterInstance, tmp_path: Path):
    first = FIRST - timedelta(days=20)
    server.days, server.status = tuple(list_days(first + timedelta(days=1), LAST)), "403"
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.np6 = build_resource(server, max_concurrent_requests=1, step_retry_delay=0)
    with pytest.raises(dg.Failure, match=r"^GET /notifications/.* returned 403 "):
        deployment.materialize("hits", first, LAST)
    # one that is refused, and what was under way by then; neither the client nor Dagster asks again
    refused = [request for request in server.list_requests() if request.outcome == "403"]
    assert 1 <= len(refused) <= 3
    assert list_recorded(deployment, "hits") <= {f"{first}"}
    assert len(read_files(deployment.data)) == len(list_recorded(deployment, "hits"))


def test_range_ends_after_three_failed_days_in_a_row(
    server: FailingServer, instance: dg.DagsterInstance, tmp_path: Path
):
    first = FIRST - timedelta(days=20)
    deployment = Deployment(tmp_path / "data", server, instance)
    deployment.np6 = build_resource(server, max_concurrent_requests=1, max_retries=0, step_retries=0)
    server.days = tuple(list_days(first + timedelta(days=2), LAST))
    failed = deployment.materialize("hits", first, LAST, raise_on_error=False)
    assert "3 of 23 days could not be fetched; gave up after 3 in a row" in read_failure(failed)
    # two good days, three that fail, and those that were requested ahead
    assert len(server.list_requests()) <= 2 + 3 + 2
    assert len(read_files(deployment.data)) == 2


# --- killed processes ----------------------------------------------------------------------------------------------


class Stop(threading.Event):
    """Stalled requests wait for it; `reached` is set once one does."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)


def start_command(server: RudeServer, home: Path, data: Path, temporary: Path) -> subprocess.Popen[str]:
    """Start a run of three days of hits and activations."""
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    settings = {
        "NP6_BASE_URL": server.url,
        "NP6_API_KEY": server.key,
        "NP6_DATA_DIR": str(data),
        "NP6_START_DATE": "2026-03-20",
        "NP6_MAX_CONCURRENT_REQUESTS": "1",
    }
    selection = ["--select", "hits,activations", "--partition-range", f"{FIRST}...{LAST}"]
    return subprocess.Popen(
        [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "np6_assets.definitions", *selection],
        cwd=ROOT,
        env=build_environment(**settings, DAGSTER_HOME=str(home), TMPDIR=str(temporary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str]) -> str:
    """Kill a run with all its processes, and return its output."""
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]


@pytest.mark.slow
def test_runs_after_kills_write_the_same_files(
    server: FailingServer, instance: dg.DagsterInstance, tmp_path: Path, temporary: Path
):
    server.serve(build_population(38, FIRST, 3, bad_event_days=[FIRST]))
    clean = Deployment(tmp_path / "clean", server, instance, NP6_START_DATE="2026-03-20")
    clean.materialize(["hits", "activations"], FIRST, LAST)
    server.requests.clear()
    home, data = tmp_path / "home", tmp_path / "data"

    def read_visible_files() -> dict[str, bytes]:
        return {name: content for name, content in read_files(data).items() if not Path(name).name.startswith(".")}

    def assert_whole_days() -> None:
        assert read_visible_files().items() <= read_files(clean.data).items()
        assert list(temporary.iterdir()) == []

    # in the middle of the second day's download
    server.released = stop = Stop()
    server.script(HITS, None, Act("stall in body", at=0.7))
    process = start_command(server, home, data, temporary)
    try:
        assert stop.reached.wait(120)
    finally:
        output = kill(process)
    assert len(server.list_requests(HITS)) == 2, output
    assert_whole_days()
    # at any time
    server.released = threading.Event()
    server.first_request.clear()
    process = start_command(server, home, data, temporary)
    assert server.first_request.wait(120)
    time.sleep(random.Random().uniform(0, 0.5))
    kill(process)
    assert_whole_days()
    # to the end, with cut answers
    server.script(HITS, Act("cut chunked", at=0.5), None, Act("cut gzip", at=0.5))
    process = start_command(server, home, data, temporary)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert read_visible_files() == read_files(clean.data)
    # the key is neither logged nor stored
    assert server.key not in output
    assert not [name for name, content in read_files(home).items() if server.key.encode() in content]
