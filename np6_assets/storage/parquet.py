"""Parquet files and datasets: one file a partition, the partition column in the path alone."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain, islice
from typing import IO, Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from np6_assets.partitions import partition_day
from np6_assets.storage.files import ANY_VERSION, ExpectedVersion, Folder, Version

FILE_NAME = "part-0.parquet"
ROW_GROUP_ROWS = 2**15

_ROWS_PER_TABLE = 2**13
_SAMPLE_ROWS = 2**12

CONTENT = b"np6.content"
"""Key in a file's Parquet metadata: a digest of its rows, independent of when they were fetched."""

Tables: TypeAlias = pa.RecordBatchReader | pa.Table


@dataclass(frozen=True)
class WrittenFile:
    """A written file: `rows`, its size in `bytes`, and the first and last `event_time` if it has that column.

    `content` is a digest of the rows, `version` one of the rows and the file's metadata.
    """

    path: str
    rows: int
    bytes: int
    content: str
    version: str
    first_event: datetime | None
    last_event: datetime | None


def build_path(asset: str, partition_column: str | None = None, partition: str | None = None) -> str:
    """Build the path of an asset's file, or of a partition's, below the data folder (Hive style)."""
    folder = asset if partition is None else posixpath.join(asset, f"{partition_column}={partition}")
    return posixpath.join(folder, FILE_NAME)


def stream_tables(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.RecordBatchReader:
    """Stream tables lazily, with the columns and the metadata of a schema."""

    def batches() -> Iterator[pa.RecordBatch]:
        for table in tables:
            for batch in table.select(schema.names).to_batches():
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def list_days(folder: Folder, asset: str, partition_column: str) -> list[date]:
    """List the days of an asset that have a folder, sorted; other programs' folders are skipped."""
    days = (partition_day(name, partition_column) for name in folder.list_folders(asset))
    return [day for day in days if day is not None]


def write_file(
    folder: Folder, relative: str, rows: Tables, mode: int | None = None, before: ExpectedVersion = ANY_VERSION
) -> WrittenFile:
    """Replace a file atomically, see `Folder.replace`. The same rows give the same bytes."""
    count = 0
    first = last = None
    with ExitStack() as stack:
        groups = stack.enter_context(closing(_prefetch(_split_row_groups(rows))))
        head = list(islice(groups, 1))
        repeating = [name for group in head for name in _find_repeating_columns(group)]
        digesting = stack.enter_context(_DigestWriter(stack.enter_context(folder.replace(relative, mode, before))))
        writer = stack.enter_context(
            pq.ParquetWriter(
                digesting,
                rows.schema,
                compression="zstd",
                use_dictionary=repeating,
                # texts are ids in random order: their minimum and maximum help no reader
                write_statistics=[field.name for field in rows.schema if not pa.types.is_string(field.type)],
            )
        )
        for group in chain(head, groups):
            if "event_time" in group.column_names:
                times = group.column("event_time")
                first, last = first or times[0].as_py(), times[-1].as_py()
            count += group.num_rows
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
        content = digesting.digest()  # of the pages: the footer with the schema's metadata is written later
        writer.add_key_value_metadata({CONTENT: content.encode()})
    return WrittenFile(folder.path(relative), count, digesting.size, content, digesting.digest(), first, last)


def _find_repeating_columns(rows: pa.Table) -> list[str]:
    """Find the columns whose values mostly repeat: a dictionary of the others costs time and space."""
    sample = rows.slice(0, _SAMPLE_ROWS)
    return [name for name in sample.column_names if pc.count_distinct(sample[name]).as_py() * 2 <= sample.num_rows]


class _DigestWriter(io.RawIOBase):
    """A file that passes on what is written, with its `size` and a digest of it in hexadecimal."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.blake2b(digest_size=16)
        self.size = 0

    def digest(self) -> str:
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        written = self._file.write(data)
        self.size += written
        return written


def _prefetch(groups: Iterator[pa.Table]) -> Generator[pa.Table]:
    """Yield the same row groups; the next one is computed while one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="np6-rows") as pool:
        group = next(groups, None)
        while group is not None:
            # a group that is not full is the last: a small file starts no thread
            coming = pool.submit(next, groups, None) if group.num_rows == ROW_GROUP_ROWS else None
            yield group
            group = coming and coming.result()


