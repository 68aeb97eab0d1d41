"""Files appear whole or not at all: under SIGKILL, errors, other writers, and file systems that refuse."""

import contextlib
import io
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from np6_assets.storage import parquet
from np6_assets.storage.files import ChangedError, Folder, Version, retry_if_changed

ROOT = Path(__file__).parents[2]
PLACE = "hits/event_date=2026-03-20/part-0.parquet"


def all_files(folder: Path) -> set[str]:
    """Every file below a folder, hidden ones as well."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def seen_by_readers(folder: Path) -> set[str]:
    """Every file that a reader of the folder would take for data: not those that begin with a dot."""
    return {name for name in all_files(folder) if not Path(name).name.startswith((".", "_"))}


# --- SIGKILL -------------------------------------------------------------------------------------------------------

# Replaces a file again and again. A version is 200 000 times its own letter. Says where it is in the writing; stops
# where it is told to, for the kill.
WRITER = """
import itertools, sys, time
from np6_assets.storage.files import Folder

folder, place, stop = Folder(sys.argv[1]), sys.argv[2], sys.argv[3:]

def reached(version, step):
    print(version, step, flush=True)
    if stop == [str(version), step]:
        sys.stdin.read()

for version in itertools.count():
    letter = b"%c" % (ord("a") + version % 26)
    reached(version, "before")
    with folder.replace(place) as file:
        reached(version, "opened")
        file.write(letter * 100_000)
        file.flush()
        reached(version, "half")
        file.write(letter * 100_000)
        file.flush()
        reached(version, "whole")
    reached(version, "swapped")
"""


@contextlib.contextmanager
def writer(folder: Path, *stop: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), PLACE, *map(str, stop)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder.parent / "tmp")},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def killed(process: subprocess.Popen[str], lines: int) -> list[str]:
    """Everything that the process said, which is killed once it has said so many lines."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    said += process.stdout.readlines()
    assert process.wait() == -signal.SIGKILL
    return [line.strip() for line in said]


def versions_there(folder: Path) -> int | None:
    """The letter's number of the version that is there, which is whole."""
    path = folder / PLACE
    if not path.exists():
        return None
    text = path.read_bytes()
    assert text == text[:1] * 200_000
    return text[0] - ord("a")


@pytest.mark.parametrize("step", ["before", "opened", "half", "whole", "swapped"])
@pytest.mark.parametrize("version", [0, 2])
def test_replace_killed_at_any_step_leaves_the_old_or_the_new_file_only(tmp_path: Path, version: int, step: str):
    folder, temporary = tmp_path / "data", tmp_path / "tmp"
    temporary.mkdir()
    steps = ["before", "opened", "half", "whole", "swapped"]
    with writer(folder, version, step) as process:
        killed(process, 5 * version + steps.index(step) + 1)
    expected = version if step == "swapped" else version - 1
    assert versions_there(folder) == (None if expected < 0 else expected)
    assert all_files(folder) == ({PLACE} if expected >= 0 else set())
    assert all_files(temporary) == set()


def test_replace_killed_at_any_moment_shows_readers_the_old_or_the_new_file(tmp_path: Path):
    rng = random.Random(20260320)
    for attempt in range(6):
        folder = tmp_path / f"{attempt}" / "data"
        (tmp_path / f"{attempt}" / "tmp").mkdir(parents=True)
        with writer(folder) as process:
            said = killed(process, rng.randrange(6, 120))
        swapped = sum(line.endswith("swapped") for line in said)
        there = versions_there(folder)
        # the last swap may not have been told any more
        assert there in {(swapped - 1) % 26, swapped % 26}
        assert seen_by_readers(folder) == {PLACE}
        assert all_files(folder.parent / "tmp") == set()


# --- errors and other writers --------------------------------------------------------------------------------------


