"""Replace files under SIGKILL, errors and concurrent writers: a reader sees the old or the new file."""

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
from np6_assets_tests.support.files import PLACE, create_remote_folder, read_file, write_file

ROOT = Path(__file__).parents[2]


def list_all_files(folder: Path) -> set[str]:
    """List every file below a folder, with hidden ones."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def list_data_files(folder: Path) -> set[str]:
    """List the files that a reader of the folder takes for data: those whose name does not begin with a dot."""
    return {name for name in list_all_files(folder) if not Path(name).name.startswith((".", "_"))}


# --- SIGKILL -------------------------------------------------------------------------------------------------------

# Replaces a file repeatedly, with 200 000 times the letter of its version. Prints each step, and stops at one of them.
WRITER = """
import itertools, sys, time
from np6_assets.storage.files import Folder

folder, place, stop = Folder(sys.argv[1]), sys.argv[2], sys.argv[3:]

def print_step(version, step):
    print(version, step, flush=True)
    if stop == [str(version), step]:
        sys.stdin.read()

for version in itertools.count():
    letter = b"%c" % (ord("a") + version % 26)
    print_step(version, "before")
    with folder.replace(place) as file:
        print_step(version, "opened")
        file.write(letter * 100_000)
        file.flush()
        print_step(version, "half")
        file.write(letter * 100_000)
        file.flush()
        print_step(version, "whole")
    print_step(version, "swapped")
"""


@contextlib.contextmanager
def start_writer(folder: Path, *stop: object) -> Iterator[subprocess.Popen[str]]:
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


def kill_after(process: subprocess.Popen[str], lines: int) -> list[str]:
    """Kill the process once it has printed so many lines, and return all lines that it printed."""
    assert process.stdout is not None
    printed = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    printed += process.stdout.readlines()
    assert process.wait() == -signal.SIGKILL
    return [line.strip() for line in printed]


def read_version(folder: Path) -> int | None:
    """Return the version of the file, which must be whole; None without a file."""
    path = folder / PLACE
    if not path.exists():
        return None
    text = path.read_bytes()
    assert text == text[:1] * 200_000
    return text[0] - ord("a")


@pytest.mark.parametrize("step", ["before", "opened", "half", "whole", "swapped"])
@pytest.mark.parametrize("version", [0, 2])
def test_replace_killed_at_a_step_leaves_the_old_or_the_new_file(tmp_path: Path, version: int, step: str):
    folder, temporary = tmp_path / "data", tmp_path / "tmp"
    temporary.mkdir()
    steps = ["before", "opened", "half", "whole", "swapped"]
    with start_writer(folder, version, step) as process:
        kill_after(process, 5 * version + steps.index(step) + 1)
    expected = version if step == "swapped" else version - 1
    assert read_version(folder) == (None if expected < 0 else expected)
    assert list_all_files(folder) == ({PLACE} if expected >= 0 else set())
    assert list_all_files(temporary) == set()


def test_replace_killed_at_random_leaves_the_old_or_the_new_file(tmp_path: Path):
    rng = random.Random(20260320)
    for attempt in range(6):
        folder = tmp_path / f"{attempt}" / "data"
        (tmp_path / f"{attempt}" / "tmp").mkdir(parents=True)
        with start_writer(folder) as process:
            printed = kill_after(process, rng.randrange(6, 120))
        swapped = sum(line.endswith("swapped") for line in printed)
        version = read_version(folder)
        # the last swap may not have been printed
        assert version in {(swapped - 1) % 26, swapped % 26}
        assert list_data_files(folder) == {PLACE}
        assert list_all_files(folder.parent / "tmp") == set()


# --- errors and other writers --------------------------------------------------------------------------------------


@pytest.fixture(params=["nameless", "hidden"])
def local(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A local folder, on a file system with and without O_TMPFILE."""
    if request.param == "hidden":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return tmp_path / "data"


class ExpectedError(Exception):
    pass


def fail_to_replace(folder: Folder) -> None:
    with folder.replace(PLACE) as file:
        file.write(b"half of something")
        file.flush()
        raise ExpectedError


def test_file_is_replaced_when_the_block_ends(local: Path):
    folder = Folder(str(local))
    assert not folder.exists(PLACE)
    for content in (b"old", b"new", b""):
        with folder.replace(PLACE) as file:
            file.write(content)
            assert list_data_files(local) <= {PLACE}
        assert (local / PLACE).read_bytes() == content
        assert list_all_files(local) == {PLACE}
    assert folder.exists(PLACE)
    assert folder.get_size(PLACE) == 0


