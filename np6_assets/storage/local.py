"""Files on a disk. A file has no name while it is written (Linux; elsewhere a hidden one).

A process killed at any moment leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from np6_assets.storage.files import ANYTHING, Before, ChangedError, Entry, Version

_STALE_SECONDS = 24 * 3600

_HOLDER = ".in_use"
"""Says who holds the folder alone; where a process was killed it stays, and says nothing."""


@dataclass(frozen=True)
class LocalFiles:
    """The files below a folder; see `files.Files`."""

    root: Path

    def path(self, relative: str) -> str:
        """The path of a file."""
        return str(self.root / relative)

    def listed(self) -> Self:
        """The same: a look costs nothing."""
        return self

    def find(self, folder: str) -> dict[str, Entry]:
        """Every file below a folder, by its path."""
        found = {}
        for parent, _, names in os.walk(self.root / folder):
            for name in names:
                path = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):  # removed since
                    found[str(path.relative_to(self.root))] = _entry(path.stat())
        return found

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder."""
        try:
            with os.scandir(self.root / folder) as found:
                return [one.name for one in found if one.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entry(self, relative: str) -> Entry | None:
        """A file; None where there is none."""
        try:
            return _entry((self.root / relative).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, relative: str, version: Version | None) -> IO[bytes]:
        """A file, to be read to its end even where it is replaced meanwhile."""
        try:
            file = (self.root / relative).open("rb")
        except NotADirectoryError:
            raise FileNotFoundError(self.path(relative)) from None
        if version is not None and self.version(file) != version:
            file.close()
            raise ChangedError(self.path(relative))
        return file

    def version(self, file: IO[bytes]) -> Version:
        """The version of a file that was opened."""
        return _entry(os.fstat(file.fileno())).version

    def remove(self, relative: str) -> None:
        """Remove a file, if there is one, and its folder if that is empty then."""
        path = self.root / relative
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    @contextmanager
    def alone(self, who: str, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the folder alone; see `Folder.alone`."""
        holder = self.root / _HOLDER
        self.root.mkdir(parents=True, exist_ok=True)
        held = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holding = _text(holder) or "another process"
                say(f"the data folder is in use by {holding}; this one goes on once it is free")
                fcntl.flock(held, fcntl.LOCK_EX)
            holder.write_text(f"{who}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {socket.gethostname()}")
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
        finally:
            os.close(held)

    def doubt(self, relative: str) -> None:
        """Nothing is remembered."""

    def filesystem(self) -> None:
        """None is needed."""

    @contextmanager
    def replacing(self, relative: str, mode: int | None, before: Before) -> Iterator[IO[bytes]]:
        """See `Folder.replacing`."""
        with _replacing(self.root, self.root / relative, before) as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file


def _text(file: Path) -> str:
    """What stands in a small file; nothing where there is none."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _entry(found: os.stat_result) -> Entry:
    version = Version(f"{found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return Entry(found.st_size, version, datetime.fromtimestamp(found.st_mtime, UTC))


def _take_place(hidden: Path, target: Path, before: Before) -> None:
    """Let a finished file take its place. Raises ChangedError where what is there is not what was there before."""
    if before is ANYTHING:
        hidden.replace(target)
    elif before is None:
        try:
            target.hardlink_to(hidden)  # unlike a rename it fails where there is a file
            hidden.unlink()
        except FileExistsError:
            raise ChangedError(str(target)) from None
    else:
        with _held(target) as found:
            if found != before:
                raise ChangedError(str(target))
            hidden.replace(target)


@contextmanager
def _held(target: Path) -> Iterator[Version | None]:
    """The version of what is there, which no other writer that compares replaces meanwhile; None of no file.

    The lock is on the file itself: who waited for it holds one that was replaced, and sees another in its place.
    """
    try:
        descriptor = os.open(target, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        held, there = os.fstat(descriptor), target.stat() if target.exists() else None
        yield _entry(held).version if there is not None and there.st_ino == held.st_ino else None
    finally:
        os.close(descriptor)


@contextmanager
def _replacing(root: Path, target: Path, before: Before) -> Iterator[IO[bytes]]:
    root.mkdir(parents=True, exist_ok=True)
    hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")  # readers pass over it
    nameless = _nameless(root)
    if nameless is not None:
        with nameless as file:
            yield file
            _to_disk(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            # naming a directory makes Python follow the link to the file that has no name (linkat)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.link(f"/proc/self/fd/{file.fileno()}", hidden.name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with hidden.open("xb") as file:
                yield file
                _to_disk(file)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
    try:
        _take_place(hidden, target, before)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    for parent in target.parents:  # each knows the one below it, which may be new
        _folder_to_disk(parent)
        if parent == root:
            break
    _sweep(target)


def _nameless(folder: Path) -> IO[bytes] | None:
    """A file without a name on the folder's file system; None where that is not to be had."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError:
        return None
    return os.fdopen(descriptor, "w+b")


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    """Make the names in a folder durable, so that a power cut does not bring back a file that was replaced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Remove what a process killed long ago left beside the target."""
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if left.stat().st_mtime < time.time() - _STALE_SECONDS:
                left.unlink()
