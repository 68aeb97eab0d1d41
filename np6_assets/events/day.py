"""Merge a day: its newly fetched rows with the stored ones, to one sorted stream, and the facts about it."""

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

from np6_assets.events.decode import Decoder, to_sort_numbers
from np6_assets.events.json_sql import ID_HASH
from np6_assets.events.merge import (
    EVENTS,
    IS_STORED,
    QUARANTINE,
    RunStore,
    SortedRun,
    merge_overlapping_runs,
    merge_runs,
    read_numbers,
)
from np6_assets.events.reasons import BounceReasons, count_bounce_reasons
from np6_assets.events.receive import FetchedDay
from np6_assets.events.reject import parse_event
from np6_assets.events.store import EventStore
from np6_assets.partitions import to_epoch_ms

CLOCK_SKEW = timedelta(minutes=1)
"""How long before its send an event may seem to happen.

The two times come from clocks of different machines, which differ by seconds, while a wrong unit or time zone is wrong
by minutes at least.
"""


class RepeatedIdsError(Exception):
    """An id came at two times: the day has to be merged again, without the rows that lose."""


@dataclass
class DayFacts:
    """The facts of a day's merge.

    Attributes:
        kept: stored events inside the window that the answer did not contain.
        before_send: events published more than CLOCK_SKEW before their send.
        most_before_send: the longest such time, in ms, negative.
        identities: the agencies and customers of the events.
    """

    rows: int = 0
    kept: int = 0
    before_send: int = 0
    most_before_send: int = 0
    rejected: int = 0
    reasons: BounceReasons = field(default_factory=BounceReasons)
    identities: set[tuple[str | None, str | None]] = field(default_factory=set)


