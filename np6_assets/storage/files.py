"""The data folder: files that are replaced atomically, on a local disk or in an object store.

`local.py` and `remote.py` implement `Files`; other packages use only `Folder`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

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

T = TypeVar("T")

ExpectedVersion: TypeAlias = Version | _AnyVersion | None
"""What a writer expects to replace: a version, no file (None), or ANY_VERSION."""


@dataclass(frozen=True)
class FileEntry:
    """A file in a listing; `size` is in bytes."""

    size: int
    version: Version
    modified: datetime


class Files(Protocol):
    """Files below a root. Paths are relative to it, with forward slashes."""

    def path(self, relative: str) -> str:
        """Return the path of a file for readers and messages."""

    def cache_listing(self) -> Files:
        """See `Folder.cache_listing`."""

    def find(self, folder: str) -> Mapping[str, FileEntry]:
        """List every file below a folder, by its path."""

    def folders(self, folder: str) -> list[str]:
        """List the names of the folders in a folder."""

    def entry(self, relative: str) -> FileEntry | None:
        """Look up a file; None if it does not exist."""

    def open(self, relative: str, version: Version | None) -> IO[bytes]:
        """Open a file to read, of that version if one is given."""

    def version(self, file: IO[bytes]) -> Version:
        """Return the version of an open file."""

    def replace(self, relative: str, mode: int | None, before: ExpectedVersion) -> AbstractContextManager[IO[bytes]]:
        """See `Folder.replace`."""

    def remove(self, relative: str) -> None:
        """Remove a file, if it exists."""

    def lock(self, who: str, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """See `Folder.lock`."""

    def invalidate(self, relative: str) -> None:
        """See `Folder.invalidate`."""

    def filesystem(self) -> AbstractFileSystem | None:
        """See `Folder.filesystem`."""


class Folder:
    """A root folder, local or in an object store. Paths below it are relative, with forward slashes."""

    def __init__(self, url: str, files: Files | None = None) -> None:
        self.root = url
        self._files = files or _open_files(url)

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine."""
        return self.filesystem is None

    @property
    def filesystem(self) -> AbstractFileSystem | None:
        """The fsspec file system of a remote folder, with its listing of now; None for a local folder."""
        return self._files.filesystem()

    def cache_listing(self) -> Folder:
        """Return the same folder with a listing that is requested once for each asset, and cached.

        A file that was replaced or removed since is noticed when it is opened. A local folder is not cached.
        """
        return Folder(self.root, self._files.cache_listing())

    def path(self, relative: str) -> str:
        """Return the path of a file for readers and messages."""
        return self._files.path(relative)

    def exists(self, relative: str) -> bool:
        """Whether a file exists."""
        return self._files.entry(relative) is not None

    def open(self, relative: str, version: Version | None = None) -> IO[bytes]:
        """Open a file to read. Raises FileNotFoundError, and ChangedError if it is not of that version."""
        return self._files.open(relative, version)

    def get_version(self, file: str | IO[bytes]) -> Version | None:
        """Return the version of a path, None if it does not exist; or of an open file."""
        if not isinstance(file, str):
            return self._files.version(file)
        entry = self._files.entry(file)
        return None if entry is None else entry.version

    def get_size(self, relative: str) -> int:
        """Return the size of a file in bytes. Raises FileNotFoundError."""
        entry = self._files.entry(relative)
        if entry is None:
            raise FileNotFoundError(self.path(relative))
        return entry.size

    def list_folders(self, relative: str) -> list[str]:
        """List the names of the folders in a folder, sorted; empty if it does not exist."""
        return sorted(self._files.folders(relative))

    def list_fingerprints(self, relative: str, name: str) -> dict[str, str]:
        """List the version tags of the files with a name in the folders of a folder, by folder.

        From a listing of now: no file is opened.
        """
        found = self._files.find(relative)
        places = {path: posixpath.split(path) for path in found}
        return {
            posixpath.basename(folder): found[path].version.tag
            for path, (folder, file) in places.items()
            if file == name and posixpath.dirname(folder) == relative
        }

    def list_files(self, relative: str) -> list[str]:
        """List every file below a folder, sorted."""
        return sorted(self._files.find(relative))

    def list_unfinished(self, relative: str) -> list[str]:
        """List the unfinished files that killed writers of a file left beside it."""
        folder, name = posixpath.split(relative)
        return sorted(
            path
            for path in self._files.find(folder)
            if posixpath.dirname(path) == folder and is_unfinished(posixpath.basename(path), name)
        )

    def invalidate(self, relative: str) -> None:
        """Drop a file from the cached listing: it was written since."""
        self._files.invalidate(relative)

    def remove(self, relative: str) -> None:
        """Remove a file, and its folder if that is empty then; nothing happens if it does not exist."""
        self._files.remove(relative)

    def lock(self, who: str, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Lock a local folder against all of this machine that lock it; `say` gets a line that names the holder.

        `who` is the holder, as others are told. The system releases the lock when the process ends. A remote folder is
        not locked: there, writers compare the version that they replace.
        """
        return self._files.lock(who, say)

    def replace(
        self, relative: str, mode: int | None = None, before: ExpectedVersion = ANY_VERSION
    ) -> AbstractContextManager[IO[bytes]]:
        """Open a file that replaces `relative` atomically when the block ends without an error.

        Raises ChangedError then, and changes nothing, if the file is not in the version expected `before`. A local
        file gets the mode, whatever the umask; None: as the umask says.
        """
        return self._files.replace(relative, mode, before)


def retry_if_changed(attempt: Callable[[], T]) -> T:
    """Retry an attempt to read and replace a file while other writers come first."""
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except ChangedError:
            continue  # each time one of the writers succeeds
    return attempt()


def is_unfinished(name: str, of: str) -> bool:
    """Whether a name is that of an unfinished file."""
    return name.startswith(f".{of}.") and name.endswith(".tmp")


def _open_files(url: str) -> Files:
    scheme, separator, rest = url.partition("://")
    if separator and scheme != "file":
        from np6_assets.storage.remote import RemoteFiles

        return RemoteFiles(url)
    from np6_assets.storage.local import LocalFiles

    return LocalFiles(Path(rest if separator else url).absolute())
