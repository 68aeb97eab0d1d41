"""Run a webserver and a daemon on their own ports and folders, and use their GraphQL API."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from random import SystemRandom
from typing import Any, Self, TypeVar

import httpx

ROOT = Path(__file__).parents[2]
IN_PROGRESS = {"NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING"}

T = TypeVar("T")


def build_environment(**settings: str) -> dict[str, str]:
    """Return this process's environment without settings of this project and of Dagster, and with those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NP6_", "DAGSTER_"))}
    return clean | settings


def wait_until_passes(check: Callable[[], None], seconds: float = 240) -> None:
    """Repeat a check until it passes; raise its error after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, OSError):
            if time.monotonic() > deadline:
                raise
        time.sleep(1)


@dataclass(frozen=True)
class Run:
    """A run as the GraphQL API describes it."""

    id: str
    status: str
    parent: str | None
    tags: dict[str, str]
    assets: frozenset[str]

    @classmethod
    def from_graphql(cls, found: dict[str, Any]) -> Run:
        """Build a run from a GraphQL answer."""
        return cls(
            found["runId"],
            found["status"],
            found["parentRunId"],
            {tag["key"]: tag["value"] for tag in found["tags"]},
            frozenset(asset["path"][-1] for asset in found["assetSelection"] or ()),
        )


def wait_until(condition: Callable[[], T | None], what: str, seconds: float = 120) -> T:
    """Repeat a condition until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} seconds"
        time.sleep(0.5)


