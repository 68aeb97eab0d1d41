"""Make the disk of the data folder full after some bytes, so that a write of the project fails halfway."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from np6_assets.storage.files import ANY_VERSION, ExpectedVersion, Folder


class _LimitedFile(io.RawIOBase):
    """A file on a disk with `free["bytes"]` left; all files of the disk share the dict."""

    def __init__(self, file: IO[bytes], free: dict[str, int]) -> None:
        self._file = file
        self._free = free

    def writable(self) -> bool:
        """Return True, as any file that is open for writing."""
        return True

    def write(self, data: Any) -> int:
        """Write what fits; raise ENOSPC if that is not all."""
        self._file.write(bytes(data)[: self._free["bytes"]])
        fits = len(data) <= self._free["bytes"]
        self._free["bytes"] = max(self._free["bytes"] - len(data), 0)
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


def limit_disk(free_bytes: int) -> None:
    """Let this process write so many bytes into its data folder, and no more."""
    free = {"bytes": free_bytes}
    replace = Folder.replace

    @contextmanager
    def replace_on_limited_disk(
        folder: Folder, relative: str, mode: int | None = None, before: ExpectedVersion = ANY_VERSION
    ) -> Iterator[IO[bytes]]:
        with replace(folder, relative, mode, before) as file:
            yield _LimitedFile(file, free)  # type: ignore[misc]

    Folder.replace = replace_on_limited_disk  # type: ignore[method-assign]
