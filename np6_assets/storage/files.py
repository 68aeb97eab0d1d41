"""The data folder: files that appear whole or not at all, on a local disk or in an object store.

What is on a disk is in `local.py`, what is in a bucket in `remote.py`; the rest of the project knows `Folder` alone.
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
"""Of addresses of object stores. `memory` is gone with the process: for tests."""


class ChangedError(Exception):
    """A file is not what it was when it was read: another writer has replaced or removed it since."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} was written by another run since this one read it; launch this one again")


class StoreError(OSError):
    """An object store did not do what it was asked for. The text is one line: which, why, and what to do."""


class Version(NamedTuple):
    """What tells a file from the one that it replaced: `tag` by itself, the other where the store says it too."""

    tag: str
    generation: str | None = None


class _Anything:
    """Whatever is there."""


ANYTHING: Final = _Anything()

ATTEMPTS = 20
"""How often a file is read and written again where other writers come first."""

T = TypeVar("T")

Before: TypeAlias = Version | _Anything | None
"""What a writer takes to be there: a version, no file, or ANYTHING."""


@dataclass(frozen=True)
class Entry:
    """A file, as a listing has it; `size` is in bytes."""

    size: int
    version: Version
    modified: datetime


class Files(Protocol):
    """Files below a root. Paths are relative to it, with forward slashes."""

    def path(self, relative: str) -> str:
        """The path of a file as readers and error messages know it."""

    def listed(self) -> Files:
        """The same files, as a listing that is made now has them."""

    def find(self, folder: str) -> Mapping[str, Entry]:
        """Every file below a folder, by its path."""

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder."""

    def entry(self, relative: str) -> Entry | None:
        """A file; None where there is none."""

    def open(self, relative: str, version: Version | None) -> IO[bytes]:
        """A file, to be read, which is of that version if one is given."""

    def version(self, file: IO[bytes]) -> Version:
        """The version of a file that was opened."""

    def replacing(self, relative: str, mode: int | None, before: Before) -> AbstractContextManager[IO[bytes]]:
        """See `Folder.replacing`."""

    def remove(self, relative: str) -> None:
        """Remove a file, if there is one."""

    def alone(self, who: str, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """See `Folder.alone`."""

    def doubt(self, relative: str) -> None:
        """Look anew at a file when it is asked for next."""

    def filesystem(self) -> AbstractFileSystem | None:
        """See `Folder.filesystem`."""


class Folder:
    """A root folder, local or in an object store. Paths below it are relative, with forward slashes."""

    def __init__(self, url: str, files: Files | None = None) -> None:
        self.root = url
        self._files = files or _files(url)

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine."""
        return self.filesystem is None

    @property
    def filesystem(self) -> AbstractFileSystem | None:
        """What DuckDB and pyarrow read a remote folder through, as it is listed now; None of a local one."""
        return self._files.filesystem()

    def listed(self) -> Folder:
        """The folder to be looked at many times: as a listing has it, which is made now, and of each asset once.

        What was replaced or removed since is noticed where it is opened. A local folder is as it is at any time.
        """
        return Folder(self.root, self._files.listed())

    def path(self, relative: str) -> str:
        """The path of a file as readers and error messages know it."""
        return self._files.path(relative)

    def exists(self, relative: str) -> bool:
        """Whether a file is there."""
        return self._files.entry(relative) is not None

    def open(self, relative: str, version: Version | None = None) -> IO[bytes]:
        """A file, to be read. Raises FileNotFoundError, and ChangedError where it is not of that version."""
        return self._files.open(relative, version)

    def version(self, file: str | IO[bytes]) -> Version | None:
        """The version of what is there, None where nothing is; or of a file that was opened."""
        if not isinstance(file, str):
            return self._files.version(file)
        entry = self._files.entry(file)
        return None if entry is None else entry.version

    def size(self, relative: str) -> int:
        """Size of a file in bytes. Raises FileNotFoundError."""
        entry = self._files.entry(relative)
        if entry is None:
            raise FileNotFoundError(self.path(relative))
        return entry.size

    def folders(self, relative: str) -> list[str]:
        """The names of the folders in a folder, in order; none where there is no such folder."""
        return sorted(self._files.folders(relative))

    def fingerprints(self, relative: str, name: str) -> dict[str, str]:
        """The files of that name in the folders of a folder, by folder: what tells each from the one that it replaces.

        From the listing alone, as it is now: no file is opened.
        """
        found = self._files.find(relative)
        places = {path: posixpath.split(path) for path in found}
        return {
            posixpath.basename(folder): found[path].version.tag
            for path, (folder, file) in places.items()
            if file == name and posixpath.dirname(folder) == relative
        }

    def files(self, relative: str) -> list[str]:
        """Every file below a folder, in order."""
        return sorted(self._files.find(relative))

    def left_behind(self, relative: str) -> list[str]:
        """The unfinished files that killed writers of a file left beside it."""
        folder, name = posixpath.split(relative)
        return sorted(
            path
            for path in self._files.find(folder)
            if posixpath.dirname(path) == folder and is_hidden(posixpath.basename(path), name)
        )

    def doubt(self, relative: str) -> None:
        """Look anew at a file when it is asked for next: it was written since the folder was listed."""
        self._files.doubt(relative)

    def remove(self, relative: str) -> None:
        """Remove a file, and its folder if that is empty then; nothing happens where there is none."""
        self._files.remove(relative)

    def alone(self, who: str, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold a local folder alone, among all on this machine that ask for that; `say` is told for whom it waits.

        `who` holds it, as others are told. The system lets go of it when the process ends, however it ends. Nobody is
        kept out of a remote folder: there, who writes a file says what was there before.
        """
        return self._files.alone(who, say)

    def replacing(
        self, relative: str, mode: int | None = None, before: Before = ANYTHING
    ) -> AbstractContextManager[IO[bytes]]:
        """A file to write to, which takes the place of `relative` when the block ends without an error.

        Raises ChangedError then, and changes nothing, where what is there is not what was there `before`. A local file
        has the mode, whatever the umask; None: as the umask says.
        """
        return self._files.replacing(relative, mode, before)


def until_unchanged(attempt: Callable[[], T]) -> T:
    """What an attempt to change a file gives: repeated, from reading on, where another writer came first."""
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except ChangedError:
            continue  # one of all who try is done each time
    return attempt()


def is_hidden(name: str, of: str) -> bool:
    """Whether a name is that of an unfinished file."""
    return name.startswith(f".{of}.") and name.endswith(".tmp")


def _files(url: str) -> Files:
    scheme, separator, rest = url.partition("://")
    if separator and scheme != "file":
        from np6_assets.storage.remote import RemoteFiles

        return RemoteFiles(url)
    from np6_assets.storage.local import LocalFiles

    return LocalFiles(Path(rest if separator else url).absolute())
