"""A Python file object of a file in an object store: few requests, all of one version."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

from np6_assets.storage.files import FileEntry

TAIL_BYTES = 2**17
"""Bytes that are read when a file is opened: all of a small file, and the footer of a large one."""

BLOCK_BYTES = 2**22
"""Bytes that are read at once of the rest."""

_BLOCKS_KEPT = 4


class RemoteFile(io.RawIOBase):
    """A file with that `entry`; `tail` are its last bytes, `read` reads others. For one thread at a time."""

    def __init__(self, entry: FileEntry, tail: bytes, read: Callable[[int, int], bytes]) -> None:
        self.entry = entry
        self.tail = tail
        self._tail_at = entry.size - len(tail)
        self._at = 0

        @lru_cache(maxsize=_BLOCKS_KEPT)
        def block(number: int) -> bytes:
            start = number * BLOCK_BYTES
            return read(start, min(start + BLOCK_BYTES, self._tail_at))

        self._block = block

    def readable(self) -> bool:
        """As a file has it."""
        return True

    def seekable(self) -> bool:
        """As a file has it."""
        return True

    def tell(self) -> int:
        """As a file has it."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file has it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.entry.size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readall(self) -> bytes:
        """As a file has it."""
        return self.read(-1)

    def read(self, size: int = -1, /) -> bytes:
        """As a file has it."""
        end = self.entry.size if size < 0 else min(self._at + size, self.entry.size)
        pieces = []
        while self._at < end:
            piece = self._read_piece(end)
            pieces.append(piece)
            self._at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]  # any writable buffer
        """As a file has it."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read_piece(self, end: int) -> bytes:
        """Return the cached or next block of bytes from here to `end`."""
        if self._at >= self._tail_at:
            return self.tail[self._at - self._tail_at : end - self._tail_at]
        number, start = divmod(self._at, BLOCK_BYTES)
        return self._block(number)[start : start + end - self._at]
