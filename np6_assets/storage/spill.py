"""Record batches that are read again: few stay in memory, the others are spilled to an anonymous file."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO

import pyarrow as pa

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


class Spill:
    """Stores batches: so many rows in memory, the others on disk. Safe to share between threads."""

    def __init__(self, rows_in_memory: int) -> None:
        self._rows_left = rows_in_memory
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._end = 0

    @property
    def is_on_disk(self) -> bool:
        """Whether any batch was spilled."""
        return self._file is not None

    def store_batches(self, batches: Sequence[pa.RecordBatch]) -> list[Callable[[], pa.RecordBatch]]:
        """Store batches and return a function for each that reads it again."""
        rows = sum(batch.num_rows for batch in batches)
        with self._lock:
            if fits := rows <= self._rows_left:
                self._rows_left -= rows
        return [partial(_return_batch, batch) if fits else self._spill_batch(batch) for batch in batches]

    def close(self) -> None:
        """Free the disk space."""
        if self._file is not None:
            self._file.close()

    def _spill_batch(self, batch: pa.RecordBatch) -> Callable[[], pa.RecordBatch]:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=_LZ4) as writer:
            writer.write_batch(batch)
        buffer = sink.getvalue()
        with self._lock:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="np6-")  # noqa: SIM115
            place, self._end = self._end, self._end + buffer.size
            self._file.write(buffer)
            self._file.flush()
        return partial(_read_batch, self._file, place, buffer.size)


def _return_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def _read_batch(file: IO[bytes], place: int, size: int) -> pa.RecordBatch:
    with pa.ipc.open_stream(os.pread(file.fileno(), size, place)) as reader:
        return reader.read_next_batch()