def test_error_in_the_block_keeps_the_old_file(local: Path):
    folder = Folder(str(local))
    with pytest.raises(ExpectedError):
        fail_to_replace(folder)
    assert list_all_files(local) == set()
    write_file(folder, b"old")
    with pytest.raises(ExpectedError):
        fail_to_replace(folder)
    assert (local / PLACE).read_bytes() == b"old"
    assert list_all_files(local) == {PLACE}


def test_last_of_two_concurrent_writers_wins(local: Path):
    folder = Folder(str(local))
    with folder.replace(PLACE) as late:
        late.write(b"late" * 1000)
        with folder.replace(PLACE) as early:
            early.write(b"early")
            late.write(b"late" * 1000)
        assert (local / PLACE).read_bytes() == b"early"
    assert (local / PLACE).read_bytes() == b"late" * 2000
    assert list_all_files(local) == {PLACE}


def test_replace_removes_unfinished_files_of_dead_writers(local: Path):
    folder = Folder(str(local))
    write_file(folder, b"old")
    place = (local / PLACE).parent
    stale, active, other_name = (
        place / name for name in (".part-0.parquet.1.tmp", ".part-0.parquet.2.tmp", ".other.tmp")
    )
    for path in (stale, active, other_name):
        path.write_bytes(b"left")
    two_days_ago = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    os.utime(stale, (two_days_ago, two_days_ago))
    os.utime(other_name, (two_days_ago, two_days_ago))
    write_file(folder, b"new")
    assert {path.name for path in place.iterdir()} == {"part-0.parquet", active.name, other_name.name}


def test_replace_respects_the_umask(local: Path):
    mask = os.umask(0o027)
    try:
        write_file(Folder(str(local)), b"x")
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


def test_replace_syncs_the_file_and_its_folders(local: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(str(path.relative_to(local)) if path.is_dir() else "the file")

    def record_rename(path: Path, target: Path) -> Path:
        steps.append("the rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_rename)
    write_file(Folder(str(local)), b"x")
    assert steps == ["the file", "the rename", "hits/event_date=2026-03-20", "hits", "."]


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path)) if request.param == "local" else create_remote_folder()


def test_unfinished_files_are_listed(folder: Folder):
    parent = Path(PLACE).parent
    names = [".part-0.parquet.0123.tmp", ".part-0.parquet.4567.tmp"]
    for name in ("part-0.parquet", *names, ".other.tmp", ".part-0.parquet.0123", "part-0.parquet.0123.tmp"):
        write_file(folder, b"x", str(parent / name))
    assert folder.list_unfinished(PLACE) == [str(parent / name) for name in names]
    assert folder.list_unfinished("optouts/event_date=2026-03-20/part-0.parquet") == []


def test_remove_removes_the_folder_if_it_is_empty(tmp_path: Path):
    folder = Folder(str(tmp_path))
    folder.remove(PLACE)
    write_file(folder, b"x")
    write_file(folder, b"y", "hits/event_date=2026-03-21/part-0.parquet")
    folder.remove(PLACE)
    folder.remove(PLACE)
    assert [path.name for path in (tmp_path / "hits").iterdir()] == ["event_date=2026-03-21"]
    (tmp_path / "hits/event_date=2026-03-21/note.txt").write_text("mine")
    folder.remove("hits/event_date=2026-03-21/part-0.parquet")
    assert list_all_files(tmp_path) == {"hits/event_date=2026-03-21/note.txt"}


# --- remote --------------------------------------------------------------------------------------------------------


# requests to a store are tested in test_remote.py


def test_remote_file_is_replaced_when_the_block_ends():
    folder = create_remote_folder()
    write_file(folder, b"old")
    with folder.replace(PLACE) as file:
        file.write(b"new")
        assert read_file(folder) == b"old"
    assert read_file(folder) == b"new"
    assert folder.list_files("") == [PLACE]
    assert folder.get_size(PLACE) == 3
    folder.remove(PLACE)
    assert not folder.exists(PLACE)


def test_error_before_the_upload_keeps_the_remote_file():
    folder = create_remote_folder()
    write_file(folder, b"old")
    with pytest.raises(ExpectedError):
        fail_to_replace(folder)
    assert read_file(folder) == b"old"
    assert folder.list_files("") == [PLACE]


def test_pending_upload_leaves_no_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = create_remote_folder()
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


def build_rows(count: int) -> pa.Table:
    rng = random.Random(1)
    return pa.table(
        [
            [f"id {rng.randrange(count * 3)} é" for _ in range(count)],
            pa.array([1_774_000_000_000 + number for number in range(count)], pa.timestamp("ms", "UTC")),
            [rng.choice((True, False, None)) for _ in range(count)],
        ],
        schema=SCHEMA,
    )


def write_rows(data: pa.Table | pa.RecordBatchReader) -> tuple[parquet.WrittenFile, bytes]:
    folder = create_remote_folder()
    return parquet.write_file(folder, PLACE, data), read_file(folder)


