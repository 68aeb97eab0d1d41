"""A day's rows: what its requests brought and what was stored, merged into one stream, and the facts about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from np6_assets.events.decode import Decoder, key_hashes
from np6_assets.events.fetch import FetchedDay
from np6_assets.events.json_sql import ID_HASH
from np6_assets.events.merge import EVENTS, IS_STORED, QUARANTINE, Run, RunStore, merge, merge_before, numbers
from np6_assets.events.reasons import Reasons, reasons_of
from np6_assets.events.reject import parsed
from np6_assets.events.store import EventStore
from np6_assets.partitions import milliseconds

CLOCK_SKEW = timedelta(minutes=1)
"""How long before its send an event may seem to happen: the two times come from clocks of different machines, which
differ by seconds at worst, while a wrong unit or zone is wrong by minutes at least."""


class RepeatedIdsError(Exception):
    """Rows that were merged hold an id at two times: the day has to be merged again, without the rows that lose."""


@dataclass
class Facts:
    """What a merge found out about a day.

    `kept` counts stored events inside the window asked that the answer did not bring; `early` those published before
    their send by more than CLOCK_SKEW, at most by `earliest` ms; `identities` are the agencies with their customers.
    """

    rows: int = 0
    kept: int = 0
    early: int = 0
    earliest: int = 0
    rejected: int = 0
    reasons: Reasons = field(default_factory=Reasons)
    identities: set[tuple[str | None, str | None]] = field(default_factory=set)


class MergedDay:
    """One day, to be written. `is_filtered`: receivers were erased since its events were decoded."""

    def __init__(self, fetched: FetchedDay, store: EventStore, decoder: Decoder, *, is_filtered: bool = False) -> None:
        self.fetched = fetched
        self._is_filtered = is_filtered
        self.facts = Facts()
        self._store = store
        self._decoder = decoder
        self._winners: dict[str, int] | None = None

    def tables(self) -> Iterator[pa.Table]:
        """The rows in the kind's schema, sorted, each id once; the quarantine is written after the last.

        Raises RepeatedIdsError at the end where an id came at two times; then it is to be called again.
        """
        self.facts = Facts()
        plan = self.fetched.plan
        with ExitStack() as stack:
            store = stack.enter_context(closing(RunStore(EVENTS)))
            stored = stack.enter_context(self._store.runs(plan.day, plan.kept, self._decoder))
            runs = [*stored, *merge_before(self.fetched.found.runs, EVENTS, store)]
            rejected = self._rejected(stack)
            hashes = np.empty(sum(int(run.rows.sum()) for run in runs), np.uint64)
            for table in self._merged(runs):
                hashes[self.facts.rows : self.facts.rows + table.num_rows] = table.column(ID_HASH).to_numpy()
                self._count(table)
                rejected.accept(table)
                yield table.select(self._decoder.kind.schema.names)
            if self._winners is None and (repeated := _repeated(hashes[: self.facts.rows])).size:
                self._winners = _times_that_stay(self._merged(runs), repeated)
                raise RepeatedIdsError
            self.facts.rejected = self._store.write_quarantine(plan.day, rejected.tables())

    def _merged(self, runs: Sequence[Run]) -> Iterator[pa.Table]:
        day = self.fetched.plan.day
        erased = pa.array(sorted(set(self.fetched.found.erased)), pa.string())

        def keep(rows: pa.Table) -> pa.Table:
            if len(erased):
                rows = rows.filter(pc.invert(pc.is_in(rows.column("event_id"), value_set=erased)))
            if self._is_filtered:
                rows = self._decoder.policy.tombstones.without(rows)
            return _without_losing(rows, self._winners) if self._winners else rows

        return merge(runs, EVENTS, (day.start_ms, day.end_ms), keep)

    def _rejected(self, stack: ExitStack) -> _RejectedEvents:
        day = self.fetched.plan.day
        store = stack.enter_context(closing(RunStore(QUARANTINE)))
        plan = self.fetched.plan
        stored = [] if plan.replaces else self._store.quarantine(day, plan.stored, self._decoder)
        runs = [*self.fetched.found.rejected, *(run for table in stored for run in store.add(table))]
        is_erased = self._decoder.policy.is_erased if self._is_filtered else None
        return _RejectedEvents(runs, store, (day.start_ms, day.end_ms), self.fetched.found.erased, is_erased)

    def _count(self, table: pa.Table) -> None:
        facts = self.facts
        facts.rows += table.num_rows
        facts.reasons += reasons_of(table)
        identities = (
            table.select(["agency", "customer"]).group_by(["agency", "customer"], use_threads=False).aggregate([])
        )
        facts.identities.update(zip(*(column.to_pylist() for column in identities.columns), strict=True))
        times = numbers(table, EVENTS)
        stored = table.column(IS_STORED).to_numpy()
        is_kept = stored & (times >= milliseconds(self.fetched.plan.start))
        if (answered := self.fetched.answered) is not None and is_kept.any():
            is_kept &= np.isin(table.column("activation_id").to_numpy(), sorted(answered))
        facts.kept += int(np.count_nonzero(is_kept))
        sent = pc.fill_null(table.column("activated_at").cast(pa.int64()), 0).to_numpy()
        before = np.where(sent > 0, times - sent, 0)
        facts.early += int(np.count_nonzero(before < -(CLOCK_SKEW // timedelta(milliseconds=1))))
        facts.earliest = min(facts.earliest, int(before.min(initial=0)))


class _RejectedEvents:
    """A day's rejected events, newly fetched and stored, without those that were accepted or erased."""

    def __init__(
        self,
        runs: Sequence[Run],
        store: RunStore,
        day: tuple[int, int],
        erased: Sequence[str],
        is_erased: Callable[[Any], bool] | None,
    ) -> None:
        self._day = day
        self._is_erased = is_erased
        self._gone: set[str] = set(erased)
        self._runs = merge_before(runs, QUARANTINE, store, self._keep)
        keys = [numbers(table, QUARANTINE) for table in merge(self._runs, QUARANTINE, keep=self._keep)]
        self._hashes = np.unique(np.concatenate(keys)) if keys else np.empty(0, np.int64)

    def accept(self, rows: pa.Table) -> None:
        """These rows were fetched and are stored: rejected versions of them leave the quarantine."""
        if self._hashes.size:
            found = np.isin(key_hashes(rows.column(ID_HASH).to_numpy()), self._hashes)
            found &= ~rows.column(IS_STORED).to_numpy()
            self._gone.update(rows.column("event_id").filter(pa.array(found)).to_pylist())

    def tables(self) -> Iterator[pa.Table]:
        """Those that are left, sorted."""
        return merge(self._runs, QUARANTINE, keep=self._keep)

    def _keep(self, rows: pa.Table) -> pa.Table:
        placed = rows.column("placed")
        rows = rows.filter(pc.and_(pc.greater_equal(placed, self._day[0]), pc.less(placed, self._day[1])))
        if (is_erased := self._is_erased) is not None:
            texts = rows.column("event").to_pylist()
            rows = rows.filter(pa.array([text is None or not is_erased(parsed(text)) for text in texts], pa.bool_()))
        gone = pa.array(sorted(self._gone), pa.string())
        return rows.filter(pc.invert(pc.is_in(rows.column("event_key"), value_set=gone))) if len(gone) else rows


def _repeated(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The hashes that stand more than once. Sorts them in place: there are 8 bytes a row of them."""
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _times_that_stay(merged: Iterator[pa.Table], repeated: npt.NDArray[np.uint64]) -> dict[str, int]:
    """Which time stays of each id at two times: fetched beats stored, then the earlier one."""
    names = ["event_id", IS_STORED, "event_time"]
    found = pa.concat_tables(
        table.filter(pa.array(np.isin(table.column(ID_HASH).to_numpy(), repeated))).select(names) for table in merged
    ).sort_by([(name, "ascending") for name in names])
    times: dict[str, int] = {}
    for id_, time in zip(found.column("event_id").to_pylist(), numbers(found, EVENTS).tolist(), strict=True):
        times.setdefault(id_, time)
    return times


def _without_losing(rows: pa.Table, winners: dict[str, int]) -> pa.Table:
    """The rows but those of an id that stays at another time."""
    pairs = zip(rows.column("event_id").to_pylist(), numbers(rows, EVENTS).tolist(), strict=True)
    return rows.filter(pa.array([winners.get(id_, time) == time for id_, time in pairs], pa.bool_()))
