"""A Python file object of a file in an object store: few requests, all of one version."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from np6_assets.storage.files import FileEntry

TAIL_BYTES = 2**17
"""Bytes that are read when a file is opened: all of a small file, and the footer of a large one."""

BLOCK_BYTES = 2**22
"""Bytes that are read at once of the rest."""


@dataclass(frozen=True)
class Opened:
    """A file as it was when it was opened; `tail` are its last bytes."""

    entry: FileEntry
    tail: bytes


class RemoteFile(io.RawIOBase):
    """The bytes of an opened file; `read` requests those from a start to an end. To be read through a buffer."""

    def __init__(self, opened: Opened, read: Callable[[int, int], bytes]) -> None:
        self.opened = opened
        self._read = read
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.opened.entry.size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]  # any writable buffer
        tail_at = self.opened.entry.size - len(self.opened.tail)
        if self._at >= tail_at:
            start = self._at - tail_at
            data = self.opened.tail[start : start + len(buffer)]
        else:
            data = self._read(self._at, min(self._at + len(buffer), tail_at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