def build_reader(data: pa.Table, sizes: list[int]) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        start = turn = 0
        while start < data.num_rows:
            size = sizes[turn % len(sizes)]
            yield from data.slice(start, size).to_batches()
            if turn % 3 == 0:
                yield pa.RecordBatch.from_pylist([], schema=data.schema)  # an empty one now and then
            start, turn = start + size, turn + 1

    return pa.RecordBatchReader.from_batches(data.schema, batches())


LARGE = build_rows(150_000)
LARGE_BYTES = write_rows(LARGE)[1]


@hypothesis_settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.sampled_from([1_000, 8_191, 65_535, 65_536, 65_537, 140_000]), min_size=1, max_size=4))
def test_write_file_writes_the_same_bytes_for_any_batches(sizes: list[int]):
    assert write_rows(build_reader(LARGE, sizes))[1] == LARGE_BYTES


def test_write_file_returns_the_facts_of_the_file():
    result, content = write_rows(LARGE)
    back = pq.read_table(io.BytesIO(content))
    assert back.equals(LARGE)
    assert back.schema.equals(SCHEMA)
    assert result.rows == 150_000
    assert result.bytes == len(content)
    assert result.first_event == datetime.fromtimestamp(1_774_000_000, UTC)
    assert result.last_event == datetime.fromtimestamp(1_774_000_149.999, UTC)
    assert result.path.endswith(PLACE)


def test_write_file_writes_the_columns_without_rows():
    for nothing in (SCHEMA.empty_table(), pa.RecordBatchReader.from_batches(SCHEMA, iter(()))):
        result, content = write_rows(nothing)
        back = pq.read_table(io.BytesIO(content))
        assert back.schema.equals(SCHEMA)
        assert (result.rows, back.num_rows, result.first_event, result.last_event) == (0, 0, None, None)


def test_write_file_keeps_the_metadata_of_the_rows():
    marked = build_rows(3).replace_schema_metadata({"np6.fetched_until": "2026-03-21T00:00:00+00:00"})
    for data in (marked, build_reader(marked, [2])):
        metadata = pq.read_metadata(io.BytesIO(write_rows(data)[1])).metadata
        assert metadata[b"np6.fetched_until"] == b"2026-03-21T00:00:00+00:00"


def test_write_file_keeps_the_old_file_if_the_rows_fail(tmp_path: Path):
    folder = Folder(str(tmp_path))
    parquet.write_file(folder, PLACE, build_rows(10))

    def yield_and_fail() -> Iterator[pa.RecordBatch]:
        yield from LARGE.to_batches(max_chunksize=70_000)[:1]
        raise ExpectedError

    with pytest.raises(ExpectedError):
        parquet.write_file(folder, PLACE, pa.RecordBatchReader.from_batches(SCHEMA, yield_and_fail()))
    assert pq.read_table(tmp_path / PLACE).num_rows == 10
    assert list_all_files(tmp_path) == {PLACE}


def test_reader_of_the_old_file_reads_it_to_its_end(tmp_path: Path):
    folder = Folder(str(tmp_path))
    parquet.write_file(folder, PLACE, LARGE)
    with (tmp_path / PLACE).open("rb") as opened:
        parquet.write_file(folder, PLACE, build_rows(10))
        assert pq.read_table(opened).num_rows == 150_000
    assert ds.dataset(tmp_path / "hits", partitioning="hive").count_rows() == 10


# --- writers that replace the version that they read ----------------------------------------------------------------


def test_replace_replaces_only_the_version_that_was_read(folder: Folder):
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
    assert (read_file(folder), folder.list_files("")) == (b"second", [PLACE])
    folder.remove(PLACE)
    with pytest.raises(ChangedError):
        write(b"third", read)
    write(b"fourth", None)
    assert folder.list_files("") == [PLACE]


def test_concurrent_writers_lose_nothing(folder: Folder):
    start = threading.Barrier(4)

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
    assert sorted(read_file(folder)) == sorted(b"abcd" * 5)
    assert folder.list_files("") == [PLACE]


def test_waiting_run_logs_who_holds_the_folder(tmp_path: Path):
    folder, messages, done = Folder(str(tmp_path)), queue.Queue[str](), threading.Event()

    def wait() -> None:
        with folder.lock("run 2", messages.put):
            done.set()

    with folder.lock("run 1 of fetch_events", messages.put):
        thread = threading.Thread(target=wait)
        thread.start()
        assert messages.get(timeout=10).startswith("the data folder is in use by run 1 of fetch_events, since 20")
        assert not done.is_set()
    thread.join(10)
    assert done.is_set()
    assert list_all_files(tmp_path) == set()
