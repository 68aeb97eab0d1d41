"""A disk that is full at some point, as an fsspec file system: `full://`."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem


class FullDisk(DirFileSystem):
    """The folder SOAK_DISK, on a disk with SOAK_BYTES bytes left, which then refuses."""

    protocol = "full"
    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(os.environ["SOAK_DISK"], LocalFileSystem(), **options)
        self._left = int(os.environ.get("SOAK_BYTES", sys.maxsize))

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("full://").strip("/")

    def unstrip_protocol(self, name: str) -> str:
        """The address of a file."""
        return f"full://{self._strip_protocol(name)}"

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        """Copy a file onto the disk, as much of it as fits."""
        with open(lpath, "rb") as source, self.open(rpath, "wb") as target:  # noqa: PTH123 - it has no path, but a number
            while block := source.read(2**14):
                target.write(block[: self._left])
                self._left -= len(block)
                if self._left < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), rpath)
