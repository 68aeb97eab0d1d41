"""Files on a local disk. A file has no name while it is written (Linux; elsewhere a hidden one).

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

from np6_assets.storage.files import ANY_VERSION, ChangedError, ExpectedVersion, FileEntry, Version

_STALE_SECONDS = 24 * 3600

_HOLDER = ".in_use"
"""Names who holds the lock; after a killed process it stays, without meaning."""


@dataclass(frozen=True)
class LocalFiles:
    """The files below a folder; see `files.Files`."""

    root: Path

    def path(self, relative: str) -> str:
        """Return the path of a file."""
        return str(self.root / relative)

    def cache_listing(self) -> Self:
        """Return the same: local listings are not cached."""
        return self

    def find(self, folder: str) -> dict[str, FileEntry]:
        """List every file below a folder, by its path."""
        found = {}
        for parent, _, names in os.walk(self.root / folder):
            for name in names:
                path = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):  # removed since
                    found[str(path.relative_to(self.root))] = _to_entry(path.stat())
        return found

    def folders(self, folder: str) -> list[str]:
        """List the names of the folders in a folder."""
        try:
            with os.scandir(self.root / folder) as found:
                return [one.name for one in found if one.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entry(self, relative: str) -> FileEntry | None:
        """Look up a file; None if it does not exist."""
        try:
            return _to_entry((self.root / relative).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, relative: str, version: Version | None) -> IO[bytes]:
        """Open a file to read; it can be read to its end even if it is replaced meanwhile."""
        try:
            file = (self.root / relative).open("rb")
        except NotADirectoryError:
            raise FileNotFoundError(self.path(relative)) from None
        if version is not None and self.version(file) != version:
            file.close()
            raise ChangedError(self.path(relative))
        return file

    def version(self, file: IO[bytes]) -> Version:
        """Return the version of an open file."""
        return _to_entry(os.fstat(file.fileno())).version

    def remove(self, relative: str) -> None:
        """Remove a file, if it exists, and its folder if that is empty then."""
        path = self.root / relative
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    @contextmanager
    def lock(self, who: str, say: Callable[[str], None]) -> Iterator[None]:
        """See `Folder.lock`."""
        holder = self.root / _HOLDER
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                other = _read_text(holder) or "another process"
                say(f"the data folder is in use by {other}; this one goes on once it is free")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            holder.write_text(f"{who}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {socket.gethostname()}")
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def invalidate(self, relative: str) -> None:
        """Do nothing: nothing is cached."""

    def filesystem(self) -> None:
        """Return None: none is needed."""

    @contextmanager
    def replace(self, relative: str, mode: int | None, before: ExpectedVersion) -> Iterator[IO[bytes]]:
        """See `Folder.replace`."""
        with _write_replacement(self.root, self.root / relative, before) as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file


def _read_text(file: Path) -> str:
    """Read a small file; empty if it does not exist."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _to_entry(found: os.stat_result) -> FileEntry:
    version = Version(f"{found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return FileEntry(found.st_size, version, datetime.fromtimestamp(found.st_mtime, UTC))


def _swap_in(hidden: Path, target: Path, before: ExpectedVersion) -> None:
    """Rename a finished file to its name. Raises ChangedError if the file is not in the expected version."""
    if before is ANY_VERSION:
        hidden.replace(target)
    elif before is None:
        try:
            target.hardlink_to(hidden)  # unlike a rename, it fails if the file exists
            hidden.unlink()
        except FileExistsError:
            raise ChangedError(str(target)) from None
    else:
        with _lock_file(target) as found:
            if found != before:
                raise ChangedError(str(target))
            hidden.replace(target)


@contextmanager
def _lock_file(target: Path) -> Iterator[Version | None]:
    """Lock a file against writers that compare, and give its version; None if it does not exist.

    The lock is on the file itself: a writer that waited for it may hold one that was replaced, and sees another.
    """
    try:
        descriptor = os.open(target, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        locked, there = os.fstat(descriptor), target.stat() if target.exists() else None
        yield _to_entry(locked).version if there is not None and there.st_ino == locked.st_ino else None
    finally:
        os.close(descriptor)


@contextmanager
def _write_replacement(root: Path, target: Path, before: ExpectedVersion) -> Iterator[IO[bytes]]:
    root.mkdir(parents=True, exist_ok=True)
    hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")  # readers pass over it
    nameless = _open_unnamed(root)
    if nameless is not None:
        with nameless as file:
            yield file
            _sync_file(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            # with a directory given, Python follows the link to the unnamed file (linkat)
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
                _sync_file(file)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
    try:
        _swap_in(hidden, target, before)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    for parent in target.parents:  # each folder names the one below it, which may be new
        _sync_folder(parent)
        if parent == root:
            break
    _remove_stale(target)


def _open_unnamed(folder: Path) -> IO[bytes] | None:
    """Open a file without a name on the folder's file system; None if that is not supported."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError:
        return None
    return os.fdopen(descriptor, "w+b")


def _sync_file(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, so that a power cut does not bring back a replaced file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(target: Path) -> None:
    """Remove what a process killed long ago left beside the target."""
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if left.stat().st_mtime < time.time() - _STALE_SECONDS:
                left.unlink()
