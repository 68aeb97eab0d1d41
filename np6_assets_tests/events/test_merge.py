"""Merge runs, and compare with a merge in plain Python."""

import random
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from np6_assets.events import merge as module
from np6_assets.events.merge import (
    EVENTS,
    QUARANTINE,
    UNBOUNDED,
    RunStore,
    SortedRun,
    merge_overlapping_runs,
    merge_runs,
    sort_and_deduplicate,
)
from np6_assets_tests.support.tables import build_table, read_rows, read_types

TIME = pa.timestamp("ms", "UTC")
SCHEMA = pa.schema(
    [("event_id", pa.string()), ("event_time", TIME), ("label", pa.string()), (module.IS_STORED, pa.bool_())]
)


class Row(NamedTuple):
    """A row of SCHEMA, its time in ms."""

    event_id: str
    event_time: int
    label: str | None = None
    is_stored: bool = False


def build_row_table(rows: Iterable[Row]) -> pa.Table:
    return build_table([row._asdict() for row in rows], read_types(SCHEMA))


def add_runs(tables: Iterable[Iterable[Row]], store: RunStore) -> list[SortedRun]:
    return [run for rows in tables for run in store.add(sort_and_deduplicate(build_row_table(rows), EVENTS))]


def merge_tables(
    tables: Iterable[Iterable[Row]],
    span: tuple[int, int] = UNBOUNDED,
    keep: Callable[[pa.Table], pa.Table] = lambda rows: rows,
) -> list[Row]:
    with closing(RunStore(EVENTS)) as store:
        runs = merge_overlapping_runs(add_runs(tables, store), EVENTS, store)
        return [Row(**row) for found in merge_runs(runs, EVENTS, span, keep) for row in read_rows(found)]


def merge_in_python(tables: Iterable[Iterable[Row]], span: tuple[int, int] = UNBOUNDED) -> list[Row]:
    """Sort, and keep one row of each id and time, a fetched one if there is any."""
    once: dict[tuple[int, str], Row] = {}
    for row in (row for rows in tables for row in rows if span[0] <= row.event_time < span[1]):
        kept = once.setdefault((row.event_time, row.event_id), row)
        if kept.is_stored and not row.is_stored:
            once[row.event_time, row.event_id] = row
    return [once[key] for key in sorted(once)]


def set_limits(patch: pytest.MonkeyPatch, memory: int, batch: int = 2, bucket: int = 5) -> None:
    """Set low limits, so that few rows take all the paths of millions."""
    patch.setattr(module, "ROWS_IN_MEMORY", memory)
    patch.setattr(module, "BATCH_ROWS", batch)
    patch.setattr(module, "BUCKET_ROWS", bucket)


IDS = st.sampled_from(["", "a", "b", "ab", "é", "Z", "日本", "🎉", "\uffff", *(f"id{number}" for number in range(12))])
ROWS = st.lists(
    st.builds(Row, IDS, st.integers(-3, 12), st.sampled_from([None, "", "x", "y"]), st.booleans()), max_size=90
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    rows=ROWS,
    runs=st.sampled_from([1, 2, 5, 40, 70]),
    memory=st.sampled_from([0, 3, 20, 1000]),
    bucket=st.integers(1, 30),
    span=st.sampled_from([UNBOUNDED, (0, 5), (5, 6), (5, 5), (20, 30)]),
    rng=st.randoms(use_true_random=False),
)
def test_merge_sorts_and_deduplicates_any_tables(
    rows: list[Row], runs: int, memory: int, bucket: int, span: tuple[int, int], rng: random.Random
):
    tables: list[list[Row]] = [[] for _ in range(runs)]
    for row in rows:
        rng.choice(tables).append(row)
    with pytest.MonkeyPatch.context() as patch:
        set_limits(patch, memory, bucket=bucket)
        found = merge_tables(tables, span)
        assert [row[:2] + row[3:] for row in found] == [row[:2] + row[3:] for row in merge_in_python(tables, span)]
        assert set(found) <= set(rows)
        # the kept one of several fetched rows depends neither on spilling nor on the order and number of tables
        fetched = [row for row in found if not row.is_stored]
        set_limits(patch, 10**6)
        rng.shuffle(tables)
        for others in ([rng.sample(rows, len(rows))], tables):
            assert [row for row in merge_tables(others, span) if not row.is_stored] == fetched


