"""A remote folder as an fsspec file system, which DuckDB and pyarrow accept.

Not obstore's own: DuckDB opens a file several times and asks its size and time each time, each of which would be a
request.
"""

from __future__ import annotations

from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

if TYPE_CHECKING:
    from np6_assets.storage.remote import RemoteFolder


class RemoteFilesystem(AbstractFileSystem):  # type: ignore[misc]  # ships no types
    """The files below one address, to read; paths are addresses."""

    cachable = False

    def __init__(self, folder: RemoteFolder, protocol: str) -> None:
        super().__init__()
        self.protocol = protocol
        self._folder = folder

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def _open(self, path: str, *_: Any, **__: Any) -> IO[bytes]:
        return self._folder.open(self._folder.relative(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether a file exists; unlike fsspec's own, an error is raised."""
        return self._folder.exists(self._folder.relative(path))

    isfile = exists

    def modified(self, path: str) -> datetime:
        """Return when a file was written."""
        return self.info(path)["mtime"]  # type: ignore[no-any-return]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, type, size and time of a file or folder."""
        relative = self._folder.relative(path)
        if (entry := self._folder.find_entry(relative)) is not None:
            return {"name": path, "type": "file", "size": entry.size, "mtime": entry.modified}
        if self._folder.find(relative):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def find(self, path: str, *_: Any, detail: bool = False, **__: Any) -> Any:
        """List the files below a folder, sorted; with `detail` the info of each."""
        found = sorted(map(self._folder.path, self._folder.find(self._folder.relative(path))))
        return {one: self.info(one) for one in found} if detail else found
