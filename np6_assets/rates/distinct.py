"""How many different hashes there are, of any number of them, in bounded memory."""

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
    """Takes 64-bit hashes and counts different ones."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=2**20, prefix="np6-")  # noqa: SIM115

    def add(self, hashes: Hashes) -> None:
        """Take hashes."""
        self._file.write(hashes.tobytes())

    def absorb(self, other: DistinctCount) -> None:
        """Take over all hashes of another one."""
        for block in other._blocks():
            self.add(block)
        other.close()

    def count(self) -> int:
        """How many different ones there are."""
        shares = -(-(self._file.seek(0, 2) // 8) // _HASHES_AT_ONCE)
        return sum(
            len(np.unique(np.concatenate([block[block % shares == share] for block in self._blocks()])))
            for share in range(shares)
        )

    def close(self) -> None:
        """Give memory and disk back."""
        self._file.close()

    def _blocks(self) -> Iterator[Hashes]:
        self._file.seek(0)
        while block := self._file.read(_BLOCK_BYTES):
            yield np.frombuffer(block, np.uint64)
