"""A disk that is full after some bytes: what the project writes into its data folder then fails, halfway through."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from np6_assets.storage.files import ExpectedVersion
from np6_assets.storage.local import LocalFiles


class _Written(io.RawIOBase):
    """A file on that disk."""

    def __init__(self, file: IO[bytes], disk: dict[str, int]) -> None:
        self._file = file
        self._disk = disk

    def writable(self) -> bool:
        """As a file has it."""
        return True

    def write(self, data: Any) -> int:
        """Write as much as fits."""
        self._file.write(bytes(data)[: self._disk["left"]])
        self._disk["left"] -= len(data)
        if self._disk["left"] < 0:
            self._disk["left"] = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


def fill(left: int) -> None:
    """Let the process' data folder be on a disk with so many bytes left."""
    disk = {"left": left}
    replacing = LocalFiles.replace

    @contextmanager
    def on_full_disk(
        files: LocalFiles, relative: str, mode: int | None, before: ExpectedVersion
    ) -> Iterator[IO[bytes]]:
        with replacing(files, relative, mode, before) as file:
            yield _Written(file, disk)  # type: ignore[misc]

    LocalFiles.replace = on_full_disk  # type: ignore[method-assign]
