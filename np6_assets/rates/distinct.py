"""Count distinct hashes, any number of them, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
import numpy.typing as npt

_HASHES_AT_ONCE = 2**21
_BLOCK_BYTES = 2**17

Hashes = npt.NDArray[np.uint64]


class DistinctCount:
    """Counts distinct 64-bit hashes."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=2**20, prefix="np6-")  # noqa: SIM115

    def add(self, hashes: Hashes) -> None:
        """Add hashes."""
        self._file.write(hashes.tobytes())

    def absorb(self, other: DistinctCount) -> None:
        """Move all hashes of another count to this one."""
        for block in other._blocks():
            self.add(block)
        other.close()

    def count(self) -> int:
        """Count the distinct hashes."""
        shares = -(-(self._file.seek(0, 2) // 8) // _HASHES_AT_ONCE)
        return sum(
            len(np.unique(np.concatenate([block[block % shares == share] for block in self._blocks()])))
            for share in range(shares)
        )

    def close(self) -> None:
        """Free memory and disk."""
        self._file.close()

    def _blocks(self) -> Iterator[Hashes]:
        self._file.seek(0)
        while block := self._file.read(_BLOCK_BYTES):
            yield np.frombuffer(block, np.uint64)
