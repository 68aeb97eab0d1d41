"""Ordering: rows that arrive in any order leave sorted and unique, in bounded memory.

An external merge sort. Rows are kept in memory while they are few; past that they go, as sorted runs, into anonymous
files. Feeds that the API sorted make a single run, which can be read while it is still being written.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

ROWS_IN_MEMORY = 2**15
_ROWS_PER_BATCH = 2**14
_FAN_IN = 8
_ROWS_PER_PASS = 2**20

Times = npt.NDArray[np.int64]

Known: TypeAlias = Callable[[Sequence[str] | None], Iterator[pa.Table]]
"""Reads the named columns, or all, of rows that are there already, sorted and unique; as often as it is called."""


class OutOfOrderError(Exception):
    """Rows that were read while they came in were not all in their place; they have to be read anew once all are in."""


class Ordering:
    """Takes tables of one schema, gives them back sorted by (`event_time`, `identity`) and unique on `identity`.

    Where the same identity comes with several times, the earliest stays. `hash_column` is a 64-bit hash of the
    identity that the tables carry beside it, and is not given back; without one, only rows that are alike in both
    time and identity count as the same. `known` reads rows that are there already, in order. One thread may add
    while another reads.
    """

    def __init__(
        self,
        identity: str,
        hash_column: str | None = None,
        rows_in_memory: int = ROWS_IN_MEMORY,
        known: Known | None = None,
    ) -> None:
        self._rows_in_memory = rows_in_memory
        self._identity = identity
        self._hash_column = hash_column
        self._known = known
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._runs: list[_Run] = []
        self._ledger = Ledger()
        self._is_complete = False
        self._is_closed = False
        self._changed = threading.Condition()
        self.rows = 0
        """Rows taken so far, repeated ones included."""

    def add(self, table: pa.Table) -> None:
        """Take rows, in any order."""
        if not table.num_rows:
            return
        self.rows += table.num_rows
        if self._hash_column is not None:
            self._ledger.add(table.column(self._hash_column).to_numpy(), _times(table))
        self._hold(table)

    def absorb(self, other: Ordering) -> None:
        """Take over all that another ordering of the same schema holds."""
        self.rows += other.rows
        self._ledger.absorb(other._ledger)
        self._runs += other._runs
        other._runs = []
        self._compact()
        for table in other._pending:
            self._hold(table)
        other._pending = []

    def complete(self) -> None:
        """No more rows will come."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    def tables(self) -> Iterator[pa.Table]:
        """The rows, once all are in: sorted and unique, in tables of some thousands."""
        ambiguous = self._ambiguous()
        seen: set[str] = set()
        for unique in self._merge([*self._known_rows(), *(run.tables() for run in self._runs), self._rest()]):
            if ambiguous.size and self._hash_column is not None:
                unique = self._first_of_each(unique, ambiguous, seen)
            yield self._stored(unique)

    def tables_so_far(self) -> Iterator[pa.Table]:
        """The same tables while the rows are still coming in.

        Raises OutOfOrderError where what was given turns out not to be what `tables` will give, or when it is closed.
        """
        with self._changed:
            if self._is_closed:
                raise OutOfOrderError
            is_complete = self._is_complete
        if is_complete:
            yield from self.tables()
            return
        for unique in self._merge([*self._known_rows(), self._coming()]):
            yield self._stored(unique)
        if self._ambiguous().size:
            raise OutOfOrderError

    def close(self) -> None:
        """Give memory and disk back."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._ledger.close()
            for run in self._runs:
                run.close()
            self._pending, self._runs = [], []

    def _stored(self, table: pa.Table) -> pa.Table:
        return table if self._hash_column is None else table.drop_columns([self._hash_column])

    def _known_rows(self) -> list[Iterator[pa.Table]]:
        return [] if self._known is None else [self._known(None)]

    def _ambiguous(self) -> npt.NDArray[np.uint64]:
        """The hashes of the identities that come with more than one time."""
        if self._known is not None and self._hash_column is not None:
            for table in self._known((self._identity, "event_time")):
                self._ledger.add(table.column(self._hash_column).to_numpy(), _times(table))
        return self._ledger.ambiguous()

    def _rest(self) -> Iterator[pa.Table]:
        """The rows that are in memory, sorted by time."""
        if self._pending:
            yield _by_time(pa.concat_tables(self._pending))

    def _coming(self) -> Iterator[pa.Table]:
        """The rows of the only run while it is written, and then those that are left in memory."""
        with self._changed:
            self._changed.wait_for(lambda: self._runs or self._is_complete or self._is_closed)
            run = self._runs[0] if self._runs else None
            written = run.tables(self._wait_for_more) if run is not None else iter(())
        yield from written
        self._wait_for_more(lambda: False)
        for table in self._rest():
            if run is not None and _span(table)[0] < run.last:
                raise OutOfOrderError
            yield table

    def _wait_for_more(self, is_there: Callable[[], bool]) -> None:
        """Wait until something is there, or everything is. Raises OutOfOrderError where there is a second run."""
        with self._changed:
            self._changed.wait_for(lambda: is_there() or self._is_complete or self._is_closed or len(self._runs) > 1)
            if self._is_closed or len(self._runs) > 1:
                raise OutOfOrderError

    # --- runs -----------------------------------------------------------------------------------------------------

    def _hold(self, table: pa.Table) -> None:
        self._pending.append(table)
        self._pending_rows += table.num_rows
        if self._pending_rows >= self._rows_in_memory:
            self._flush()

    def _flush(self) -> None:
        table = self._sorted_unique(pa.concat_tables(self._pending))
        first, last = _span(table)
        fitting = [run for run in self._runs if run.last <= first]
        run = max(fitting, key=lambda run: run.last) if fitting else _Run(table.schema)
        run.write(table, last)
        with self._changed:
            self._pending, self._pending_rows = [], 0
            if not fitting:
                self._runs.append(run)
            self._changed.notify_all()
        self._compact()

    def _compact(self) -> None:
        """Merge runs while they are too many to be merged at once."""
        while len(self._runs) >= _FAN_IN:
            merged = _Run(self._runs[0].schema)
            for table in self._merge([run.tables() for run in self._runs[:_FAN_IN]]):
                merged.write(table, _span(table)[1])
            with self._changed:
                for run in self._runs[:_FAN_IN]:
                    run.close()
                self._runs = [*self._runs[_FAN_IN:], merged]

    def _merge(self, sources: list[Iterator[pa.Table]]) -> Iterator[pa.Table]:
        """Merge sources that are each sorted by time; what comes out is sorted by (time, identity).

        Rows of one time are never in two of the tables.
        """
        heads = [_Head(source) for source in sources]
        while heads := [head for head in heads if head.fill()]:
            # all rows before this time are in the heads by now
            horizon = min((head.last for head in heads if not head.exhausted), default=None)
            ready = [rows for head in heads if (rows := head.take_before(horizon)).num_rows]
            if ready:
                yield self._sorted_unique(pa.concat_tables(ready))
            else:
                for head in heads:
                    head.lengthen()

    def _sorted_unique(self, table: pa.Table) -> pa.Table:
        """The rows sorted by (time, identity), and of those that are alike in both the least in all columns."""
        table = _by_time(table)
        times = _times(table)
        ties = np.flatnonzero(times[1:] == times[:-1])
        if not ties.size:
            return table
        # only rows that share their time with a neighbour can be out of order or repeated
        places = np.union1d(ties, ties + 1)
        tied = pa.table({"time": times[places], "identity": table.column(self._identity).take(pa.array(places))})
        order = pc.sort_indices(tied, [("time", "ascending"), ("identity", "ascending")]).to_numpy()
        if (order[1:] < order[:-1]).any():
            indices = np.arange(table.num_rows)
            indices[places] = places[order]
            table = table.take(pa.array(indices))
        tied = tied.take(pa.array(order))
        alike = pc.and_(*(pc.equal(column[1:], column[:-1]) for column in tied.itercolumns()))
        repeated = places[1:][alike.to_numpy()]
        return self._without(table, repeated) if repeated.size else table

    def _without(self, table: pa.Table, repeated: npt.NDArray[np.int64]) -> pa.Table:
        rest = [(name, "ascending") for name in table.column_names if name not in ("event_time", self._identity)]
        table = table.sort_by([("event_time", "ascending"), (self._identity, "ascending"), *rest])
        keep = np.ones(table.num_rows, bool)
        keep[repeated] = False
        return table.filter(pa.array(keep))

    def _first_of_each(self, table: pa.Table, ambiguous: npt.NDArray[np.uint64], seen: set[str]) -> pa.Table:
        assert self._hash_column is not None
        suspects = np.flatnonzero(np.isin(table.column(self._hash_column).to_numpy(), ambiguous))
        keep = np.ones(table.num_rows, bool)
        identities = table.column(self._identity)
        for place in suspects:
            identity = identities[int(place)].as_py()
            keep[place] = identity not in seen
            seen.add(identity)
        return table.filter(pa.array(keep)) if suspects.size else table


class _Run:
    """Rows sorted by time in an anonymous file, as an Arrow stream. Can be read several times, and while it grows."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.last = np.iinfo(np.int64).min
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0, prefix="np6-")  # noqa: SIM115
        self._writer = pa.ipc.new_stream(self._file, schema)
        self._batches = 0

    def write(self, table: pa.Table, last: int) -> None:
        batches = table.to_batches(max_chunksize=_ROWS_PER_BATCH)
        for batch in batches:
            self._writer.write_batch(batch)
        self.last = last
        self._batches += len(batches)

    def tables(self, wait_for: Callable[[Callable[[], bool]], None] = lambda is_there: None) -> Iterator[pa.Table]:
        """The rows. `wait_for` comes back once the function that it is given says yes, or once no more will come."""
        return self._read(_FromStart(self._file.fileno()), wait_for)

    def _read(self, file: _FromStart, wait_for: Callable[[Callable[[], bool]], None]) -> Iterator[pa.Table]:
        taken = 0

        def is_more() -> bool:
            return self._batches > taken

        with file, pa.ipc.open_stream(file) as reader:
            wait_for(is_more)
            while is_more():
                yield pa.Table.from_batches([reader.read_next_batch()])
                taken += 1
                wait_for(is_more)

    def close(self) -> None:
        self._file.close()


