"""Kill runs of the command line and close their terminals, and test how the runs end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.runs import lock
from np6_assets.runs.dead_runs import build_dead_runs_sensor
from np6_assets.runs.run_watch import end_at_hangup
from np6_assets.settings import Settings
from np6_assets_tests.support.dagster_processes import ROOT, build_environment, wait_until
from np6_assets_tests.support.events import build_population
from np6_assets_tests.support.rude_server import RudeServer

DAY = date(2026, 3, 20)
HITS = "/notifications/reactivities/hits"
COMMANDS = {
    "dagster": ["dagster", "asset", "materialize", "-m", "np6_assets.definitions", "--select", "hits"],
    "dg": ["dg", "launch", "--assets", "hits"],
}


def build_command(command: str) -> list[str]:
    """Build the command for the day."""
    name, *arguments = COMMANDS[command]
    return [str(Path(sys.executable).parent / name), *arguments, "--partition", f"{DAY}"]


def _enter_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    os.login_tty(os.dup(0))


class Terminal:
    """A command in its own terminal."""

    def __init__(self, command: str, environment: dict[str, str]) -> None:
        self._master, terminal = os.openpty()
        self.process = subprocess.Popen(
            build_command(command),
            cwd=ROOT,
            env=environment,
            stdin=terminal,
            preexec_fn=_enter_terminal,
        )
        os.close(terminal)

    def close(self) -> None:
        """Close the terminal, which sends SIGHUP to its processes."""
        os.close(self._master)


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(build_population(7, DAY, 1), seed=7) as running:
        running.script_always(HITS, "stall before")
        yield running
        running.release()


@pytest.fixture
def environment(tmp_path: Path, server: RudeServer) -> dict[str, str]:
    """The environment of a deployment with the project's dagster.yaml."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
    return build_environment(
        PYTHONPATH=str(ROOT),
        DAGSTER_HOME=str(home),
        NP6_DATA_DIR=str(tmp_path / "data"),
        NP6_BASE_URL=server.url,
        NP6_API_KEY=server.key,
        NP6_START_DATE="2026-03-01",
    )


def start_run(server: RudeServer, command: str, environment: dict[str, str]) -> Terminal:
    """Start a run in a terminal, and wait until it waits for the API."""
    before = len(server.list_requests(HITS))
    terminal = Terminal(command, environment)
    wait_until(lambda: len(server.list_requests(HITS)) > before or terminal.process.poll() is not None, "a request")
    assert terminal.process.poll() is None
    return terminal


def list_statuses(instance: dg.DagsterInstance) -> list[str]:
    """List the statuses of the runs, the oldest first."""
    return [run.status.value for run in reversed(instance.get_runs())]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_run_ends_if_its_terminal_is_closed_or_it_is_killed(
    server: RudeServer, environment: dict[str, str], command: str
):
    home = Path(environment["DAGSTER_HOME"])
    closed = start_run(server, command, environment)
    closed.close()
    closed.process.wait(60)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert list_statuses(instance) == ["FAILURE"]
        assert list((home / lock.FOLDER).iterdir()) == []

        killed = start_run(server, command, environment)
        killed.process.kill()
        killed.process.wait(60)
        killed.close()
        assert list_statuses(instance) == ["FAILURE", "STARTED"]
        wait_until(lambda: list(lock.find_dead_runs(home)), "the end of the run's processes")
        sensor = build_dead_runs_sensor(Settings.from_environment({}))
        message = sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).skip_message
        assert list_statuses(instance) == ["FAILURE", "FAILURE"]
        assert instance.get_runs()[0].run_id in (message or "")
        assert sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).skip_message is None

        server.reset_faults()
        server.release()
        again = subprocess.run(build_command(command), cwd=ROOT, env=environment, capture_output=True, timeout=120)
        assert again.returncode == 0, again.stderr
        assert list_statuses(instance) == ["FAILURE", "FAILURE", "SUCCESS"]


@pytest.fixture
def signals() -> Iterator[None]:
    """The signal handlers of a terminal."""
    handlers = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_run_under_nohup_ignores_a_hangup(signals: None):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with end_at_hangup():
        os.kill(os.getpid(), signal.SIGHUP)


def test_hangup_interrupts_a_run_and_is_reset_after_it(signals: None):
    with pytest.raises(KeyboardInterrupt), end_at_hangup():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