def test_merge_applies_the_filter():
    rows = [Row(f"{number}", number) for number in range(20)]
    assert merge_tables([rows[::2], rows[1::2]], keep=lambda found: found.slice(0, 0)) == []
    assert merge_tables([rows], keep=lambda found: found.filter(pa.array([True] * 5 + [False] * 15))) == rows[:5]
    with closing(RunStore(EVENTS)) as store:
        assert store.add(build_row_table([])) == store.add(iter([])) == []


def test_merge_deduplicates_rejected_events_by_key():
    def build_table(keys: str, reason: str, stored: bool) -> pa.Table:
        rows = [{"key_hash": len(key), "event_key": key, "reason": reason, "is_stored": stored} for key in keys.split()]
        return sort_and_deduplicate(pa.Table.from_pylist(rows), QUARANTINE)

    with closing(RunStore(QUARANTINE)) as store:
        runs = [*store.add(build_table("bb a cc", "old", True)), *store.add(build_table("cc b", "new", False))]
        found = [row for one in merge_runs(runs, QUARANTINE) for row in one.to_pylist()]
    merged = [(row["event_key"], row["reason"]) for row in found]
    assert merged == [("a", "old"), ("b", "new"), ("bb", "old"), ("cc", "new")]


@pytest.mark.parametrize("overlap", [False, True])
def test_merge_reads_each_batch_once_and_keeps_few(overlap: bool, monkeypatch: pytest.MonkeyPatch):
    set_limits(monkeypatch, 0, batch=10, bucket=100)
    rows = [Row(f"{number:04}", number) for number in range(6000)]
    if overlap:
        random.Random(1).shuffle(rows)
    reads: Counter[tuple[int, int]] = Counter()
    batches: list[weakref.ref[pa.RecordBatch]] = []

    def watch(number: int, run: SortedRun) -> SortedRun:
        def read(place: int) -> pa.RecordBatch:
            reads[number, place] += 1
            batch = run.read(place)
            batches.append(weakref.ref(batch))
            return batch

        return replace(run, read=read)

    with closing(RunStore(EVENTS)) as store:
        made = add_runs([rows[at : at + 400] for at in range(0, 6000, 400)], store)
        runs = [watch(number, run) for number, run in enumerate(made)]
        edges = len(runs) if overlap else 1
        before = 0
        for one in merge_runs(runs, EVENTS):
            # the batches of a bucket, and one of each run at its edges
            assert reads.total() - before <= 100 / 10 + (2 * len(runs) if overlap else 4)
            assert one.num_rows <= 2 * 100 + 10 * len(runs)
            assert sum(batch() is not None for batch in batches) <= 2 * edges + 1
            before = reads.total()
        assert set(reads.values()) == {1}
        # a short span needs few reads
        reads.clear()
        assert sum(one.num_rows for one in merge_runs(runs, EVENTS, (3000, 3020))) == 20
        assert reads.total() <= (2 * len(runs) if overlap else 4)


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_spilled_runs_share_one_unnamed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "ROWS_IN_MEMORY", 100)
    tables = [[Row(f"{number:03} {row}", number + row, "label " * 20) for row in range(100)] for number in range(300)]
    before, opened = pa.total_allocated_bytes(), count_descriptors()
    with closing(RunStore(EVENTS)) as store:
        runs = add_runs(tables, store)
        assert pa.total_allocated_bytes() - before < 200_000
        few = merge_overlapping_runs(runs, EVENTS, store)
        at_once = [sum(run.first[0] <= time <= run.last[-1] for run in few) for time in range(400)]
        assert 0 < max(at_once) <= module.OVERLAPPING_RUNS
        assert count_descriptors() == opened + 1
        assert list(tmp_path.iterdir()) == []
        assert sum(one.num_rows for one in merge_runs(few, EVENTS)) == 30_000
    assert count_descriptors() == opened


def test_store_adds_runs_concurrently(monkeypatch: pytest.MonkeyPatch):
    set_limits(monkeypatch, 500, batch=50, bucket=1000)
    tables = [[Row(f"{number} {row}", 7 * row + number) for row in range(200)] for number in range(20)]
    with closing(RunStore(EVENTS)) as store, ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda rows: add_runs([rows], store)[0], tables))
        found = [Row(**row) for one in merge_runs(runs, EVENTS) for row in read_rows(one)]
    assert found == merge_in_python(tables)
