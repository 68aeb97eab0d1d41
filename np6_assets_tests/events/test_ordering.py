"""Ordering: whatever the order, the batches and the repeats that rows come with, they leave sorted and unique."""

import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from np6_assets.events import ordering
from np6_assets.events.ordering import Ordering
from np6_assets_tests.support.tables import rows_of

SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), False),
        pa.field("event_time", pa.timestamp("ms", "UTC"), False),
        ("label", pa.string()),
        ("urgent", pa.bool_()),
    ]
)


class Row(NamedTuple):
    """A row of SCHEMA, its time in ms."""

    event_id: str
    event_time: int
    label: str | None = None
    urgent: bool | None = None


def table(rows: Iterable[Row], hash_of: Callable[[str], int] | None) -> pa.Table:
    rows = list(rows)
    columns = [pa.array([row.event_id for row in rows], pa.string())]
    columns.append(pa.array([row.event_time for row in rows], pa.int64()).cast(SCHEMA.field("event_time").type))
    columns.append(pa.array([row.label for row in rows], pa.string()))
    columns.append(pa.array([row.urgent for row in rows], pa.bool_()))
    if hash_of is None:
        return pa.table(columns, schema=SCHEMA)
    hashes = pa.array([hash_of(row.event_id) for row in rows], pa.uint64())
    return pa.table([*columns, hashes], schema=SCHEMA.append(pa.field("id_hash", pa.uint64())))


def good_hash(event_id: str) -> int:
    return int.from_bytes(event_id.encode().ljust(8)[-8:], "big") * 0x9E3779B97F4A7C15 % 2**64


def poor_hash(event_id: str) -> int:
    """A hash under which many ids collide, on both sides of what a signed number holds."""
    return (0, 5, 2**63, 2**64 - 1)[len(event_id) % 4]


def order(
    rows: list[Row], sizes: list[int], rows_in_memory: int, hash_of: Callable[[str], int] | None = good_hash
) -> list[Row]:
    """What comes out when the rows go in, in batches of these sizes (in turn)."""
    taker = Ordering("event_id", None if hash_of is None else "id_hash", rows_in_memory)
    for batch in batches(rows, sizes):
        taker.add(table(batch, hash_of))
    assert taker.rows == len(rows)
    return read(taker)


def batches(rows: list[Row], sizes: list[int]) -> Iterator[list[Row]]:
    start = turn = 0
    while start < len(rows):
        yield rows[start : start + sizes[turn % len(sizes)]]
        start, turn = start + sizes[turn % len(sizes)], turn + 1


def read(taker: Ordering) -> list[Row]:
    out: list[Row] = []
    for part in taker.tables():
        assert part.schema == SCHEMA
        out += (Row(**row) for row in rows_of(part))
    taker.close()
    return out


def least(row: Row) -> tuple[object, ...]:
    """By time, and what is alike in that by all its columns; null comes last."""
    return row.event_time, row.event_id, *((value is None, value or type(value)()) for value in row[2:])


