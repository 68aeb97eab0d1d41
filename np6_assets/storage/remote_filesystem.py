"""A remote folder as an fsspec file system, which DuckDB and pyarrow accept.

Not obstore's own: DuckDB opens a file several times and asks its size and time each time, each of which would be a
request.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

if TYPE_CHECKING:
    from np6_assets.storage.files import FileEntry
    from np6_assets.storage.remote import CachedFiles

_MAGIC = re.compile(r"[*?\[]")


class RemoteFilesystem(AbstractFileSystem):  # type: ignore[misc]  # ships no types
    """The files below one address, to read; paths are addresses."""

    cachable = False

    def __init__(self, files: CachedFiles, protocol: str) -> None:
        super().__init__()
        self.protocol = protocol
        self._files = files

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        """Open a file."""
        return self._files.open(self._files.relative(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether a file exists."""
        return self._files.entry(self._files.relative(path)) is not None

    isfile = exists

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""
        return self._entry(path).size

    def modified(self, path: str) -> datetime:
        """Return when a file was written."""
        return self._entry(path).modified

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, type and size of a file or folder."""
        if self.exists(path):
            return {"name": path, "type": "file", "size": self.size(path)}
        if self._files.find(self._files.relative(path)):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def find(self, path: str, *_: Any, detail: bool = False, **__: Any) -> Any:
        """List the files below a folder, sorted; with `detail` the info of each."""
        found = sorted(map(self._files.path, self._files.find(self._files.relative(path))))
        return {one: self.info(one) for one in found} if detail else found

    def glob(self, path: str, **_: Any) -> list[str]:
        """List the files whose address matches a pattern, sorted."""
        if (magic := _MAGIC.search(path)) is None:
            return [path] if self.exists(path) else []
        pattern = re.compile(glob_translate(path))
        return [found for found in self.find(path[: magic.start()].rpartition("/")[0]) if pattern.fullmatch(found)]

    def copy_listings(self, other: RemoteFilesystem) -> None:
        """Copy the listings of another file system of the same folder."""
        self._files.copy_listings(other._files)

    def _entry(self, path: str) -> FileEntry:
        entry = self._files.entry(self._files.relative(path))
        if entry is None:
            raise FileNotFoundError(path)
        return entry
