"""Merge runs: sorted tables become one sorted, deduplicated stream of rows, in bounded memory.

A run is a sorted sequence of sorted batches. The first and last times of the batches say which of them a bucket of time
needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from np6_assets.storage.spill import Spill

IS_STORED = "is_stored"
"""Helper column of every run: whether the row was stored before. Of two rows with one key the fetched one wins."""

BATCH_ROWS, BUCKET_ROWS = 2**11, 15_000
"""Twice as many take 90 MB more for 300 overlapping answers, and save 1 % of a day's CPU."""

OVERLAPPING_RUNS = 32
"""More overlapping runs are first merged into longer ones, half as many at once."""

ROWS_IN_MEMORY = 2**15
"""Rows that a store's runs keep in memory together; the others are spilled."""

UNBOUNDED = (-(2**62), 2**62)
"""A span of time without bounds."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """What rows are sorted by: a column of integers or times, then the key, a column of texts."""

    number: str
    key: str


EVENTS = Order("event_time", "event_id")
QUARANTINE = Order("key_hash", "event_key")


@dataclass(frozen=True)
class SortedRun:
    """Sorted batches that are read by number; with the first and last sort number and the rows of each."""

    read: Callable[[int], pa.RecordBatch]
    first: Numbers
    last: Numbers
    rows: Numbers


class RunStore(Spill):
    """Makes runs of sorted tables; small ones stay in memory, the others are spilled in small batches."""

    def __init__(self, order: Order) -> None:
        super().__init__(ROWS_IN_MEMORY)
        self._order = order

    def add(self, tables: pa.Table | Iterator[pa.Table]) -> list[SortedRun]:
        """Make a run of a sorted table, or of several that follow one another; an empty list if there are no rows."""
        reads, spans = [], []
        for table in (tables,) if isinstance(tables, pa.Table) else tables:
            batches = table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS)
            reads += self.store_batches(batches)
            for batch in batches:
                found = read_numbers(batch, self._order)
                spans.append((found[0], found[-1], len(found)))
        return [SortedRun(lambda place: reads[place](), *np.array(spans, np.int64).T)] if spans else []


def merge_runs(
    runs: Sequence[SortedRun],
    order: Order,
    span: tuple[int, int] = UNBOUNDED,
    keep: Callable[[pa.Table], pa.Table] = lambda rows: rows,
) -> Iterator[pa.Table]:
    """Yield the runs' rows in a half-open span, sorted, each key once a number; only those that `keep` returns."""
    held: dict[tuple[int, int], pa.RecordBatch] = {}  # the next bucket begins in them
    for low, high in _split_into_buckets(runs, span):
        batches = []
        for number, run in enumerate(runs):
            for place in range(int(np.searchsorted(run.last, low)), int(np.searchsorted(run.first, high))):
                if (batch := held.pop((number, place), None)) is None:
                    batch = run.read(place)
                if run.last[place] >= high:
                    held[number, place] = batch
                start, end = np.searchsorted(read_numbers(batch, order), [low, high]).tolist()
                batches.append(batch.slice(start, end - start))
        if batches:
            rows = sort_and_deduplicate(keep(pa.Table.from_batches(batches)), order)
            batches.clear()  # the memory is free while the rows are used
            yield rows


def merge_overlapping_runs(
    runs: Sequence[SortedRun], order: Order, store: RunStore, keep: Callable[[pa.Table], pa.Table] = lambda rows: rows
) -> list[SortedRun]:
    """Merge runs into fewer, so that no bucket touches more than OVERLAPPING_RUNS of them."""
    found, half = list(runs), OVERLAPPING_RUNS // 2
    while _count_overlapping(found) > OVERLAPPING_RUNS:
        groups = [found[at : at + half] for at in range(0, len(found), half)]
        found = [run for group in groups for run in store.add(merge_runs(group, order, keep=keep))]
    return found


def sort_and_deduplicate(table: pa.Table, order: Order) -> pa.Table:
    """Sort rows and keep one of each key: the fetched one; of two fetched ones always the same."""
    found = read_numbers(table, order)
    if (found[1:] < found[:-1]).any():
        by_number = np.argsort(found, kind="stable")
        table, found = table.take(pa.array(by_number)), found[by_number]
    ties = np.flatnonzero(found[1:] == found[:-1])
    if not ties.size:
        return table
    # only rows that share their number with a neighbour can be out of order or repeated
    places = np.union1d(ties, ties + 1)
    tied = table.take(pa.array(places))
    # by all columns: which of two that differ stays may not depend on the order in which they came
    first = [order.number, order.key, IS_STORED]
    names = [*first, *(name for name in tied.column_names if name not in first)]
    by_all = pc.sort_indices(tied, [(name, "ascending") for name in names]).to_numpy()
    found, keys = found[places[by_all]], tied.column(order.key).take(pa.array(by_all)).combine_chunks()
    is_repeated = (found[1:] == found[:-1]) & pc.equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    taken = np.arange(table.num_rows)
    taken[places] = places[by_all]
    return table.take(pa.array(np.delete(taken, places[1:][is_repeated])))


def read_numbers(rows: pa.Table | pa.RecordBatch, order: Order) -> Numbers:
    """Return the column of numbers that rows are sorted by."""
    column: Numbers = rows.column(order.number).cast(pa.int64()).to_numpy()
    return column


def _split_into_buckets(runs: Sequence[SortedRun], span: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Split the span into half-open buckets in which all runs together hold some BUCKET_ROWS rows."""
    if not runs:
        return
    first = np.concatenate([run.first for run in runs])
    by_first = np.argsort(first, kind="stable")
    rows = np.cumsum(np.concatenate([run.rows for run in runs])[by_first])
    edges = np.unique(first[by_first][np.searchsorted(rows, np.arange(BUCKET_ROWS, rows[-1], BUCKET_ROWS))])
    edges = edges[(edges > span[0]) & (edges < span[1])]
    yield from zip([span[0], *edges.tolist()], [*edges.tolist(), span[1]], strict=True)


def _count_overlapping(runs: Sequence[SortedRun]) -> int:
    """Count the runs that overlap at the busiest time."""
    edges = sorted([(int(run.first[0]), 1) for run in runs] + [(int(run.last[-1]) + 1, -1) for run in runs])
    return max(np.cumsum([step for _, step in edges]), default=0)