class DayMerge:
    """Merges one day. With `tombstones_grew`, receivers were erased since its events were decoded."""

    def __init__(
        self, fetched: FetchedDay, store: EventStore, decoder: Decoder, *, tombstones_grew: bool = False
    ) -> None:
        self.fetched = fetched
        self._tombstones_grew = tombstones_grew
        self.facts = DayFacts()
        self._store = store
        self._decoder = decoder
        self._winners: dict[str, int] | None = None

    def merge_tables(self) -> Iterator[pa.Table]:
        """Yield the rows in the kind's schema, sorted and deduplicated; then write the quarantine.

        Raises RepeatedIdsError after the last table if an id came at two times: call it again then.
        """
        self.facts = DayFacts()
        plan = self.fetched.plan
        with ExitStack() as stack:
            store = stack.enter_context(closing(RunStore(EVENTS)))
            stored = stack.enter_context(self._store.open_runs(plan.day, plan.stored_to_merge, self._decoder))
            runs = [*stored, *merge_overlapping_runs(self.fetched.events.runs, EVENTS, store)]
            rejected = self._open_quarantine(stack)
            hashes = np.empty(sum(int(run.rows.sum()) for run in runs), np.uint64)
            for table in self._merge_runs(runs):
                hashes[self.facts.rows : self.facts.rows + table.num_rows] = table.column(ID_HASH).to_numpy()
                self._count_facts(table)
                rejected.remove_accepted(table)
                yield table.select(self._decoder.kind.schema.names)
            if self._winners is None and (repeated := _find_repeated(hashes[: self.facts.rows])).size:
                self._winners = _pick_winning_times(self._merge_runs(runs), repeated)
                raise RepeatedIdsError
            self.facts.rejected = self._store.write_quarantine(plan.day, rejected.merge_tables())

    def _merge_runs(self, runs: Sequence[SortedRun]) -> Iterator[pa.Table]:
        day = self.fetched.plan.day
        erased = pa.array(sorted(set(self.fetched.events.erased_keys)), pa.string())

        def keep(rows: pa.Table) -> pa.Table:
            if len(erased):
                rows = rows.filter(pc.invert(pc.is_in(rows.column("event_id"), value_set=erased)))
            if self._tombstones_grew:
                rows = self._decoder.policy.tombstones.drop_erased(rows)
            return _drop_losing_rows(rows, self._winners) if self._winners else rows

        return merge_runs(runs, EVENTS, (day.start_ms, day.end_ms), keep)

    def _open_quarantine(self, stack: ExitStack) -> _QuarantineMerge:
        day = self.fetched.plan.day
        store = stack.enter_context(closing(RunStore(QUARANTINE)))
        plan = self.fetched.plan
        stored = [] if plan.replaces else self._store.read_quarantine(day, plan.stored, self._decoder)
        runs = [*self.fetched.events.rejected, *(run for table in stored for run in store.add(table))]
        is_erased = self._decoder.policy.is_erased if self._tombstones_grew else None
        return _QuarantineMerge(runs, store, (day.start_ms, day.end_ms), self.fetched.events.erased_keys, is_erased)

    def _count_facts(self, table: pa.Table) -> None:
        facts = self.facts
        facts.rows += table.num_rows
        facts.reasons += count_bounce_reasons(table)
        identities = (
            table.select(["agency", "customer"]).group_by(["agency", "customer"], use_threads=False).aggregate([])
        )
        facts.identities.update(zip(*(column.to_pylist() for column in identities.columns), strict=True))
        times = read_numbers(table, EVENTS)
        stored = table.column(IS_STORED).to_numpy()
        is_kept = stored & (times >= to_epoch_ms(self.fetched.plan.start))
        if (answered := self.fetched.answered_ids) is not None and is_kept.any():
            is_kept &= np.isin(table.column("activation_id").to_numpy(), sorted(answered))
        facts.kept += int(np.count_nonzero(is_kept))
        sent = pc.fill_null(table.column("activated_at").cast(pa.int64()), 0).to_numpy()
        before = np.where(sent > 0, times - sent, 0)
        facts.before_send += int(np.count_nonzero(before < -(CLOCK_SKEW // timedelta(milliseconds=1))))
        facts.most_before_send = min(facts.most_before_send, int(before.min(initial=0)))


class _QuarantineMerge:
    """Merges a day's rejected events, fetched and stored, without those that were accepted or erased."""

    def __init__(
        self,
        runs: Sequence[SortedRun],
        store: RunStore,
        day: tuple[int, int],
        erased: Sequence[str],
        is_erased: Callable[[Any], bool] | None,
    ) -> None:
        self._day = day
        self._is_erased = is_erased
        self._removed_keys: set[str] = set(erased)
        self._runs = merge_overlapping_runs(runs, QUARANTINE, store, self._filter_rows)
        keys = [read_numbers(table, QUARANTINE) for table in merge_runs(self._runs, QUARANTINE, keep=self._filter_rows)]
        self._hashes = np.unique(np.concatenate(keys)) if keys else np.empty(0, np.int64)

    def remove_accepted(self, rows: pa.Table) -> None:
        """Remove the rejected versions of events that were fetched and are stored now."""
        if self._hashes.size:
            found = np.isin(to_sort_numbers(rows.column(ID_HASH).to_numpy()), self._hashes)
            found &= ~rows.column(IS_STORED).to_numpy()
            self._removed_keys.update(rows.column("event_id").filter(pa.array(found)).to_pylist())

    def merge_tables(self) -> Iterator[pa.Table]:
        """Yield the events that are left, sorted."""
        return merge_runs(self._runs, QUARANTINE, keep=self._filter_rows)

    def _filter_rows(self, rows: pa.Table) -> pa.Table:
        placed = rows.column("placed")
        rows = rows.filter(pc.and_(pc.greater_equal(placed, self._day[0]), pc.less(placed, self._day[1])))
        if (is_erased := self._is_erased) is not None:
            texts = rows.column("event").to_pylist()
            rows = rows.filter(
                pa.array([text is None or not is_erased(parse_event(text)) for text in texts], pa.bool_())
            )
        gone = pa.array(sorted(self._removed_keys), pa.string())
        return rows.filter(pc.invert(pc.is_in(rows.column("event_key"), value_set=gone))) if len(gone) else rows


def _find_repeated(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Find the hashes that occur more than once. Sorts them in place, as there are 8 bytes a row of them."""
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _pick_winning_times(merged: Iterator[pa.Table], repeated: npt.NDArray[np.uint64]) -> dict[str, int]:
    """Pick the time that stays of each id at two times: fetched beats stored, then the earlier one."""
    names = ["event_id", IS_STORED, "event_time"]
    found = pa.concat_tables(
        table.filter(pa.array(np.isin(table.column(ID_HASH).to_numpy(), repeated))).select(names) for table in merged
    ).sort_by([(name, "ascending") for name in names])
    times: dict[str, int] = {}
    for id_, time in zip(found.column("event_id").to_pylist(), read_numbers(found, EVENTS).tolist(), strict=True):
        times.setdefault(id_, time)
    return times


def _drop_losing_rows(rows: pa.Table, winners: dict[str, int]) -> pa.Table:
    """Drop the rows of ids that stay at another time."""
    pairs = zip(rows.column("event_id").to_pylist(), read_numbers(rows, EVENTS).tolist(), strict=True)
    return rows.filter(pa.array([winners.get(id_, time) == time for id_, time in pairs], pa.bool_()))