def _split_row_groups(rows: Tables) -> Iterator[pa.Table]:
    """Split rows into tables of exactly ROW_GROUP_ROWS rows, the last one smaller.

    So the bytes do not depend on how the rows are batched.
    """
    batches: Iterable[pa.RecordBatch] = rows.to_batches() if isinstance(rows, pa.Table) else rows
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        pending.append(batch)
        count += batch.num_rows
        while count >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(pending)
            yield table.slice(0, ROW_GROUP_ROWS).combine_chunks()
            pending = table.slice(ROW_GROUP_ROWS).to_batches()
            count -= ROW_GROUP_ROWS
    if count:
        yield pa.Table.from_batches(pending).combine_chunks()


def read_footer(folder: Folder, relative: str) -> pq.FileMetaData:
    """Read a file's footer: number of rows, schema, metadata."""
    with folder.open(relative) as file:
        return pq.read_metadata(file)


def get_digest(footer: pq.FileMetaData) -> str:
    """Return the digest of a file's rows: CONTENT, or for another program's file a digest of its footer."""
    metadata = (footer.metadata or {}).get(CONTENT)
    if metadata is not None:
        return str(metadata.decode())
    return hashlib.blake2b(json.dumps(footer.to_dict(), default=str).encode(), digest_size=16).hexdigest()


def read_schema(folder: Folder, relative: str) -> tuple[pa.Schema, Version | None]:
    """Read a file's schema with its metadata except CONTENT, which every write computes; and its version."""
    with folder.open(relative) as file:
        found, version = pq.read_schema(file), folder.get_version(file)
    metadata = {name: value for name, value in (found.metadata or {}).items() if name != CONTENT}
    return found.with_metadata(metadata or None), version


def get_maximum(footer: pq.FileMetaData, column: str) -> Any:
    """Return the maximum of a column by the file's statistics; None without them."""
    place = footer.schema.names.index(column)
    groups = (footer.row_group(number).column(place).statistics for number in range(footer.num_row_groups))
    return max((one.max for one in groups if one is not None and one.has_min_max), default=None)


def read_tables(
    folder: Folder, relative: str, columns: Sequence[str], version: Version | None = None
) -> Iterator[pa.Table]:
    """Yield columns of a file in tables of some thousand rows. Raises ChangedError for another version."""
    with folder.open(relative, version) as file:
        for batch in pq.ParquetFile(file).iter_batches(_ROWS_PER_TABLE, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def open_dataset(folder: Folder, asset: str, schema: pa.Schema) -> ds.FileSystemDataset:
    """Open an asset without partitions, lazily. Raises FileNotFoundError if it does not exist."""
    return _build_dataset(folder, {folder.path(build_path(asset)): None}, schema)


def open_partitioned_dataset(
    folder: Folder, asset: str, schema: pa.Schema, partition_column: str, partitions: Iterable[str]
) -> ds.FileSystemDataset:
    """Open those of the partitions that exist, lazily; the partition column comes last, as a date."""
    files = {build_path(asset, partition_column, partition): partition for partition in partitions}
    there = {
        folder.path(file): ds.field(partition_column) == date.fromisoformat(partition)
        for file, partition in files.items()
        if folder.exists(file)
    }
    return _build_dataset(folder, there, schema.append(pa.field(partition_column, pa.date32())))


def reopen_dataset(folder: Folder, data: ds.FileSystemDataset) -> ds.FileSystemDataset:
    """Reopen the files of a dataset through a folder, to use its cached listing."""
    files = {fragment.path: fragment.partition_expression for fragment in data.get_fragments()}
    return _build_dataset(folder, files, data.schema)


def _build_dataset(
    folder: Folder, files: Mapping[str, ds.Expression | None], schema: pa.Schema
) -> ds.FileSystemDataset:
    """Build a dataset of the files with these paths or addresses, each with its partition as an expression."""
    remote = folder.filesystem
    filesystem = pafs.LocalFileSystem() if remote is None else pafs.PyFileSystem(pafs.FSSpecHandler(remote))
    parquet = ds.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(path, filesystem, partition_expression=expression) for path, expression in files.items()
    ]
    return ds.FileSystemDataset(fragments, schema, parquet, filesystem)


def list_partitions(data: ds.FileSystemDataset, partition_column: str) -> dict[str, ds.ParquetFileFragment]:
    """List the partitions that exist in a dataset, by key."""
    return {
        ds.get_partition_keys(fragment.partition_expression)[partition_column].isoformat(): fragment
        for fragment in data.get_fragments()
    }


def select_fragments(data: ds.FileSystemDataset, fragments: Iterable[ds.ParquetFileFragment]) -> ds.FileSystemDataset:
    """Select some fragments of a dataset, as a dataset of the same schema."""
    return ds.FileSystemDataset(list(fragments), data.schema, data.format, data.filesystem)