def reference(rows: Iterable[Row]) -> list[Row]:
    """Sorted, each id once: the earliest of those that share it, and of those that share the time too the least."""
    once: dict[str, Row] = {}
    for row in sorted(rows, key=least):
        once.setdefault(row.event_id, row)
    return sorted(once.values(), key=lambda row: (row.event_time, row.event_id))


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so low that a handful of rows goes all the ways that millions go."""
    monkeypatch.setattr(ordering, "_FAN_IN", 3)
    monkeypatch.setattr(ordering, "_ROWS_PER_BATCH", 2)
    monkeypatch.setattr(ordering, "_ROWS_PER_PASS", 5)


IDS = st.sampled_from(["", "a", "b", "ab", "é", "Z", "日本", "🎉", *(f"id{number}" for number in range(20))])
ROWS = st.lists(
    st.builds(
        Row, IDS, st.integers(-3, 12), st.sampled_from([None, "", "x", "y"]), st.sampled_from([None, True, False])
    ),
    max_size=60,
)
SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@pytest.mark.usefixtures("tight")
class TestWithTightLimits:
    """Everything spills, every merge takes several rounds."""

    @hypothesis_settings(max_examples=150, deadline=None)
    @given(
        rows=ROWS,
        sizes=SIZES,
        memory=st.integers(1, 20),
        poor=st.booleans(),
        shuffled=st.randoms(use_true_random=False),
    )
    def test_any_rows_in_any_batches_come_out_as_the_reference_has_them(
        self, rows: list[Row], sizes: list[int], memory: int, poor: bool, shuffled: random.Random
    ):
        hash_of = poor_hash if poor else good_hash
        out = order(rows, sizes, memory, hash_of)
        assert out == reference(rows)
        other_way = shuffled.sample(rows, len(rows))
        assert order(other_way, [len(rows) + 1], 1000, hash_of) == out

    @hypothesis_settings(max_examples=60, deadline=None)
    @given(rows=ROWS, sizes=SIZES, memory=st.integers(1, 20))
    def test_sorted_rows_stay_as_they_are(self, rows: list[Row], sizes: list[int], memory: int):
        rows = reference(rows)
        assert order(rows, sizes, memory) == rows

    @hypothesis_settings(max_examples=60, deadline=None)
    @given(rows=ROWS, sizes=SIZES, memory=st.integers(1, 20))
    def test_without_a_hash_only_what_is_alike_in_time_and_identity_is_the_same(
        self, rows: list[Row], sizes: list[int], memory: int
    ):
        expected: dict[tuple[int, str], Row] = {}
        for row in sorted(rows, key=least):
            expected.setdefault((row.event_time, row.event_id), row)
        assert order(rows, sizes, memory, None) == list(expected.values())

    @hypothesis_settings(max_examples=100, deadline=None)
    @given(shares=st.lists(ROWS, min_size=1, max_size=6), sizes=SIZES, memory=st.integers(1, 20))
    def test_absorbing_is_the_same_as_adding(self, shares: list[list[Row]], sizes: list[int], memory: int):
        together = Ordering("event_id", "id_hash", memory)
        for share in shares:
            other = Ordering("event_id", "id_hash", memory)
            for batch in batches(share, sizes):
                other.add(table(batch, poor_hash))
            together.absorb(other)
            other.close()  # what was taken over is not closed with it
        assert together.rows == sum(len(share) for share in shares)
        assert read(together) == reference(row for share in shares for row in share)

    def test_what_is_absorbed_and_what_is_added_afterwards_come_out_together(self):
        shares = [[Row(f"{number}", (7 * number + share) % 11) for number in range(share, 30)] for share in range(4)]
        together = Ordering("event_id", "id_hash", 4)
        for share in shares:
            together.add(table(share, good_hash))
            other = Ordering("event_id", "id_hash", 4)
            other.add(table(share[::-1], good_hash))
            together.absorb(other)
        assert read(together) == reference(row for share in shares for row in share)


def test_the_same_id_at_several_times_stays_at_the_earliest():
    rows = [Row("a", 9), Row("b", 3), Row("a", 5, "late label"), Row("a", 7), Row("b", 3)]
    assert order(rows, [1], 1000) == [Row("b", 3), Row("a", 5, "late label")]


def test_ties_in_time_are_by_id_as_unicode_has_it():
    rows = [Row(event_id, 1) for event_id in ("é", "z", "Z", "", "🎉", "\uffff", "a")]
    assert [row.event_id for row in order(rows, [2], 1000)] == ["", "Z", "a", "z", "é", "\uffff", "🎉"]


def test_nothing_in_nothing_out():
    assert order([], [1], 10) == []
    empty = Ordering("event_id", "id_hash", 10)
    empty.add(table([], good_hash))
    assert read(empty) == []


def test_many_rows_with_the_limits_as_they_are():
    rng = random.Random(4)
    rows = [Row(f"id{rng.randrange(30_000)}", rng.randrange(50_000)) for _ in range(60_000)]
    out = order(rows, [1000, 7000, 1], ordering.ROWS_IN_MEMORY // 8)
    assert out == reference(rows)


def nameless_files_in(folder: Path) -> list[str]:
    """The files of this process that are in the folder without a name."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue  # the listing's own
        if target.startswith(f"{folder}/"):
            found.append(target)
    return found


@pytest.mark.usefixtures("tight")
def test_what_is_on_disk_has_no_name_and_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = [Row(f"id{number}", -number) for number in range(100)]
    read_whole, given_up, half_read = (Ordering("event_id", "id_hash", 10) for _ in range(3))
    for taker in (read_whole, given_up, half_read):
        for batch in batches(rows, [7]):
            taker.add(table(batch, good_hash))
            assert list(tmp_path.iterdir()) == []
    assert nameless_files_in(tmp_path)
    for _ in read_whole.tables():
        assert list(tmp_path.iterdir()) == []
    next(reader := half_read.tables())
    reader.close()
    for taker in (read_whole, given_up, half_read):
        taker.close()
    assert nameless_files_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