class _FromStart(io.RawIOBase):
    """Reads a file from its start, wherever others read or write in it, and whether or not they close it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._place = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = os.preadv(self._descriptor, [buffer], self._place)
        self._place += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class _Head:
    """The rows of a source that are next in line."""

    def __init__(self, source: Iterator[pa.Table]) -> None:
        self._source = source
        self._rows: pa.Table | None = None
        self.exhausted = False

    @property
    def last(self) -> int:
        assert self._rows is not None
        return _span(self._rows)[1]

    def fill(self) -> bool:
        """Have rows in line; False where the source has none left."""
        if self._rows is None:
            self.lengthen()
        return self._rows is not None

    def lengthen(self) -> None:
        """Put the source's next rows behind those in line."""
        rows = next(self._source, None)
        if rows is None:
            self.exhausted = True
        elif rows.num_rows:
            self._rows = rows if self._rows is None else pa.concat_tables([self._rows, rows])

    def take_before(self, horizon: int | None) -> pa.Table:
        """Take the rows in line before a time; all of them without one."""
        assert self._rows is not None
        count = self._rows.num_rows
        if horizon is not None:
            count = int(np.searchsorted(_times(self._rows), horizon, side="left"))
        taken, rest = self._rows.slice(0, count), self._rows.slice(count)
        self._rows = rest if rest.num_rows else None
        return taken


