"""The lock of a run: who has it, and who is told from its file that it is gone."""

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
def process_of(home: Path, run_id: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock of a run until it is killed, or its input ends."""
    arguments = [sys.executable, "-c", PROCESS, str(home), run_id]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / lock.FOLDER).iterdir())


def test_lock_is_found_dead_only_after_its_process_was_killed(tmp_path: Path):
    with process_of(tmp_path, "ends"), process_of(tmp_path, "lives"), process_of(tmp_path, "killed") as killed:
        assert list(lock.find_dead_runs(tmp_path)) == []
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert list(lock.find_dead_runs(tmp_path)) == ["killed"]
    assert files(tmp_path) == ["killed.lock"]
    lock.remove_lock(tmp_path, "killed")
    assert files(tmp_path) == []


def test_run_of_two_processes_is_alive_while_one_of_them_is(tmp_path: Path):
    with process_of(tmp_path, "run") as killed, process_of(tmp_path, "run"):
        killed.kill()
        killed.wait()
        assert list(lock.find_dead_runs(tmp_path)) == []
        with lock.hold_lock(tmp_path, "run"):
            pass
        assert files(tmp_path) == ["run.lock"]
    assert files(tmp_path) == []


def test_new_lock_file_is_not_taken_for_a_dead_run(tmp_path: Path):
    (tmp_path / lock.FOLDER).mkdir()
    (tmp_path / lock.FOLDER / "new.lock").touch()
    assert list(lock.find_dead_runs(tmp_path)) == []


def test_dead_run_is_found_by_one_of_two_searches(tmp_path: Path):
    with process_of(tmp_path, "run") as killed:
        killed.kill()
    first = lock.find_dead_runs(tmp_path)
    assert next(first) == "run"
    assert list(lock.find_dead_runs(tmp_path)) == []
    first.close()


def test_run_goes_on_where_there_is_no_place_for_its_lock(tmp_path: Path):
    (tmp_path / lock.FOLDER).write_text("not a folder\n")
    with lock.hold_lock(tmp_path, "run"):
        assert list(lock.find_dead_runs(tmp_path)) == []
