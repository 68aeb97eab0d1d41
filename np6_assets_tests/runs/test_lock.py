"""Test the lock of a run, and how a dead run is found by it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from np6_assets.runs import lock

PROCESS = """
import sys
from pathlib import Path
from np6_assets.runs.lock import hold_lock
with hold_lock(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def start_locked_process(home: Path, run_id: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the lock of a run until it is killed or its input ends."""
    arguments = [sys.executable, "-c", PROCESS, str(home), run_id]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def list_locks(home: Path) -> list[str]:
    return sorted(path.name for path in (home / lock.FOLDER).iterdir())


def test_dead_run_is_found_after_its_process_was_killed(tmp_path: Path):
    (tmp_path / lock.FOLDER).mkdir()
    (tmp_path / lock.FOLDER / "new.lock").touch()  # about to be locked
    with (
        start_locked_process(tmp_path, "ends"),
        start_locked_process(tmp_path, "lives"),
        start_locked_process(tmp_path, "killed") as killed,
    ):
        assert list(lock.find_dead_runs(tmp_path)) == []
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        # one of two searches finds it
        search = lock.find_dead_runs(tmp_path)
        assert next(search) == "killed"
        assert list(lock.find_dead_runs(tmp_path)) == []
        search.close()
        assert list(lock.find_dead_runs(tmp_path)) == ["killed"]
    assert list_locks(tmp_path) == ["killed.lock", "new.lock"]
    lock.remove_lock(tmp_path, "killed")
    assert list_locks(tmp_path) == ["new.lock"]


def test_run_is_alive_while_one_of_its_processes_is(tmp_path: Path):
    with start_locked_process(tmp_path, "run") as killed, start_locked_process(tmp_path, "run"):
        killed.kill()
        killed.wait()
        assert list(lock.find_dead_runs(tmp_path)) == []
        with lock.hold_lock(tmp_path, "run"):
            pass
        assert list_locks(tmp_path) == ["run.lock"]
    assert list_locks(tmp_path) == []


def test_run_continues_if_its_lock_cannot_be_written(tmp_path: Path):
    (tmp_path / lock.FOLDER).write_text("not a folder\n")
    with lock.hold_lock(tmp_path, "run"):
        assert list(lock.find_dead_runs(tmp_path)) == []
