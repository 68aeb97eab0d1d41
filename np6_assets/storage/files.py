"""The data folder: files that are replaced atomically, on a local disk or in an object store (`remote.py`).

A local file has a hidden name while it is written, and is renamed when it is on the disk. A process killed at any
moment leaves the old file or the new one.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from np6_assets.storage.remote_filesystem import RemoteFilesystem

PRIVATE = 0o640
"""The mode of files with contact data."""

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "memory")
"""Schemes of object stores' addresses. `memory` ends with the process: for tests."""


class ChangedError(Exception):
    """Another writer has replaced or removed a file since it was read."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} was written by another run since this one read it; launch this one again")


class StoreError(OSError):
    """An object store refused a request. The text is one line: which, why, and what to do."""


class Version(NamedTuple):
    """The version of a file: `tag` is always known, `generation` if the store has one."""

    tag: str
    generation: str | None = None


class _AnyVersion:
    """Stands for whatever version is there."""


ANY_VERSION: Final = _AnyVersion()

ATTEMPTS = 20
"""How often a file is read and written again if other writers come first."""

_STALE_SECONDS = 24 * 3600

_HOLDER = ".in_use"
"""Names who holds the lock; after a killed process it stays, without meaning."""

T = TypeVar("T")

ExpectedVersion: TypeAlias = Version | _AnyVersion | None
"""What a writer expects to replace: a version, no file (None), or ANY_VERSION."""


@dataclass(frozen=True)
class FileEntry:
    """A file in a listing; `size` is in bytes."""

    size: int
    version: Version
    modified: datetime


class Folder:
    """A folder of files. Paths below it are relative, with forward slashes.

    `Folder(url)` is a RemoteFolder if the URL is the address of an object store.
    """

    is_local = True
    """Whether it is on a disk of this machine."""

    def __new__(cls, url: str) -> Folder:
        """Choose the class for a path or an address."""
        scheme, separator, _ = url.partition("://")
        if separator and scheme != "file":
            from np6_assets.storage.remote import RemoteFolder

            return super().__new__(RemoteFolder)
        return super().__new__(cls)

    def __init__(self, url: str) -> None:
        self.root = url
        self._path = Path(url.removeprefix("file://")).absolute()

    @property
    def filesystem(self) -> RemoteFilesystem | None:
        """The fsspec file system of a remote folder, with its listing of now; None for a local folder."""
        return None

    def cache_listing(self) -> Folder:
        """Return the same folder with a listing that is requested once for each asset, and cached.

        A file that was replaced or removed since is noticed when it is opened. A local folder is not cached.
        """
        return self

    def invalidate(self, relative: str) -> None:
        """Drop a file from the cached listing: it was written since."""

    def path(self, relative: str) -> str:
        """Return the path of a file for readers and messages."""
        return str(self._path / relative)

    def find(self, relative: str) -> dict[str, FileEntry]:
        """Find every file below a folder, by its path."""
        found = {}
        for parent, _, names in os.walk(self._path / relative):
            for name in names:
                path = Path(parent, name)
                with suppress(FileNotFoundError):  # removed since
                    found[str(path.relative_to(self._path))] = _to_entry(path.stat())
        return found

    def find_entry(self, relative: str) -> FileEntry | None:
        """Find a file; None if it does not exist."""
        try:
            return _to_entry((self._path / relative).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list_folders(self, relative: str) -> list[str]:
        """List the names of the folders in a folder, sorted; empty if it does not exist."""
        try:
            with os.scandir(self._path / relative) as found:
                return sorted(one.name for one in found if one.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def open(self, relative: str, version: Version | None = None) -> IO[bytes]:
        """Open a file to read. Raises FileNotFoundError, and ChangedError if it is not of that version.

        It can be read to its end even if it is replaced meanwhile; in an object store that raises ChangedError.
        """
        try:
            file = (self._path / relative).open("rb")
        except NotADirectoryError:
            raise FileNotFoundError(self.path(relative)) from None
        if version is not None and self.get_version(file) != version:
            file.close()
            raise ChangedError(self.path(relative))
        return file

    def get_version(self, file: IO[bytes]) -> Version:
        """Return the version of an open file."""
        return _to_entry(os.fstat(file.fileno())).version

    def remove(self, relative: str) -> None:
        """Remove a file, and its folder if that is empty then; nothing happens if it does not exist."""
        path = self._path / relative
        path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            path.parent.rmdir()

    @contextmanager
    def replace(
        self, relative: str, mode: int | None = None, before: ExpectedVersion = ANY_VERSION
    ) -> Iterator[IO[bytes]]:
        """Open a file that replaces `relative` atomically when the block ends without an error.

        Raises ChangedError then, and changes nothing, if the file is not in the version expected `before`. A local
        file gets the mode, whatever the umask; None: as the umask says.
        """
        target = self._path / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")  # readers pass over it
        try:
            with hidden.open("xb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
            _swap_in(hidden, target, before)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
        for parent in target.parents:  # each folder names the one below it, which may be new
            with _open_descriptor(parent) as descriptor:
                os.fsync(descriptor)
            if parent == self._path:
                break
        _remove_stale(target)

    @contextmanager
    def lock(self, who: str, say: Callable[[str], None]) -> Iterator[None]:
        """Lock a local folder against all of this machine that lock it; `say` gets a line that names the holder.

        `who` is the holder, as others are told. The system releases the lock when the process ends. A remote folder is
        not locked: there, writers compare the version that they replace.
        """
        holder = self._path / _HOLDER
        self._path.mkdir(parents=True, exist_ok=True)
        with _open_descriptor(self._path) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                other = "another process"
                with suppress(FileNotFoundError):
                    other = holder.read_text()
                say(f"the data folder is in use by {other}; this one goes on once it is free")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            holder.write_text(f"{who}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {socket.gethostname()}")
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)

    def exists(self, relative: str) -> bool:
        """Whether a file exists."""
        return self.find_entry(relative) is not None

    def find_version(self, relative: str) -> Version | None:
        """Find the version of a file; None if it does not exist."""
        entry = self.find_entry(relative)
        return None if entry is None else entry.version

    def get_size(self, relative: str) -> int:
        """Return the size of a file in bytes. Raises FileNotFoundError."""
        entry = self.find_entry(relative)
        if entry is None:
            raise FileNotFoundError(self.path(relative))
        return entry.size

    def list_fingerprints(self, relative: str, name: str) -> dict[str, str]:
        """List the version tags of the files with a name in the folders of a folder, by folder.

        From a listing of now: no file is opened.
        """
        places = {posixpath.split(path): entry for path, entry in self.find(relative).items()}
        return {
            posixpath.basename(folder): entry.version.tag
            for (folder, file), entry in places.items()
            if file == name and posixpath.dirname(folder) == relative
        }

    def list_files(self, relative: str) -> list[str]:
        """List every file below a folder, sorted."""
        return sorted(self.find(relative))

    def list_unfinished(self, relative: str) -> list[str]:
        """List the unfinished files that killed writers of a file left beside it."""
        folder, name = posixpath.split(relative)
        begin = posixpath.join(folder, f".{name}.")
        return sorted(path for path in self.find(folder) if path.startswith(begin) and path.endswith(".tmp"))


def retry_if_changed(attempt: Callable[[], T]) -> T:
    """Retry an attempt to read and replace a file while other writers come first."""
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except ChangedError:
            continue  # each time one of the writers succeeds
    return attempt()


def _to_entry(found: os.stat_result) -> FileEntry:
    version = Version(f"{found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return FileEntry(found.st_size, version, datetime.fromtimestamp(found.st_mtime, UTC))


@contextmanager
def _open_descriptor(path: Path) -> Iterator[int]:
    """Open a file or folder to sync or lock it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _swap_in(hidden: Path, target: Path, before: ExpectedVersion) -> None:
    """Rename a finished file to its name. Raises ChangedError if the file is not in the expected version."""
    if before is ANY_VERSION:
        hidden.replace(target)
        return
    try:
        if before is None:
            target.hardlink_to(hidden)  # unlike a rename, it fails if the file exists
            hidden.unlink()
            return
        # The lock is on the file itself: a writer that waited for it may hold one that was replaced.
        with _open_descriptor(target) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            found = os.fstat(descriptor)
            if target.stat().st_ino == found.st_ino and _to_entry(found).version == before:
                hidden.replace(target)
                return
    except (FileExistsError, FileNotFoundError):
        pass
    raise ChangedError(str(target))


def _remove_stale(target: Path) -> None:
    """Remove what a process killed long ago left beside the target."""
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        with suppress(FileNotFoundError):
            if left.stat().st_mtime < time.time() - _STALE_SECONDS:
                left.unlink()
