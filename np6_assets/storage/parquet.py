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
from np6_assets.storage.files import ANYTHING, Before, Folder, Version

FILE_NAME = "part-0.parquet"
ROW_GROUP_ROWS = 2**15

_ROWS_PER_TABLE = 2**13
_SAMPLE_ROWS = 2**12

CONTENT = b"np6.content"
"""Key in a file's Parquet metadata: a digest of its rows, the same for the same rows whenever they were fetched."""

Tables: TypeAlias = pa.RecordBatchReader | pa.Table


@dataclass(frozen=True)
class Written:
    """What a file holds: `rows`, its size in `bytes`, and the first and last `event_time` where it has that column.

    `content` is a digest of the rows, `version` one of the rows and what else the file says of itself.
    """

    path: str
    rows: int
    bytes: int
    content: str
    version: str
    first_event: datetime | None
    last_event: datetime | None


def file_of(asset: str, partition_column: str | None = None, partition: str | None = None) -> str:
    """Where an asset's file, or that of one of its partitions, stands below the data folder (Hive style)."""
    folder = asset if partition is None else posixpath.join(asset, f"{partition_column}={partition}")
    return posixpath.join(folder, FILE_NAME)


def stream(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.RecordBatchReader:
    """Tables one after the other, lazily, with the columns and the metadata of a schema and no other."""

    def batches() -> Iterator[pa.RecordBatch]:
        for table in tables:
            for batch in table.select(schema.names).to_batches():
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def days_stored(folder: Folder, asset: str, partition_column: str) -> list[date]:
    """The days of an asset that have a folder of their own, in order; other programs' folders are passed over."""
    days = (partition_day(name, partition_column) for name in folder.folders(asset))
    return [day for day in days if day is not None]


def write(folder: Folder, relative: str, rows: Tables, mode: int | None = None, before: Before = ANYTHING) -> Written:
    """Replace a file atomically; see `Folder.replacing` for the rest. The same rows give the same bytes."""
    count = 0
    first = last = None
    with ExitStack() as stack:
        groups = stack.enter_context(closing(_ahead(_row_groups(rows))))
        head = list(islice(groups, 1))
        repeating = [name for group in head for name in _repeating(group)]
        digesting = stack.enter_context(_Digesting(stack.enter_context(folder.replacing(relative, mode, before))))
        writer = stack.enter_context(
            pq.ParquetWriter(
                digesting,
                rows.schema,
                compression="zstd",
                use_dictionary=repeating,
                write_statistics=_ordered(rows.schema),
            )
        )
        for group in chain(head, groups):
            if "event_time" in group.column_names:
                times = group.column("event_time")
                first, last = first or times[0].as_py(), times[-1].as_py()
            count += group.num_rows
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
        content = digesting.digest()  # of the pages: the footer, in which the schema's metadata is, comes after them
        writer.add_key_value_metadata({CONTENT: content.encode()})
    return Written(folder.path(relative), count, digesting.size, content, digesting.digest(), first, last)


def _ordered(schema: pa.Schema) -> list[str]:
    """The columns of which a reader can use the least and the greatest value; texts are ids in random order."""
    return [field.name for field in schema if not pa.types.is_string(field.type)]


def _repeating(rows: pa.Table) -> list[str]:
    """The columns in whose first values most are repeated: a dictionary of the others costs time, and space."""
    sample = rows.slice(0, _SAMPLE_ROWS)
    return [name for name in sample.column_names if pc.count_distinct(sample[name]).as_py() * 2 <= sample.num_rows]


class _Digesting(io.RawIOBase):
    """A file that passes on what is written, and knows its `size` and a digest of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.blake2b(digest_size=16)
        self.size = 0

    def digest(self) -> str:
        """The digest of what was written so far, as hexadecimal digits."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        """As a file has it."""
        return True

    def write(self, data: Any) -> int:
        """Pass on and digest."""
        self._digest.update(data)
        written = self._file.write(data)
        self.size += written
        return written


def _ahead(groups: Iterator[pa.Table]) -> Generator[pa.Table]:
    """The same row groups, the next one being made while one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="np6-rows") as pool:
        group = next(groups, None)
        while group is not None:
            # one that is not full is the last: no thread is started for a small file
            coming = pool.submit(next, groups, None) if group.num_rows == ROW_GROUP_ROWS else None
            yield group
            group = coming and coming.result()


