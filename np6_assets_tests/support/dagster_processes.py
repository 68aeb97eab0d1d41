"""A webserver and a daemon as one starts them, on ports and folders of their own, and what their GraphQL API says."""

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
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).parents[2]
IN_PROGRESS = {"NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING"}

T = TypeVar("T")


def wait_until_passes(check: Callable[[], None], seconds: float = 240) -> None:
    """Check again and again until it holds; what it still finds wrong in the end is raised."""
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
    """A run as the GraphQL API tells it."""

    id: str
    status: str
    parent: str | None
    tags: dict[str, str]
    assets: frozenset[str]

    @classmethod
    def of(cls, found: dict[str, Any]) -> Run:
        """From what GraphQL says."""
        return cls(
            found["runId"],
            found["status"],
            found["parentRunId"],
            {tag["key"]: tag["value"] for tag in found["tags"]},
            frozenset(asset["path"][-1] for asset in found["assetSelection"] or ()),
        )


def wait_until(condition: Callable[[], T | None], what: str, seconds: float = 120) -> T:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} seconds"
        time.sleep(0.5)


class DagsterProcesses:
    """`dagster-webserver` and `dagster-daemon` in a folder that becomes their DAGSTER_HOME, with the project's files.

    Use it as a context manager. `url` is where the UI is.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.home = folder / "home"
        self.data = folder / "data"
        self._logs = folder / "logs"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        temporary = folder / "tmp"
        for made in (self.home, self._logs, temporary):
            made.mkdir()
        shutil.copy(ROOT / "dagster.yaml", self.home)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NP6_", "DAGSTER_"))}
        self._environment = {
            **inherited,
            "DAGSTER_HOME": str(self.home),
            "NP6_DATA_DIR": str(self.data),
            "TMPDIR": str(temporary),
            **settings,
        }
        self._port = find_free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._http = httpx.Client(base_url=self.url, timeout=60)

    def __enter__(self) -> DagsterProcesses:
        try:
            self.start_webserver()
            wait_until(
                self._loaded, "the webserver"
            )  # it makes the tables; two that do at once stumble over each other
            self.start_daemon()
            wait_until(self._daemons_run, "the daemon")
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
        """Start what launches runs, ticks sensors and watches over runs."""
        self._start("daemon", "dagster._daemon", "run")

    def command_line(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command of `dagster` beside the deployment, as somebody does in a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "dagster", *arguments, "-m", "np6_assets.definitions"],
            cwd=self.home,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self, *names: str, how: int = signal.SIGTERM) -> None:
        """End these of the processes, or all, with everything that they started."""
        for name in names or tuple(self._processes):
            process = self._processes.pop(name)
            for how_hard in (how, signal.SIGKILL):
                try:
                    os.killpg(process.pid, how_hard)
                    process.wait(10)
                except (subprocess.TimeoutExpired, ProcessLookupError):
                    continue

    def logs(self) -> str:
        """What the processes have printed."""
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

    def _loaded(self) -> bool:
        self._alive()
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

    def _daemons_run(self) -> bool:
        self._alive()
        status = self.graphql("{ instance { daemonHealth { allDaemonStatuses { required healthy } } } }")
        return all(
            daemon["healthy"]
            for daemon in status["instance"]["daemonHealth"]["allDaemonStatuses"]
            if daemon["required"]
        )

    def _alive(self) -> None:
        for name, process in self._processes.items():
            assert process.poll() is None, f"the {name} has ended\n{self.logs()}"

    # -- the GraphQL API --

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The answer's data."""
        answer = self._http.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def launch(self, assets: Sequence[str], first: date | None = None, last: date | None = None) -> str:
        """Launch one run of these assets for a day or a range of days; its id."""
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

    def backfill(self, assets: Sequence[str], days: Sequence[date]) -> str:
        """Ask for a backfill of these days; its id."""
        asked = self.graphql(
            "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {"
            " __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            p={
                "assetSelection": [{"path": [asset]} for asset in assets],
                "partitionNames": [f"{day}" for day in days],
            },
        )["launchPartitionBackfill"]
        assert asked["__typename"] == "LaunchBackfillSuccess", asked
        backfill_id: str = asked["backfillId"]
        return backfill_id

    def turn(self, sensor: str, *, on: bool) -> None:
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

    def runs(self, **tags: str) -> list[Run]:
        """The runs with these tags (`_` for `/`), newest first."""
        wanted = [{"key": name.replace("_", "/", 1), "value": value} for name, value in tags.items()]
        found = self.graphql(
            "query($f: RunsFilter) { runsOrError(filter: $f) { ... on Runs { results {"
            " runId status parentRunId tags { key value } assetSelection { path } } } } }",
            f={"tags": wanted},
        )["runsOrError"]["results"]
        return [Run.of(run) for run in found]

    def run(self, run_id: str) -> Run:
        """A run as it is now."""
        return next(run for run in self.runs() if run.id == run_id)

    def finished(self, *run_ids: str) -> list[Run]:
        """These runs, once none of them is under way any more."""

        def all_finished() -> list[Run] | None:
            self._alive()
            runs = [self.run(run_id) for run_id in run_ids]
            return None if any(run.status in IN_PROGRESS for run in runs) else runs

        return wait_until(all_finished, f"the runs {run_ids}")

    def retries(self, run_id: str) -> list[str]:
        """The runs that were started in place of this one."""
        return [run.id for run in self.runs(dagster_parent_run_id=run_id)]

    def messages(self, run_id: str) -> list[str]:
        """What a run has logged."""
        query = (
            "query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection {"
            " events { ... on MessageEvent { message } } } } }"
        )
        return [event["message"] for event in self.graphql(query, id=run_id)["logsForRun"]["events"]]

    def process_of(self, run_id: str) -> int:
        """The process id of a run that is under way."""
        pattern = re.compile(r"Started process for run \(pid: (\d+)\)")
        return int(next(found[1] for message in self.messages(run_id) if (found := pattern.match(message))))


def find_free_port() -> int:
    """A port that nobody is given by chance in the seconds until it is used: below those that systems hand out."""
    for port in SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port on 127.0.0.1")
