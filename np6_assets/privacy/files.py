"""The files with data of receivers, event files and quarantine, by day; the jobs that go through and rewrite them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from np6_assets.contact.tombstones import FILE
from np6_assets.events.kinds import KINDS
from np6_assets.partition_checks import Records
from np6_assets.partitions import EVENT_DATE, partition_day
from np6_assets.resources import STORE, get_store, list_resource_keys
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder, retry_if_changed
from np6_assets.storage.folder_lock import lock_folder
from np6_assets.storage.io_manager import DATA_VERSION, FILE_FACTS, ROWS_DIGEST, build_file_metadata

if TYPE_CHECKING:
    import pyarrow as pa

    from np6_assets.storage.parquet import WrittenFile

_OF_THE_FETCH = ("events", "reasons", "events_gained")
"""Metadata of a materialization that is wrong once rows were removed or changed."""

_EARLIER_DIGEST = "content"
"""The name of ROWS_DIGEST in old records."""


def build_job(
    settings: Settings, name: str, op: str, description: str
) -> Callable[[Callable[..., None]], dg.JobDefinition]:
    """Build a job from the function of its only op, as a decorator."""

    def build(compute: Callable[..., None]) -> dg.JobDefinition:
        made = dg.op(
            name=settings.named(op),
            out=dg.Out(dg.Nothing),
            pool=settings.pool,
            required_resource_keys=list_resource_keys(settings, STORE),
        )(compute)
        graph = dg.GraphDefinition(settings.named(name), node_defs=[made])
        return graph.to_job(executor_def=dg.in_process_executor, description=description)

    return build


@contextmanager
def open_locked_folder(context: dg.OpExecutionContext, settings: Settings) -> Iterator[Folder]:
    """Open the data folder, with a cached listing, once no other run of this machine uses it."""
    folder = get_store(context, settings).open_folder().cache_listing()
    with lock_folder(folder, context):
        yield folder


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


def list_day_files(folder: Folder, warn: Callable[[str], None] = lambda line: None) -> list[DayFile]:
    """List each file, by asset and day; `warn` is called for folders that are not a day's."""
    return [file for file in _list_days(folder, warn) if folder.exists(file.path)]


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
        days = {str(file.day): file for file in files if file.asset == asset}
        for day, record in records.newest(asset, list(days)).items():
            if record.asset_materialization is not None:
                found[days[day]] = record.asset_materialization
    return found


def is_recorded(metadata: Mapping[bytes, bytes], record: dg.AssetMaterialization | None) -> bool:
    """Whether a file with that Parquet metadata is the one of a record; true without a record.

    It is not if an earlier run was killed before it recorded what it had written.
    """
    from np6_assets.storage import parquet

    if record is None:
        return True
    digest = record.metadata.get(ROWS_DIGEST) or record.metadata.get(_EARLIER_DIGEST)  # none if reported by hand
    return digest is not None and digest.value == metadata.get(parquet.CONTENT, b"").decode()


def rewrite_file(
    folder: Folder,
    file: DayFile,
    change: Callable[["pa.Table"], "pa.Table"],
    mode: int | None,
    before: dg.AssetMaterialization | None,
    metadata: dict[bytes, bytes] | None = None,
) -> dg.AssetMaterialization | None:
    """Rewrite a file with changed rows; its metadata stays, except for `metadata`. Retries if others write it.

    Returns its new record, with the facts of the record `before` that still hold; None if there was none.
    """
    from np6_assets.storage import parquet

    def attempt() -> "WrittenFile":
        schema, version = parquet.read_schema(folder, file.path)
        schema = schema.with_metadata({**(schema.metadata or {}), **(metadata or {})})
        rows = map(change, parquet.read_tables(folder, file.path, schema.names, version))
        return parquet.write_file(folder, file.path, parquet.stream_tables(rows, schema), mode, version)

    written = retry_if_changed(attempt)
    if before is None:
        return None
    gone = {*_OF_THE_FETCH, _EARLIER_DIGEST, *FILE_FACTS}
    facts: dict[str, Any] = {name: value for name, value in before.metadata.items() if name not in gone}
    return dg.AssetMaterialization(
        before.asset_key,
        partition=before.partition,
        metadata=build_file_metadata(written, facts),
        tags={DATA_VERSION: written.version},
    )