def _row_groups(rows: Tables) -> Iterator[pa.Table]:
    """Tables of exactly ROW_GROUP_ROWS rows, the last one smaller: pages depend on how rows are batched."""
    batches: Iterable[pa.RecordBatch] = rows.to_batches() if isinstance(rows, pa.Table) else rows
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        while count >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(held)
            yield table.slice(0, ROW_GROUP_ROWS).combine_chunks()
            held = table.slice(ROW_GROUP_ROWS).to_batches()
            count -= ROW_GROUP_ROWS
    if count:
        yield pa.Table.from_batches(held).combine_chunks()


def footer(folder: Folder, relative: str) -> pq.FileMetaData:
    """What a file says of itself: number of rows, schema, metadata."""
    with folder.open(relative) as file:
        return pq.read_metadata(file)


def content_of(footer: pq.FileMetaData) -> str:
    """What tells a file's rows from other ones: CONTENT, or of another program's file a digest of its footer."""
    said = (footer.metadata or {}).get(CONTENT)
    if said is not None:
        return str(said.decode())
    return hashlib.blake2b(json.dumps(footer.to_dict(), default=str).encode(), digest_size=16).hexdigest()


def schema(folder: Folder, relative: str) -> tuple[pa.Schema, Version | None]:
    """A file's columns, with what it says of itself but for CONTENT, which is written anew; and which version it is."""
    with folder.open(relative) as file:
        found, version = pq.read_schema(file), folder.version(file)
    said = {name: value for name, value in (found.metadata or {}).items() if name != CONTENT}
    return found.with_metadata(said or None), version


def greatest(footer: pq.FileMetaData, column: str) -> Any:
    """The greatest value of a column, as the file's statistics have it; None where there is none."""
    place = footer.schema.names.index(column)
    groups = (footer.row_group(number).column(place).statistics for number in range(footer.num_row_groups))
    return max((one.max for one in groups if one is not None and one.has_min_max), default=None)


def tables(folder: Folder, relative: str, columns: Sequence[str], version: Version | None = None) -> Iterator[pa.Table]:
    """Some columns of a file, in tables of some thousand rows. Raises ChangedError where it is not of that version."""
    with folder.open(relative, version) as file:
        for batch in pq.ParquetFile(file).iter_batches(_ROWS_PER_TABLE, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def dataset(folder: Folder, asset: str, schema: pa.Schema) -> ds.FileSystemDataset:
    """An asset without partitions, lazily. Raises FileNotFoundError where it is not there."""
    return _dataset(folder, {file_of(asset): None}, schema)


def partitioned_dataset(
    folder: Folder, asset: str, schema: pa.Schema, partition_column: str, partitions: Iterable[str]
) -> ds.FileSystemDataset:
    """Those of the partitions that are there, lazily; the partition column comes last, as a date."""
    files = {file_of(asset, partition_column, partition): partition for partition in partitions}
    there = {
        file: ds.field(partition_column) == date.fromisoformat(partition)
        for file, partition in files.items()
        if folder.exists(file)
    }
    return _dataset(folder, there, schema.append(pa.field(partition_column, pa.date32())))


def _dataset(folder: Folder, files: Mapping[str, ds.Expression | None], schema: pa.Schema) -> ds.FileSystemDataset:
    remote = folder.filesystem
    filesystem = pafs.LocalFileSystem() if remote is None else pafs.PyFileSystem(pafs.FSSpecHandler(remote))
    parquet = ds.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(folder.path(file), filesystem, partition_expression=expression)
        for file, expression in files.items()
    ]
    return ds.FileSystemDataset(fragments, schema, parquet, filesystem)


def read_through(folder: Folder, data: ds.FileSystemDataset) -> ds.FileSystemDataset:
    """The same files of a dataset, read through a folder, which knows what it has read already."""
    remote = folder.filesystem
    if remote is None:
        return data
    remote.adopt(data.filesystem.handler.fs)
    filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(remote))
    fragments = [
        data.format.make_fragment(fragment.path, filesystem, partition_expression=fragment.partition_expression)
        for fragment in data.get_fragments()
    ]
    return ds.FileSystemDataset(fragments, data.schema, data.format, filesystem)


def partitions_of(data: ds.FileSystemDataset, partition_column: str) -> dict[str, ds.ParquetFileFragment]:
    """The partitions of a dataset that are there, by key."""
    return {
        ds.get_partition_keys(fragment.partition_expression)[partition_column].isoformat(): fragment
        for fragment in data.get_fragments()
    }


def subset(data: ds.FileSystemDataset, fragments: Iterable[ds.ParquetFileFragment]) -> ds.FileSystemDataset:
    """Some of a dataset's partitions, as a dataset of the same schema."""
    return ds.FileSystemDataset(list(fragments), data.schema, data.format, data.filesystem)
