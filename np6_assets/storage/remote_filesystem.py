"""A remote folder as DuckDB and pyarrow read it: an fsspec file system, which is the door that both have.

Not obstore's own: DuckDB opens a file several times and asks its size and time each time, and each would be a request.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

if TYPE_CHECKING:
    from np6_assets.storage.files import Entry
    from np6_assets.storage.remote import ListedFiles

_MAGIC = re.compile(r"[*?\[]")


class RemoteFilesystem(AbstractFileSystem):  # type: ignore[misc]  # ships no types
    """The files below one address, to be read; paths are addresses."""

    cachable = False

    def __init__(self, files: ListedFiles, protocol: str) -> None:
        super().__init__()
        self.protocol = protocol
        self._files = files

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        """A file."""
        return self._files.open(self._files.relative(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether a file is there."""
        return self._files.entry(self._files.relative(path)) is not None

    isfile = exists

    def size(self, path: str) -> int:
        """Size of a file in bytes."""
        return self._entry(path).size

    def modified(self, path: str) -> datetime:
        """When a file was written."""
        return self._entry(path).modified

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What is known of a file, or of a folder."""
        if self.exists(path):
            return {"name": path, "type": "file", "size": self.size(path)}
        if self._files.find(self._files.relative(path)):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def find(self, path: str, *_: Any, detail: bool = False, **__: Any) -> Any:
        """The files below a folder, in order; with `detail` what is known of each."""
        found = sorted(map(self._files.path, self._files.find(self._files.relative(path))))
        return {one: self.info(one) for one in found} if detail else found

    def glob(self, path: str, **_: Any) -> list[str]:
        """The files whose address is of a pattern, in order."""
        if (magic := _MAGIC.search(path)) is None:
            return [path] if self.exists(path) else []
        pattern = re.compile(glob_translate(path))
        return [found for found in self.find(path[: magic.start()].rpartition("/")[0]) if pattern.fullmatch(found)]

    def adopt(self, other: RemoteFilesystem) -> None:
        """Take over what another one of the same folder has listed."""
        self._files.adopt(other._files)

    def _entry(self, path: str) -> Entry:
        entry = self._files.entry(self._files.relative(path))
        if entry is None:
            raise FileNotFoundError(path)
        return entry
