"""The files with data of receivers, event files and quarantine, by day; and how they are rewritten."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from np6_assets.contact.tombstones import FILE
from np6_assets.events.kinds import KINDS
from np6_assets.partition_checks import Records
from np6_assets.partitions import EVENT_DATE, partition_day
from np6_assets.storage.files import Folder, retry_if_changed
from np6_assets.storage.io_manager import DATA_VERSION, FILE_FACTS, ROWS_DIGEST, build_file_metadata

if TYPE_CHECKING:
    import pyarrow as pa

    from np6_assets.storage.parquet import WrittenFile

_OF_THE_FETCH = ("events", "reasons", "events_gained")
"""Metadata of a materialization that is wrong once rows were removed or changed."""

_EARLIER_DIGEST = "content"
"""The name of ROWS_DIGEST in old records."""


@dataclass(frozen=True)
class DayFile:
    """A day's file of an event asset or of its quarantine."""

    asset: str
    day: date
    is_quarantine: bool

    @property
    def path(self) -> str:
        """Its path below the data folder."""
        from np6_assets.storage import parquet

        return parquet.build_path(self.asset, EVENT_DATE, str(self.day))


def list_day_files(folder: Folder, warn: Callable[[str], None]) -> Iterator[DayFile]:
    """Yield each file, by asset and day; `warn` is called for folders that are not a day's."""
    return (file for file in _list_days(folder, warn) if folder.exists(file.path))


def remove_unfinished(folder: Folder) -> list[str]:
    """Remove unfinished files beside those with data of receivers; return their paths.

    The folder must be locked, so that nobody is writing.
    """
    found = folder.list_unfinished(FILE)
    for file in _list_days(folder, lambda line: None):
        found += folder.list_unfinished(file.path)
    for path in found:
        folder.remove(path)
    return found


def _list_days(folder: Folder, warn: Callable[[str], None]) -> Iterator[DayFile]:
    """Yield a DayFile for each day that has a folder."""
    for kind in KINDS:
        for asset in (kind.asset, kind.quarantine):
            for partition in folder.list_folders(asset):
                if (day := partition_day(partition)) is not None:
                    yield DayFile(asset, day, asset == kind.quarantine)
                else:
                    warn(f"{asset}/{partition} is passed over: it is not a day that this project has written")


def read_newest_records(files: Sequence[DayFile], records: Records) -> dict[DayFile, dg.AssetMaterialization]:
    """Read Dagster's newest records of the files; the quarantine has none."""
    found = {}
    for asset in {file.asset for file in files if not file.is_quarantine}:
        newest = records.newest(asset, [str(file.day) for file in files if file.asset == asset])
        for file in files:
            record = newest.get(str(file.day)) if file.asset == asset else None
            if record is not None and record.asset_materialization is not None:
                found[file] = record.asset_materialization
    return found


def rewrite_file(
    folder: Folder,
    file: DayFile,
    change: Callable[["pa.Table"], "pa.Table"],
    mode: int | None,
    metadata: dict[bytes, bytes] | None = None,
) -> "WrittenFile":
    """Rewrite a file with changed rows; its metadata stays, except for `metadata`.

    Retries if others write it meanwhile.
    """
    import pyarrow as pa

    from np6_assets.storage import parquet

    def attempt() -> "WrittenFile":
        schema, version = parquet.read_schema(folder, file.path)
        schema = schema.with_metadata({**(schema.metadata or {}), **(metadata or {})})
        batches = (
            pa.RecordBatch.from_arrays(batch.columns, schema=schema)
            for table in parquet.read_tables(folder, file.path, schema.names, version)
            for batch in change(table).to_batches()
        )
        rows = pa.RecordBatchReader.from_batches(schema, batches)
        return parquet.write_file(folder, file.path, rows, mode, version)

    return retry_if_changed(attempt)


def build_record(before: dg.AssetMaterialization, written: "WrittenFile") -> dg.AssetMaterialization:
    """Build the record of a rewritten file: the facts of the fetch that still hold, and the new file."""
    gone = {*_OF_THE_FETCH, _EARLIER_DIGEST, *FILE_FACTS}
    facts: dict[str, Any] = {name: value for name, value in before.metadata.items() if name not in gone}
    return dg.AssetMaterialization(
        before.asset_key,
        partition=before.partition,
        metadata=build_file_metadata(written, facts),
        tags={DATA_VERSION: written.version},
    )


def get_recorded_digest(record: dg.AssetMaterialization) -> str | None:
    """Return the digest of the rows in a record; None if it has none, such as one reported by hand."""
    found = record.metadata.get(ROWS_DIGEST) or record.metadata.get(_EARLIER_DIGEST)
    return None if found is None else str(found.value)