@pytest.fixture(params=["nameless", "hidden"])
def local(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A local folder, on a file system with files that have no name, and without such files."""
    if request.param == "hidden":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return tmp_path / "data"


class BrokenOnPurposeError(Exception):
    pass


def replace(folder: Folder, data: bytes, relative: str = PLACE) -> None:
    with folder.replace(relative) as file:
        file.write(data)


def content(folder: Folder, relative: str = PLACE) -> bytes:
    with folder.open(relative) as file:
        return file.read()


def replace_and_break(folder: Folder) -> None:
    with folder.replace(PLACE) as file:
        file.write(b"half of something")
        file.flush()
        raise BrokenOnPurposeError


def test_a_file_takes_its_place_when_the_block_ends(local: Path):
    folder = Folder(str(local))
    assert not folder.exists(PLACE)
    for content in (b"old", b"new", b""):
        with folder.replace(PLACE) as file:
            file.write(content)
            assert seen_by_readers(local) <= {PLACE}
        assert (local / PLACE).read_bytes() == content
        assert all_files(local) == {PLACE}
    assert folder.exists(PLACE)
    assert folder.get_size(PLACE) == 0


def test_an_error_in_the_middle_leaves_what_was_there(local: Path):
    folder = Folder(str(local))
    with pytest.raises(BrokenOnPurposeError):
        replace_and_break(folder)
    assert all_files(local) == set()
    replace(folder, b"old")
    with pytest.raises(BrokenOnPurposeError):
        replace_and_break(folder)
    assert (local / PLACE).read_bytes() == b"old"
    assert all_files(local) == {PLACE}


def test_two_concurrent_writers_leave_the_file_of_the_last_one(local: Path):
    folder = Folder(str(local))
    with folder.replace(PLACE) as late:
        late.write(b"late" * 1000)
        with folder.replace(PLACE) as early:
            early.write(b"early")
            late.write(b"late" * 1000)
        assert (local / PLACE).read_bytes() == b"early"
    assert (local / PLACE).read_bytes() == b"late" * 2000
    assert all_files(local) == {PLACE}


def test_many_writers_at_once_leave_one_whole_file(local: Path):
    folder, start = Folder(str(local)), threading.Barrier(4)
    failures: list[BaseException] = []

    def write(letter: bytes) -> None:
        try:
            start.wait(10)
            for _ in range(10):
                replace(folder, letter * 50_000)
        except BaseException as error:  # noqa: BLE001 -- told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    text = (local / PLACE).read_bytes()
    assert text == text[:1] * 50_000
    assert all_files(local) == {PLACE}


def test_stale_unfinished_files_are_removed_and_those_of_active_writers_are_not(local: Path):
    folder = Folder(str(local))
    replace(folder, b"old")
    place = (local / PLACE).parent
    long_ago, just_now, elsewhere = (
        place / name for name in (".part-0.parquet.1.tmp", ".part-0.parquet.2.tmp", ".other.tmp")
    )
    for left in (long_ago, just_now, elsewhere):
        left.write_bytes(b"left")
    two_days_ago = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    os.utime(long_ago, (two_days_ago, two_days_ago))
    os.utime(elsewhere, (two_days_ago, two_days_ago))
    replace(folder, b"new")
    assert {path.name for path in place.iterdir()} == {"part-0.parquet", just_now.name, elsewhere.name}


def test_files_have_the_permissions_that_the_user_asks_for(local: Path):
    mask = os.umask(0o027)
    try:
        replace(Folder(str(local)), b"x")
    finally:
        os.umask(mask)
    assert (local / PLACE).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_replace_sets_the_mode_whatever_the_umask(local: Path, mask: int):
    before = os.umask(mask)
    try:
        with Folder(str(local)).replace(PLACE, 0o640) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert (local / PLACE).stat().st_mode & 0o777 == 0o640


def test_rename_is_on_disk_when_the_block_has_ended(local: Path, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append(str(path.relative_to(local)) if path.is_dir() else "the file")

    def renamed(path: Path, target: Path) -> Path:
        done.append("the rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    replace(Folder(str(local)), b"x")
    assert done == ["the file", "the rename", "hits/event_date=2026-03-20", "hits", "."]


def test_unfinished_files_are_listed(tmp_path: Path):
    place = tmp_path / PLACE
    replace(Folder(str(tmp_path)), b"x")
    names = [".part-0.parquet.0123.tmp", ".part-0.parquet.4567.tmp"]
    for name in (*names, ".other.tmp", ".part-0.parquet.0123", "part-0.parquet.0123.tmp"):
        place.with_name(name).write_bytes(b"")
    folder = Folder(str(tmp_path))
    assert folder.list_unfinished(PLACE) == [str(Path(PLACE).with_name(name)) for name in names]
    assert folder.list_unfinished("optouts/event_date=2026-03-20/part-0.parquet") == []


def test_unfinished_files_in_a_remote_folder_are_listed():
    folder = Folder(f"memory://{uuid.uuid4().hex}/data")
    left = str(Path(PLACE).with_name(".part-0.parquet.0123.tmp"))
    for name in (PLACE, left):
        with folder.replace(name) as file:
            file.write(b"x")
    assert folder.list_unfinished(PLACE) == [left]


def test_remove_also_removes_only_the_empty_folder(tmp_path: Path):
    folder = Folder(str(tmp_path))
    folder.remove(PLACE)
    replace(folder, b"x")
    replace(folder, b"y", "hits/event_date=2026-03-21/part-0.parquet")
    folder.remove(PLACE)
    folder.remove(PLACE)
    assert [path.name for path in (tmp_path / "hits").iterdir()] == ["event_date=2026-03-21"]
    (tmp_path / "hits/event_date=2026-03-21/note.txt").write_text("mine")
    folder.remove("hits/event_date=2026-03-21/part-0.parquet")
    assert all_files(tmp_path) == {"hits/event_date=2026-03-21/note.txt"}


# --- remote --------------------------------------------------------------------------------------------------------


# what a store does, and what it is asked, is in test_remote.py


def test_a_remote_file_takes_its_place_when_the_block_ends():
    folder = Folder(f"memory://{uuid.uuid4().hex}/data")
    replace(folder, b"old")
    with folder.replace(PLACE) as file:
        file.write(b"new")
        assert content(folder) == b"old"
    assert content(folder) == b"new"
    assert folder.list_files("") == [PLACE]
    assert folder.get_size(PLACE) == 3
    folder.remove(PLACE)
    assert not folder.exists(PLACE)


def test_an_error_before_the_upload_does_not_touch_the_remote():
    folder = Folder(f"memory://{uuid.uuid4().hex}/data")
    replace(folder, b"old")
    with pytest.raises(BrokenOnPurposeError):
        replace_and_break(folder)
    assert content(folder) == b"old"
    assert folder.list_files("") == [PLACE]


def test_pending_upload_has_no_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Folder(f"memory://{uuid.uuid4().hex}/data")
    with folder.replace(PLACE) as file:
        file.write(b"x" * 100_000)
        file.flush()
        assert list(tmp_path.iterdir()) == []
        assert folder.list_files("") == []
    assert list(tmp_path.iterdir()) == []


# --- Parquet -------------------------------------------------------------------------------------------------------

SCHEMA = pa.schema(
    [pa.field("event_id", pa.string(), False), ("event_time", pa.timestamp("ms", "UTC")), ("urgent", pa.bool_())]
)


def rows(count: int) -> pa.Table:
    rng = random.Random(1)
    return pa.table(
        [
            [f"id {rng.randrange(count * 3)} é" for _ in range(count)],
            pa.array([1_774_000_000_000 + number for number in range(count)], pa.timestamp("ms", "UTC")),
            [rng.choice((True, False, None)) for _ in range(count)],
        ],
        schema=SCHEMA,
    )


def written(data: pa.Table | pa.RecordBatchReader) -> tuple[parquet.WrittenFile, bytes]:
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    return parquet.write_file(folder, PLACE, data), content(folder)


def batched(data: pa.Table, sizes: list[int]) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        start = turn = 0
        while start < data.num_rows:
            size = sizes[turn % len(sizes)]
            yield from data.slice(start, size).to_batches()
            if turn % 3 == 0:
                yield pa.RecordBatch.from_pylist([], schema=data.schema)  # an empty one now and then
            start, turn = start + size, turn + 1

    return pa.RecordBatchReader.from_batches(data.schema, batches())


LARGE = rows(150_000)
LARGE_BYTES = written(LARGE)[1]


@hypothesis_settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.sampled_from([1_000, 8_191, 65_535, 65_536, 65_537, 140_000]), min_size=1, max_size=4))
def test_the_same_rows_are_the_same_bytes_however_they_are_batched(sizes: list[int]):
    assert written(batched(LARGE, sizes))[1] == LARGE_BYTES


def test_write_file_writes_the_rows_and_returns_true_facts():
    result, content = written(LARGE)
    back = pq.read_table(io.BytesIO(content))
    assert back.equals(LARGE)
    assert back.schema.equals(SCHEMA)
    assert result.rows == 150_000
    assert result.bytes == len(content)
    assert result.first_event == datetime.fromtimestamp(1_774_000_000, UTC)
    assert result.last_event == datetime.fromtimestamp(1_774_000_149.999, UTC)
    assert result.path.endswith(PLACE)


def test_no_rows_are_a_file_with_the_columns():
    for nothing in (SCHEMA.empty_table(), pa.RecordBatchReader.from_batches(SCHEMA, iter(()))):
        result, content = written(nothing)
        back = pq.read_table(io.BytesIO(content))
        assert back.schema.equals(SCHEMA)
        assert (result.rows, back.num_rows, result.first_event, result.last_event) == (0, 0, None, None)


def test_metadata_of_the_rows_goes_into_the_file():
    marked = rows(3).replace_schema_metadata({"np6.fetched_until": "2026-03-21T00:00:00+00:00"})
    for data in (marked, batched(marked, [2])):
        metadata = pq.read_metadata(io.BytesIO(written(data)[1])).metadata
        assert metadata[b"np6.fetched_until"] == b"2026-03-21T00:00:00+00:00"


def test_write_file_keeps_the_old_file_if_the_rows_fail(tmp_path: Path):
    folder = Folder(str(tmp_path))
    parquet.write_file(folder, PLACE, rows(10))

    def breaking() -> Iterator[pa.RecordBatch]:
        yield from LARGE.to_batches(max_chunksize=70_000)[:1]
        raise BrokenOnPurposeError

    with pytest.raises(BrokenOnPurposeError):
        parquet.write_file(folder, PLACE, pa.RecordBatchReader.from_batches(SCHEMA, breaking()))
    assert pq.read_table(tmp_path / PLACE).num_rows == 10
    assert all_files(tmp_path) == {PLACE}


def test_a_reader_that_opened_the_old_file_reads_it_to_its_end(tmp_path: Path):
    folder = Folder(str(tmp_path))
    parquet.write_file(folder, PLACE, LARGE)
    with (tmp_path / PLACE).open("rb") as opened:
        parquet.write_file(folder, PLACE, rows(10))
        assert pq.read_table(opened).num_rows == 150_000
    assert ds.dataset(tmp_path / "hits", partitioning="hive").count_rows() == 10


# --- other writers, who say what they have read --------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["local", "memory"])
def test_replace_replaces_only_the_version_that_was_read(tmp_path: Path, scheme: str):
    folder = Folder(str(tmp_path) if scheme == "local" else f"memory://{uuid.uuid4().hex}")

    def write(data: bytes, before: Version | None) -> None:
        with folder.replace(PLACE, before=before) as file:
            file.write(data)

    write(b"first", None)
    with pytest.raises(ChangedError, match="launch this one again"):
        write(b"another first", None)
    with folder.open(PLACE) as file:
        read = folder.get_version(file)
    assert read == folder.get_version(PLACE)
    write(b"second", read)
    for before in (read, None):
        with pytest.raises(ChangedError):
            write(b"third", before)
    with pytest.raises(ChangedError):
        folder.open(PLACE, read)
    assert (content(folder), folder.list_files("")) == (b"second", [PLACE])
    folder.remove(PLACE)
    with pytest.raises(ChangedError):
        write(b"third", read)
    write(b"fourth", None)
    assert folder.list_files("") == [PLACE]


@pytest.mark.parametrize("scheme", ["local", "memory"])
def test_many_writers_at_once_lose_nothing(tmp_path: Path, scheme: str):
    folder, start = Folder(str(tmp_path) if scheme == "local" else f"memory://{uuid.uuid4().hex}"), threading.Barrier(4)

    def add(letter: str) -> None:
        start.wait(10)

        def attempt() -> None:
            try:
                with folder.open(PLACE) as file:
                    before, version = file.read(), folder.get_version(file)
            except FileNotFoundError:
                before, version = b"", None
            with folder.replace(PLACE, before=version) as file:
                file.write(before + letter.encode())

        for _ in range(5):
            retry_if_changed(attempt)

    threads = [threading.Thread(target=add, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(content(folder)) == sorted(b"abcd" * 5)
    assert folder.list_files("") == [PLACE]


def test_waiting_run_logs_who_holds_the_folder(tmp_path: Path):
    folder, said, done = Folder(str(tmp_path)), queue.Queue[str](), threading.Event()

    def wait() -> None:
        with folder.lock("run 2", said.put):
            done.set()

    with folder.lock("run 1 of fetch_events", said.put):
        thread = threading.Thread(target=wait)
        thread.start()
        assert said.get(timeout=10).startswith("the data folder is in use by run 1 of fetch_events, since 20")
        assert not done.is_set()
    thread.join(10)
    assert done.is_set()
    assert all_files(tmp_path) == set()
