"""A lock for each run, in Dagster's own folder: it is held while the run's process lives, however that ends.

Each process of a run holds it shared, so that whoever gets it exclusively knows that none of them is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = "np6_runs"
"""The folder of the locks, in DAGSTER_HOME."""

_SUFFIX = ".lock"


@contextmanager
def held(home: Path, run_id: str) -> Iterator[None]:
    """Hold the lock of a run; without it where the file system has none."""
    path = _path(home, run_id)
    descriptor = _acquired(path)
    try:
        yield
    finally:
        if descriptor is not None:
            if _is_alone(descriptor):  # no other process of the run is left
                path.unlink(missing_ok=True)
            os.close(descriptor)


def left_behind(home: Path) -> Iterator[str]:
    """The ids of the runs whose processes are gone. Nobody else is given the lock of one while it is looked at."""
    for path in sorted((home / FOLDER).glob(f"*{_SUFFIX}")):
        with contextlib.suppress(OSError), path.open("r+b") as file:
            # one that is empty was made a moment ago, and is about to be locked
            if _is_alone(file.fileno()) and os.fstat(file.fileno()).st_size:
                yield path.name.removesuffix(_SUFFIX)


def forget(home: Path, run_id: str) -> None:
    """Remove the lock of a run whose process is gone."""
    _path(home, run_id).unlink(missing_ok=True)


def _path(home: Path, run_id: str) -> Path:
    return home / FOLDER / f"{run_id}{_SUFFIX}"


def _acquired(path: Path) -> int | None:
    descriptor = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        os.fsync(descriptor)  # a power cut would leave it empty
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _is_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
