"""Replace files under SIGKILL, errors and concurrent writers: a reader sees the old or the new file."""

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

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from np6_assets.storage import parquet
from np6_assets.storage.files import ChangedError, Folder, Version, retry_if_changed
from np6_assets_tests.support.files import PLACE, create_remote_folder, read_file, write_file

ROOT = Path(__file__).parents[2]


def list_all_files(folder: Path) -> set[str]:
    """List every file below a folder, with hidden ones."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


class ExpectedError(Exception):
    pass


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path)) if request.param == "local" else create_remote_folder()


@pytest.fixture
def local(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


# --- SIGKILL -------------------------------------------------------------------------------------------------------

# Replaces a file repeatedly, with 200 000 times the letter of its version. Prints each step.
WRITER = """
import itertools, sys
from np6_assets.storage.files import Folder

folder, place = Folder(sys.argv[1]), sys.argv[2]

def print_step(step):
    print(step, flush=True)
    sys.stdin.readline()

for version in itertools.count():
    letter = b"%c" % (ord("a") + version % 26)
    with folder.replace(place) as file:
        print_step("opened")
        file.write(letter * 100_000)
        file.flush()
        print_step("half")
        file.write(letter * 100_000)
        file.flush()
        print_step("whole")
    print_step("swapped")
"""


def kill_writer(folder: Path, lines: int, *, at_once: bool) -> list[str]:
    """Kill a writer after so many lines; `at_once`: while it waits, else while it goes on. Return what it printed."""
    command = [sys.executable, "-c", WRITER, str(folder), PLACE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n" * (lines - 1 if at_once else 1000))
        process.stdin.flush()
        printed = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        return [line.strip() for line in (*printed, *process.stdout)]


def read_version(folder: Path) -> int:
    """Return the version of the file, which must be whole; -1 without a file."""
    path = folder / PLACE
    if not path.exists():
        return -1
    text = path.read_bytes()
    assert text == text[:1] * 200_000
    return text[0] - ord("a")


@pytest.mark.parametrize(
    ("lines", "step", "version"),
    [(1, "opened", -1), (2, "half", -1), (10, "half", 1), (11, "whole", 1), (12, "swapped", 2)],
)
def test_writer_killed_at_a_step_leaves_the_old_or_the_new_file(tmp_path: Path, lines: int, step: str, version: int):
    assert kill_writer(tmp_path, lines, at_once=True)[-1] == step
    assert read_version(tmp_path) == version
    left = list_all_files(tmp_path) - {PLACE}
    assert len(left) == (step != "swapped")
    assert set(Folder(str(tmp_path)).list_unfinished(PLACE)) == left


def test_writer_killed_at_random_leaves_the_old_or_the_new_file(tmp_path: Path):
    rng = random.Random(20260320)
    for attempt in range(3):
        printed = kill_writer(tmp_path / f"{attempt}", rng.randrange(6, 100), at_once=False)
        swapped = sum(line == "swapped" for line in printed)
        # the last swap may not have been printed
        assert read_version(tmp_path / f"{attempt}") in {(swapped - 1) % 26, swapped % 26}


# --- errors and other writers --------------------------------------------------------------------------------------


def test_file_is_replaced_when_the_block_ends_without_an_error(folder: Folder):
    assert not folder.exists(PLACE)
    for content in (b"old", b"new", b""):
        before = read_file(folder) if folder.exists(PLACE) else None
        for error in (True, False):
            try:
                with folder.replace(PLACE) as file:
                    file.write(content)
                    file.flush()
                    assert (read_file(folder) if folder.exists(PLACE) else None) == before
                    if error:
                        raise ExpectedError
            except ExpectedError:
                assert folder.list_files("") == ([] if before is None else [PLACE])
        assert read_file(folder) == content
        assert folder.list_files("") == [PLACE]
    assert folder.get_size(PLACE) == 0
    folder.remove(PLACE)
    assert not folder.exists(PLACE)


def test_last_of_two_concurrent_writers_wins(local: Folder):
    with local.replace(PLACE) as late:
        late.write(b"late" * 1000)
        with local.replace(PLACE) as early:
            early.write(b"early")
            late.write(b"late" * 1000)
        assert read_file(local) == b"early"
    assert read_file(local) == b"late" * 2000
    assert local.list_files("") == [PLACE]


def test_replace_removes_unfinished_files_of_dead_writers(local: Folder, tmp_path: Path):
    write_file(local, b"old")
    place = (tmp_path / PLACE).parent
    stale, active, other_name = (
        place / name for name in (".part-0.parquet.1.tmp", ".part-0.parquet.2.tmp", ".other.tmp")
    )
    two_days_ago = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    for path in (stale, active, other_name):
        path.write_bytes(b"left")
        if path != active:
            os.utime(path, (two_days_ago, two_days_ago))
    write_file(local, b"new")
    assert {path.name for path in place.iterdir()} == {"part-0.parquet", active.name, other_name.name}


@pytest.mark.parametrize(("mask", "mode", "expected"), [(0o027, None, 0o640), (0, 0o640, 0o640), (0o077, 0o640, 0o640)])
def test_replace_sets_the_mode_or_respects_the_umask(
    local: Folder, tmp_path: Path, mask: int, mode: int | None, expected: int
):
    before = os.umask(mask)
    try:
        with local.replace(PLACE, mode) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / PLACE).stat().st_mode & 0o777 == expected


def test_replace_syncs_the_file_and_its_folders(local: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(str(path.relative_to(tmp_path)) if path.is_dir() else "the file")

    def record_rename(path: Path, target: Path) -> Path:
        steps.append("the rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_rename)
    write_file(local, b"x")
    assert steps == ["the file", "the rename", "hits/event_date=2026-03-20", "hits", "."]


def test_unfinished_files_are_listed(folder: Folder):
    parent = Path(PLACE).parent
    names = [".part-0.parquet.0123.tmp", ".part-0.parquet.4567.tmp"]
    for name in ("part-0.parquet", *names, ".other.tmp", ".part-0.parquet.0123", "part-0.parquet.0123.tmp"):
        write_file(folder, b"x", str(parent / name))
    assert folder.list_unfinished(PLACE) == [str(parent / name) for name in names]
    assert folder.list_unfinished("optouts/event_date=2026-03-20/part-0.parquet") == []


def test_remove_removes_the_folder_if_it_is_empty(local: Folder, tmp_path: Path):
    local.remove(PLACE)
    write_file(local, b"x")
    write_file(local, b"y", "hits/event_date=2026-03-21/part-0.parquet")
    local.remove(PLACE)
    assert [path.name for path in (tmp_path / "hits").iterdir()] == ["event_date=2026-03-21"]
    (tmp_path / "hits/event_date=2026-03-21/note.txt").write_text("mine")
    local.remove("hits/event_date=2026-03-21/part-0.parquet")
    assert list_all_files(tmp_path) == {"hits/event_date=2026-03-21/note.txt"}


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
START_MS = 1_774_000_000_000


def build_rows(count: int) -> pa.Table:
    numbers = np.arange(count)
    ids = [f"id {number} é" for number in (numbers * 7919) % (count * 3)]
    return pa.table([ids, (numbers + START_MS).astype("datetime64[ms]"), numbers % 3 == 0], schema=SCHEMA)


def write_rows(data: pa.Table | pa.RecordBatchReader) -> tuple[parquet.WrittenFile, bytes]:
    folder = create_remote_folder()
    return parquet.write_file(folder, PLACE, data), read_file(folder)


def build_reader(data: pa.Table, size: int) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, data.num_rows, size):
            yield from data.slice(start, size).to_batches()
            yield pa.RecordBatch.from_pylist([], schema=data.schema)

    return pa.RecordBatchReader.from_batches(data.schema, batches())


def test_write_file_writes_the_same_bytes_for_any_batches_and_returns_their_facts():
    rows = build_rows(70_000)  # three row groups
    result, content = write_rows(rows)
    for size in (1_000, 32_767, 32_768, 32_769, 70_000):
        assert write_rows(build_reader(rows, size))[1] == content
    back = pq.read_table(io.BytesIO(content))
    assert back.equals(rows)
    assert back.schema.equals(SCHEMA)
    assert (result.rows, result.bytes) == (70_000, len(content))
    assert result.first_event == datetime.fromtimestamp(1_774_000_000, UTC)
    assert result.last_event == datetime.fromtimestamp(1_774_000_069.999, UTC)
    assert result.path.endswith(PLACE)


def test_write_file_writes_the_columns_without_rows():
    for nothing in (SCHEMA.empty_table(), pa.RecordBatchReader.from_batches(SCHEMA, iter(()))):
        result, content = write_rows(nothing)
        back = pq.read_table(io.BytesIO(content))
        assert back.schema.equals(SCHEMA)
        assert (result.rows, back.num_rows, result.first_event, result.last_event) == (0, 0, None, None)


def test_write_file_keeps_the_metadata_of_the_rows():
    marked = build_rows(3).replace_schema_metadata({"np6.fetched_until": "2026-03-21T00:00:00+00:00"})
    for data in (marked, build_reader(marked, 2)):
        metadata = pq.read_metadata(io.BytesIO(write_rows(data)[1])).metadata
        assert metadata[b"np6.fetched_until"] == b"2026-03-21T00:00:00+00:00"


def test_reader_reads_the_old_file_to_its_end_while_it_is_replaced(local: Folder, tmp_path: Path):
    rows = build_rows(70_000)

    def yield_and_fail() -> Iterator[pa.RecordBatch]:
        yield from build_rows(70_000).to_batches()
        raise ExpectedError

    parquet.write_file(local, PLACE, rows)
    with (tmp_path / PLACE).open("rb") as opened:
        with pytest.raises(ExpectedError):
            parquet.write_file(local, PLACE, pa.RecordBatchReader.from_batches(SCHEMA, yield_and_fail()))
        assert list_all_files(tmp_path) == {PLACE}
        parquet.write_file(local, PLACE, build_rows(10))
        assert pq.read_table(opened).num_rows == 70_000
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
    assert read == folder.find_version(PLACE)
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
        def attempt() -> None:
            try:
                with folder.open(PLACE) as file:
                    before, version = file.read(), folder.get_version(file)
            except FileNotFoundError:
                before, version = b"", None
            with folder.replace(PLACE, before=version) as file:
                file.write(before + letter.encode())

        start.wait(10)
        for _ in range(5):
            retry_if_changed(attempt)

    threads = [threading.Thread(target=add, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(read_file(folder)) == sorted(b"abcd" * 5)
    assert folder.list_files("") == [PLACE]


def test_waiting_run_logs_who_holds_the_folder(local: Folder, tmp_path: Path):
    messages, done = queue.Queue[str](), threading.Event()

    def wait() -> None:
        with local.lock("run 2", messages.put):
            done.set()

    with local.lock("run 1 of fetch_events", messages.put):
        thread = threading.Thread(target=wait)
        thread.start()
        assert messages.get(timeout=10).startswith("the data folder is in use by run 1 of fetch_events, since 20")
        assert not done.is_set()
    thread.join(10)
    assert done.is_set()
    assert list_all_files(tmp_path) == set()
