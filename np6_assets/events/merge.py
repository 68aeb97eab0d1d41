"""Runs and their merge: sorted tables become one sorted stream of rows without duplicates, in bounded memory.

A run is a sequence of sorted batches that is itself sorted. Which batches a bucket of time needs is known from the
batches' first and last times.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IS_STORED = "is_stored"
"""A helper column of every run: whether the row was stored before. Of two rows with one key the fetched one wins."""

BATCH_ROWS = 2**12
BUCKET_ROWS = 30_000
OVERLAPPING_RUNS = 32
"""More runs at one time are merged into longer ones first, half as many at once."""

ROWS_IN_MEMORY = 2**15
"""Rows of the runs that are kept in memory together; the others are spilled."""

ALWAYS = (-(2**62), 2**62)
"""A span of time without bounds."""

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """What rows are sorted by: a column of whole numbers or times, then a column of texts, the key."""

    number: str
    key: str


EVENTS = Order("event_time", "event_id")
QUARANTINE = Order("key_hash", "event_key")


@dataclass(frozen=True)
class Run:
    """Sorted batches, read by number, with the first and last number of each and how many rows it has."""

    read: Callable[[int], pa.RecordBatch]
    first: Numbers
    last: Numbers
    rows: Numbers


class RunStore:
    """Makes runs of sorted tables: in memory while they are small, else in an anonymous file, in small batches."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lock = threading.Lock()
        self._rows_in_memory = 0
        self._file: IO[bytes] | None = None
        self._end = 0

    def add(self, tables: pa.Table | Iterator[pa.Table]) -> Run | None:
        """A run of a sorted table, or of several that follow one another; None of no rows."""
        reads, spans = [], []
        for table in (tables,) if isinstance(tables, pa.Table) else tables:
            keep = self._is_kept(table.num_rows)
            for batch in table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS):
                found = numbers(batch, self._order)
                reads.append(_Kept(batch) if keep else self._spill(batch))
                spans.append((found[0], found[-1], len(found)))
        if not spans:
            return None
        return Run(lambda place: reads[place](), *np.array(spans, np.int64).T)

    def close(self) -> None:
        """Give the disk space back."""
        if self._file is not None:
            self._file.close()

    def _is_kept(self, rows: int) -> bool:
        with self._lock:
            keep = self._rows_in_memory + rows <= ROWS_IN_MEMORY
            self._rows_in_memory += rows if keep else 0
            return keep

    def _spill(self, batch: pa.RecordBatch) -> _Spilled:
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
        return _Spilled(self._file, place, buffer.size)


@dataclass(frozen=True)
class _Kept:
    batch: pa.RecordBatch

    def __call__(self) -> pa.RecordBatch:
        return self.batch


@dataclass(frozen=True)
class _Spilled:
    file: IO[bytes]
    place: int
    size: int

    def __call__(self) -> pa.RecordBatch:
        with pa.ipc.open_stream(os.pread(self.file.fileno(), self.size, self.place)) as reader:
            return reader.read_next_batch()


def merge(
    runs: Sequence[Run],
    order: Order,
    span: tuple[int, int] = ALWAYS,
    keep: Callable[[pa.Table], pa.Table] = lambda rows: rows,
) -> Iterator[pa.Table]:
    """The runs' rows in a half-open span, sorted, each key once a number; only those that `keep` lets through."""
    for low, high in _buckets(runs, span):
        batches = [
            batch.slice(*_between(numbers(batch, order), low, high))
            for run in runs
            for batch in map(run.read, range(*_overlap(run, low, high)))
        ]
        if batches:
            yield sorted_unique(keep(pa.Table.from_batches(batches)), order)


def merge_before(
    runs: Sequence[Run], order: Order, store: RunStore, keep: Callable[[pa.Table], pa.Table] = lambda rows: rows
) -> list[Run]:
    """The same rows in fewer runs, so that no bucket touches more than OVERLAPPING_RUNS of them."""
    found, half = list(runs), OVERLAPPING_RUNS // 2
    while _overlapping(found) > OVERLAPPING_RUNS:
        merged = (store.add(merge(found[at : at + half], order, keep=keep)) for at in range(0, len(found), half))
        found = [run for run in merged if run is not None]
    return found


def sorted_unique(table: pa.Table, order: Order) -> pa.Table:
    """The rows sorted, each key once a number: of two the fetched one, of two fetched ones always the same."""
    found = numbers(table, order)
    if (found[1:] < found[:-1]).any():
        by_number = np.argsort(found, kind="stable")
        table, found = table.take(pa.array(by_number)), found[by_number]
    ties = np.flatnonzero(found[1:] == found[:-1])
    if not ties.size:
        return table
    # only rows that share their number with a neighbour can be out of order or repeated
    places = np.union1d(ties, ties + 1)
    columns = [order.number, order.key, IS_STORED]
    by_all, repeated, is_fetched_twice = _tied(table.select(columns).take(pa.array(places)), order)
    if is_fetched_twice:
        # which of two that differ stays may not depend on the order in which they came
        tied = table.take(pa.array(places))
        by_all, repeated, _ = _tied(tied.select([*columns, *(set(tied.column_names) - set(columns))]), order)
    taken = np.arange(table.num_rows)
    taken[places] = places[by_all]
    return table.take(pa.array(np.delete(taken, places[1:][repeated])))


def numbers(rows: pa.Table | pa.RecordBatch, order: Order) -> Numbers:
    """The column of numbers that rows are sorted by."""
    column: Numbers = rows.column(order.number).cast(pa.int64()).to_numpy()
    return column


def _tied(rows: pa.Table, order: Order) -> tuple[Numbers, npt.NDArray[np.bool_], bool]:
    """The rows' order by all columns, which of the next ones repeat the one before, and whether both were fetched."""
    places = pc.sort_indices(rows, [(name, "ascending") for name in rows.column_names]).to_numpy()
    found, stored = numbers(rows, order)[places], rows.column(IS_STORED).to_numpy()[places]
    keys = rows.column(order.key).take(pa.array(places)).combine_chunks()
    repeated = (found[1:] == found[:-1]) & pc.equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return places, repeated, bool((repeated & ~stored[1:]).any()) and rows.num_columns == 3


def _buckets(runs: Sequence[Run], span: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Half-open pieces of the span in which all runs together hold some BUCKET_ROWS rows."""
    if not runs:
        return
    first = np.concatenate([run.first for run in runs])
    by_first = np.argsort(first, kind="stable")
    rows = np.cumsum(np.concatenate([run.rows for run in runs])[by_first])
    edges = np.unique(first[by_first][np.searchsorted(rows, np.arange(BUCKET_ROWS, rows[-1], BUCKET_ROWS))])
    edges = edges[(edges > span[0]) & (edges < span[1])]
    yield from zip([span[0], *edges.tolist()], [*edges.tolist(), span[1]], strict=True)


def _overlap(run: Run, low: int, high: int) -> tuple[int, int]:
    """From which to before which batch a run has rows in a span."""
    return int(np.searchsorted(run.last, low)), int(np.searchsorted(run.first, high))


def _between(found: Numbers, low: int, high: int) -> tuple[int, int]:
    """Offset and length of the sorted numbers in a span."""
    start, end = np.searchsorted(found, [low, high]).tolist()
    return start, end - start


def _overlapping(runs: Sequence[Run]) -> int:
    """The most runs that there are at one time."""
    edges = sorted([(int(run.first[0]), 1) for run in runs] + [(int(run.last[-1]) + 1, -1) for run in runs])
    return max(np.cumsum([step for _, step in edges]), default=0)
