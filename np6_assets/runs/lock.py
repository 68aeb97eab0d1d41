"""A lock file for each run, in Dagster's home: it is held while the run's process lives, however that ends.

Each process of a run holds a shared lock, so whoever gets an exclusive one knows that none of them is left.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

FOLDER = "np6_runs"
"""The folder of the locks, in DAGSTER_HOME."""

_SUFFIX = ".lock"


@contextmanager
def hold_lock(home: Path, run_id: str) -> Iterator[None]:
    """Hold the lock of a run; do nothing if the file system has no locks."""
    path, file = _path(home, run_id), None
    with suppress(OSError):
        file = _acquire(path)
    try:
        yield
    finally:
        if file is not None:
            if _is_last_holder(file):  # no other process of the run is left
                path.unlink(missing_ok=True)
            file.close()


def find_dead_runs(home: Path) -> Iterator[str]:
    """Find the ids of runs whose processes are gone. Their locks are held while they are yielded."""
    for path in sorted((home / FOLDER).glob(f"*{_SUFFIX}")):
        with suppress(OSError), path.open("r+b") as file:
            # an empty file was just created, and is about to be locked
            if _is_last_holder(file) and os.fstat(file.fileno()).st_size:
                yield path.stem


def remove_lock(home: Path, run_id: str) -> None:
    """Remove the lock of a dead run."""
    _path(home, run_id).unlink(missing_ok=True)


def _path(home: Path, run_id: str) -> Path:
    return home / FOLDER / f"{run_id}{_SUFFIX}"


def _acquire(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    fcntl.flock(file, fcntl.LOCK_SH)
    file.write(f"{os.getpid()}\n".encode())
    file.flush()
    os.fsync(file)  # a power cut would leave it empty
    return file


def _is_last_holder(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
