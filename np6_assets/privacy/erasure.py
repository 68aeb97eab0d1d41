"""Erasure of receivers: `erase_receiver` takes them out of every event file, and no later fetch brings them back.

The order makes it safe to be killed and repeated: first the tombstones, then the files, one by one and each whole.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from np6_assets.contact.policy import ContactPolicy
from np6_assets.contact.tombstones import tombstones_of
from np6_assets.partition_checks import Records
from np6_assets.privacy.files import DayFile, day_files
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.io_manager import DATA_VERSION, ParquetStore, written_metadata

if TYPE_CHECKING:
    import pyarrow as pa

    from np6_assets.contact.tombstones import Tombstones
    from np6_assets.storage.parquet import Written

_OF_THE_FETCH = ("reasons", "events_gained")
"""Metadata of a materialization that is of all that was fetched, and no longer right once a receiver is out."""


class EraseConfig(dg.Config):
    """What a run is told: never a receiver, as Dagster stores what a run is told."""

    file: str = Field(
        description=(
            "Path, where the run happens, of a text file that names the receivers to erase: on each line an id, a "
            "unicity, a hash or a pseudonym. Remove it afterwards."
        )
    )


def erase_receiver(settings: Settings) -> dg.JobDefinition:
    """The job that erases receivers."""

    @dg.op(name="erase", out=dg.Out(dg.Nothing), pool=settings.pool)
    def erase(context: dg.OpExecutionContext, config: EraseConfig, store: ParquetStore) -> None:
        named = receivers(config.file)
        folder = store.folder()
        with folder.alone(lambda: context.log.info("a run is using the data folder; this one goes on once it ends")):
            tombstones = bury(folder, named, settings.contact)
            removed: Counter[str] = Counter()
            files = []
            for file, count, record in remove(folder, tombstones, Records(context.instance, settings)):
                removed[file.asset] += count
                files += [file.path] if count else []
                if record is not None:
                    context.log_event(record)
        context.log.info(f"removed {removed.total()} events from {len(files)} files; rates follow by themselves")
        context.add_output_metadata(
            {
                "receivers_named": len(named),
                "events_removed": dg.MetadataValue.json(dict(+removed)),
                "files": dg.MetadataValue.json(files),
            }
        )

    @dg.job(
        name=settings.named("erase_receiver"),
        description=(
            "Removes receivers, named in a file, from every event file and from the quarantine, and keeps them out of "
            "later fetches. The metadata of the run is the receipt: counts and files, no data of a receiver."
        ),
    )
    def job() -> None:
        erase()

    return job


def receivers(file: str) -> list[str]:
    """What the lines of a file name. Raises a Failure that nobody retries where that is nothing."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise dg.Failure(
            f"the file with the receivers to erase cannot be read ({type(error).__name__}): check `file` in the run's "
            "config; it is a text file where the run happens",
            allow_retries=False,
        ) from None
    if not (named := sorted({line.strip() for line in lines} - {""})):
        raise dg.Failure("the file with the receivers to erase names none: one on each line", allow_retries=False)
    return named


def bury(folder: Folder, named: Sequence[str], contact: ContactPolicy) -> "Tombstones":
    """Keep tombstones of the receivers, and of the ids that stored events have for them."""
    import pyarrow.compute as pc

    from np6_assets.contact.tombstones import RECEIVER_COLUMNS
    from np6_assets.storage import parquet

    tombstones = tombstones_of(folder).covering(named)
    if contact.mode == "pseudonymize":
        tombstones = tombstones.covering(map(contact.pseudonym, named))
    ids: set[str] = set()
    for file in day_files(folder):
        for table in () if file.is_quarantine else parquet.tables(folder, file.path, RECEIVER_COLUMNS):
            found = table.column("receiver_id").filter(tombstones.named(table))
            ids.update(pc.unique(found.drop_null()).to_pylist())
    tombstones = tombstones.covering(ids)
    tombstones.write(folder)
    return tombstones


def remove(
    folder: Folder, tombstones: "Tombstones", records: Records
) -> Iterator[tuple[DayFile, int, dg.AssetMaterialization | None]]:
    """Rewrite each file that has events of erased receivers: how many, and the record of what is there now.

    Also where Dagster's record is of what was there before, as an earlier try was killed before it said so.
    """
    from np6_assets.contact.tombstones import RECEIVER_COLUMNS
    from np6_assets.storage import parquet

    files = list(day_files(folder))
    newest = {
        asset: records.newest(asset, [str(file.day) for file in files if file.asset == asset])
        for asset in {file.asset for file in files if not file.is_quarantine}
    }
    for file in files:
        columns = ("event",) if file.is_quarantine else RECEIVER_COLUMNS
        kept = sum(table.num_rows for table in _kept(folder, file, tombstones, columns))
        footer = parquet.footer(folder, file.path)
        count = footer.num_rows - kept
        if file.is_quarantine:
            if kept and count:
                _rewrite(folder, file, tombstones)
            elif count:
                folder.remove(file.path)
            yield file, count, None
            continue
        record = newest[file.asset].get(str(file.day))
        before = None if record is None else record.asset_materialization
        if not count and (before is None or _content(before) == footer.metadata.get(parquet.CONTENT, b"").decode()):
            continue
        written = _rewrite(folder, file, tombstones)
        yield file, count, None if before is None else _record(before, written)


def _rewrite(folder: Folder, file: DayFile, tombstones: "Tombstones") -> "Written":
    """Write a file without the erased receivers, its Parquet metadata as it was."""
    import pyarrow as pa

    from np6_assets.storage import parquet

    schema = parquet.schema(folder, file.path)
    batches = (
        pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        for table in _kept(folder, file, tombstones, schema.names)
        for batch in table.to_batches()
    )
    return parquet.write(folder, file.path, pa.RecordBatchReader.from_batches(schema, batches))


def _kept(folder: Folder, file: DayFile, tombstones: "Tombstones", columns: Sequence[str]) -> Iterator["pa.Table"]:
    """Some columns of the rows that stay; what names a receiver is among them."""
    from np6_assets.storage import parquet

    for table in parquet.tables(folder, file.path, columns):
        if file.is_quarantine:
            texts = table.column("event").to_pylist()
            yield table.filter([not tombstones.name(json.loads(text)) for text in texts])
        else:
            yield tombstones.without(table)


def _content(record: dg.AssetMaterialization) -> str | None:
    """The digest of the rows that a record is of; None where it does not say, as one that was reported by hand."""
    said = record.metadata.get("content")
    return None if said is None else str(said.value)


def _record(before: dg.AssetMaterialization, written: "Written") -> dg.AssetMaterialization:
    """What was said of the day's fetch, and what the file holds now."""
    said: dict[str, Any] = {name: value for name, value in before.metadata.items() if name not in _OF_THE_FETCH}
    return dg.AssetMaterialization(
        before.asset_key,
        partition=before.partition,
        metadata=said | written_metadata(written),
        tags={DATA_VERSION: written.version},
    )