class DagsterProcesses:
    """`dagster-webserver` and `dagster-daemon` in their own DAGSTER_HOME, as a context manager. `url`: the UI."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.home = folder / "home"
        self.data = folder / "data"
        self._logs = folder / "logs"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        temporary = folder / "tmp"
        for created in (self.home, self._logs, temporary):
            created.mkdir()
        shutil.copy(ROOT / "dagster.yaml", self.home)
        self._environment = {
            **build_environment(),
            "DAGSTER_HOME": str(self.home),
            "NP6_DATA_DIR": str(self.data),
            "TMPDIR": str(temporary),
            **settings,
        }
        self._port = find_free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._http = httpx.Client(base_url=self.url, timeout=60)

    def __enter__(self) -> Self:
        try:
            self.start_webserver()
            wait_until(self._has_loaded, "the webserver")  # it creates the tables; two processes cannot do that at once
            self.start_daemon()
            wait_until(self._has_healthy_daemons, "the daemon")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_webserver(self) -> None:
        """Start the UI."""
        self._start("webserver", "dagster_webserver", "-h", "127.0.0.1", "-p", str(self._port))

    def start_daemon(self) -> None:
        """Start the daemon."""
        self._start("daemon", "dagster._daemon", "run")

    def start_command(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a `dagster` command beside the deployment, as in a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "dagster", *arguments, "-m", "np6_assets.definitions"],
            cwd=self.home,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self, *names: str, signal_number: int = signal.SIGTERM) -> None:
        """End the named processes, or all, with their children."""
        for name in names or tuple(self._processes):
            process = self._processes.pop(name)
            for sent in (signal_number, signal.SIGKILL):
                try:
                    os.killpg(process.pid, sent)
                    process.wait(10)
                except (subprocess.TimeoutExpired, ProcessLookupError):
                    continue

    def read_logs(self) -> str:
        """Return what the processes printed."""
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in self._logs.iterdir())

    def _start(self, name: str, module: str, *arguments: str) -> None:
        # a folder without .env; workspace.yaml needs none
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments, "-w", str(ROOT / "workspace.yaml")],
                cwd=self.home,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _has_loaded(self) -> bool:
        self._check_processes()
        try:
            entries = self.graphql(
                "{ workspaceOrError { ... on Workspace { locationEntries {"
                " locationOrLoadError { __typename ... on PythonError { message } } } } } }"
            )["workspaceOrError"]["locationEntries"]
        except httpx.TransportError:
            return False
        kinds = [entry["locationOrLoadError"] for entry in entries if entry["locationOrLoadError"]]
        assert all(kind["__typename"] == "RepositoryLocation" for kind in kinds), kinds
        return bool(kinds)

    def _has_healthy_daemons(self) -> bool:
        self._check_processes()
        status = self.graphql("{ instance { daemonHealth { allDaemonStatuses { required healthy } } } }")
        return all(
            daemon["healthy"]
            for daemon in status["instance"]["daemonHealth"]["allDaemonStatuses"]
            if daemon["required"]
        )

    def _check_processes(self) -> None:
        for name, process in self._processes.items():
            assert process.poll() is None, f"the {name} has ended\n{self.read_logs()}"

    # -- the GraphQL API --

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a query and return its data."""
        answer = self._http.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def launch(self, assets: Sequence[str], first: date | None = None, last: date | None = None) -> str:
        """Launch a run of these assets for a day or a range of days; return its id."""
        tags = {} if first is None else {"dagster/partition": f"{first}"}
        if last is not None:
            tags = {"dagster/asset_partition_range_start": f"{first}", "dagster/asset_partition_range_end": f"{last}"}
        parameters = {
            "selector": {
                "repositoryLocationName": "np6_assets",
                "repositoryName": "__repository__",
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": [asset]} for asset in assets],
            },
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        launched = self.graphql(
            "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {"
            " __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            p=parameters,
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id: str = launched["run"]["runId"]
        return run_id

    def launch_backfill(self, assets: Sequence[str], days: Sequence[date]) -> str:
        """Launch a backfill of these days; return its id."""
        launched = self.graphql(
            "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {"
            " __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            p={
                "assetSelection": [{"path": [asset]} for asset in assets],
                "partitionNames": [f"{day}" for day in days],
            },
        )["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        backfill_id: str = launched["backfillId"]
        return backfill_id

    def set_sensor(self, sensor: str, *, on: bool) -> None:
        """Turn a sensor on or off."""
        where = {"repositoryLocationName": "np6_assets", "repositoryName": "__repository__", "sensorName": sensor}
        if on:
            query = "mutation($s: SensorSelector!) { turned: startSensor(sensorSelector: $s) { __typename } }"
            answer = self.graphql(query, s=where)
        else:
            query = "query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor { id } } }"
            id_ = self.graphql(query, s=where)["sensorOrError"]["id"]
            answer = self.graphql("mutation($id: String!) { turned: stopSensor(id: $id) { __typename } }", id=id_)
        assert answer["turned"]["__typename"] in ("Sensor", "StopSensorMutationResult"), answer

    def list_runs(self, **tags: str) -> list[Run]:
        """Return the runs with these tags (`_` for `/`), newest first."""
        wanted = [{"key": name.replace("_", "/", 1), "value": value} for name, value in tags.items()]
        found = self.graphql(
            "query($f: RunsFilter) { runsOrError(filter: $f) { ... on Runs { results {"
            " runId status parentRunId tags { key value } assetSelection { path } } } } }",
            f={"tags": wanted},
        )["runsOrError"]["results"]
        return [Run.from_graphql(run) for run in found]

    def get_run(self, run_id: str) -> Run:
        """Return the present state of a run."""
        return next(run for run in self.list_runs() if run.id == run_id)

    def wait_for_runs(self, *run_ids: str) -> list[Run]:
        """Wait until these runs have ended, and return them."""

        def all_finished() -> list[Run] | None:
            self._check_processes()
            runs = [self.get_run(run_id) for run_id in run_ids]
            return None if any(run.status in IN_PROGRESS for run in runs) else runs

        return wait_until(all_finished, f"the runs {run_ids}")

    def list_retries(self, run_id: str) -> list[str]:
        """Return the ids of the runs that retry this one."""
        return [run.id for run in self.list_runs(dagster_parent_run_id=run_id)]

    def list_messages(self, run_id: str) -> list[str]:
        """Return the log messages of a run."""
        query = (
            "query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection {"
            " events { ... on MessageEvent { message } } } } }"
        )
        return [event["message"] for event in self.graphql(query, id=run_id)["logsForRun"]["events"]]

    def find_process(self, run_id: str) -> int:
        """Return the process id of a running run."""
        pattern = re.compile(r"Started process for run \(pid: (\d+)\)")
        return int(next(found[1] for message in self.list_messages(run_id) if (found := pattern.match(message))))


def find_free_port() -> int:
    """Find a free port below the range from which systems assign ports."""
    for port in SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port on 127.0.0.1")