class Ledger:
    """The hash of every identity with its time, to find identities that come with several times.

    Holds any number of them in bounded memory. Where every row has a time of its own, these are all that are repeated.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=2**20, prefix="np6-")  # noqa: SIM115

    def add(self, hashes: npt.NDArray[np.uint64], times: Times) -> None:
        """Take pairs."""
        self._file.write(np.column_stack([hashes.view(np.int64), times]).tobytes())

    def absorb(self, other: Ledger) -> None:
        """Take over all pairs of another one."""
        for pairs in other._blocks():
            self._file.write(pairs.tobytes())
        other.close()

    def ambiguous(self) -> npt.NDArray[np.uint64]:
        """The hashes that stand with more than one time."""
        found = [self._ambiguous_of(pairs) for pairs in self._shares()]
        return np.concatenate(found) if found else np.empty(0, np.uint64)

    def distinct(self) -> int:
        """How many different hashes there are."""
        hashes = (np.sort(pairs[:, 0]) for pairs in self._shares())
        return sum(1 + int(np.count_nonzero(each[1:] != each[:-1])) for each in hashes if each.size)

    def _shares(self) -> Iterator[npt.NDArray[np.int64]]:
        """The pairs, each hash in one of the shares, and as many at once as memory is meant for."""
        rows = self._file.seek(0, 2) // 16
        shares = -(-rows // _ROWS_PER_PASS)
        for share in range(shares):
            yield np.concatenate([pairs[pairs[:, 0].view(np.uint64) % shares == share] for pairs in self._blocks()])

    def _ambiguous_of(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        hashes = np.sort(pairs[:, 0])
        repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if not repeated.size:
            return np.empty(0, np.uint64)
        distinct = np.unique(pairs[np.isin(pairs[:, 0], repeated)], axis=0)[:, 0]
        return np.unique(distinct[1:][distinct[1:] == distinct[:-1]]).view(np.uint64)

    def _blocks(self) -> Iterator[npt.NDArray[np.int64]]:
        self._file.seek(0)
        while block := self._file.read(16 * _ROWS_PER_BATCH):
            yield np.frombuffer(block, np.int64).reshape(-1, 2)

    def close(self) -> None:
        """Give memory and disk back."""
        self._file.close()


def _times(table: pa.Table) -> Times:
    times: Times = table.column("event_time").cast(pa.int64()).to_numpy()
    return times


def _span(table: pa.Table) -> tuple[int, int]:
    """The first and the last time of a table that is sorted by time."""
    ends = _times(table.take([0, table.num_rows - 1]))
    return int(ends[0]), int(ends[1])


def _by_time(table: pa.Table) -> pa.Table:
    times = _times(table)
    if (times[1:] >= times[:-1]).all():
        return table
    return table.take(pa.array(np.argsort(times, kind="stable")))
