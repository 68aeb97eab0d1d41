"""Where data of receivers is stored: the event files and the quarantine, day by day; and how they are rewritten."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from np6_assets.contact.tombstones import FILE
from np6_assets.events.kinds import KINDS
from np6_assets.partition_checks import Records
from np6_assets.partitions import EVENT_DATE, partition_day
from np6_assets.storage.files import Folder, until_unchanged
from np6_assets.storage.io_manager import DATA_VERSION, written_metadata

if TYPE_CHECKING:
    import pyarrow as pa

    from np6_assets.storage.parquet import Written

_OF_THE_FETCH = ("reasons", "events_gained")
"""Metadata of a materialization that is of all that was fetched, and not right once rows have left or changed."""


@dataclass(frozen=True)
class DayFile:
    """A day's file of an event asset or, where it `is_quarantine`, of what did not fit."""

    asset: str
    day: date
    is_quarantine: bool

    @property
    def path(self) -> str:
        """Where it stands below the data folder."""
        return _path(self.asset, f"{EVENT_DATE}={self.day}")


def day_files(folder: Folder, warn: Callable[[str], None]) -> Iterator[DayFile]:
    """Each file that is there, asset by asset, oldest day first; `warn` is told of folders that are no day's."""
    for kind in KINDS:
        for asset in (kind.asset, kind.quarantine):
            for partition in folder.folders(asset):
                if (day := partition_day(partition)) is None:
                    warn(f"{asset}/{partition} is passed over: it is not a day that this project has written")
                    continue
                file = DayFile(asset, day, asset == kind.quarantine)
                if folder.exists(file.path):
                    yield file


def sweep(folder: Folder) -> list[str]:
    """Remove what killed writers left beside the files with data of receivers; gives what it was.

    Nobody may be writing: the folder is held alone.
    """
    found = folder.left_behind(FILE)
    for kind in KINDS:
        for asset in (kind.asset, kind.quarantine):
            for partition in folder.folders(asset):
                if partition_day(partition) is not None:
                    found += folder.left_behind(_path(asset, partition))
    for file in found:
        folder.remove(file)
    return found


def newest_records(files: Sequence[DayFile], records: Records) -> dict[DayFile, dg.AssetMaterialization]:
    """What Dagster knows of the files; of the quarantine nothing."""
    found = {}
    for asset in {file.asset for file in files if not file.is_quarantine}:
        newest = records.newest(asset, [str(file.day) for file in files if file.asset == asset])
        for file in files:
            record = newest.get(str(file.day)) if file.asset == asset else None
            if record is not None and record.asset_materialization is not None:
                found[file] = record.asset_materialization
    return found


def rewrite(
    folder: Folder,
    file: DayFile,
    change: Callable[["pa.Table"], "pa.Table"],
    mode: int | None,
    metadata: dict[bytes, bytes] | None = None,
) -> "Written":
    """Write a file anew, its rows changed; what it says of itself stays, but for `metadata`.

    Whoever else writes it at the time: it is what is there then whose rows are changed.
    """
    import pyarrow as pa

    from np6_assets.storage import parquet

    def attempt() -> "Written":
        schema, version = parquet.schema(folder, file.path)
        schema = schema.with_metadata({**(schema.metadata or {}), **(metadata or {})})
        batches = (
            pa.RecordBatch.from_arrays(batch.columns, schema=schema)
            for table in parquet.tables(folder, file.path, schema.names, version)
            for batch in change(table).to_batches()
        )
        rows = pa.RecordBatchReader.from_batches(schema, batches)
        return parquet.write(folder, file.path, rows, mode, version)

    return until_unchanged(attempt)


def record_of(before: dg.AssetMaterialization, written: "Written") -> dg.AssetMaterialization:
    """What was said of the day's fetch, and what the file holds now."""
    said: dict[str, Any] = {name: value for name, value in before.metadata.items() if name not in _OF_THE_FETCH}
    return dg.AssetMaterialization(
        before.asset_key,
        partition=before.partition,
        metadata=said | written_metadata(written),
        tags={DATA_VERSION: written.version},
    )


def content_of(record: dg.AssetMaterialization) -> str | None:
    """The digest of the rows that a record is of; None where it does not say, as one that was reported by hand."""
    said = record.metadata.get("content")
    return None if said is None else str(said.value)


def _path(asset: str, partition: str) -> str:
    from np6_assets.storage import parquet

    return f"{asset}/{partition}/{parquet.FILE_NAME}"
