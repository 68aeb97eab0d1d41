"""Erasure of receivers: `erase_receiver` takes them out of every event file, and no later fetch brings them back.

The order makes it safe to be killed and repeated: first the tombstones, then the files, one by one and each whole.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from np6_assets.contact.receiver import contact_values, receiver_values
from np6_assets.contact.tombstones import Tombstones, TombstonesError, tombstones_of
from np6_assets.events.written import check_pseudonym_key
from np6_assets.partition_checks import Records
from np6_assets.privacy.files import DayFile, content_of, day_files, newest_records, record_of, rewrite, sweep
from np6_assets.privacy.receivers import Receivers, read_lines
from np6_assets.resources import STORE, keys_of, store_of
from np6_assets.settings import Settings
from np6_assets.storage.alone import alone
from np6_assets.storage.files import Folder, Version
from np6_assets.storage.identity import Identity

if TYPE_CHECKING:
    import pyarrow as pa


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

    @dg.op(
        name=settings.named("erase"),
        out=dg.Out(dg.Nothing),
        pool=settings.pool,
        required_resource_keys=keys_of(settings, STORE),
    )
    def erase(context: dg.OpExecutionContext, config: EraseConfig) -> None:
        receivers = Receivers(read_lines(config.file), settings.contact)
        folder = store_of(context, settings).folder().listed()
        with alone(folder, context):
            check_pseudonym_key(settings.contact, folder, context.log.warning)
            swept = sweep(folder)
            files = list(day_files(folder, context.log.warning))
            tombstones = bury(folder, files, receivers, settings)
            removed: Counter[str] = Counter()
            changed = []
            seen: dict[str, Version | None] = {}
            while files:
                for file, count, record in remove(
                    folder, files, tombstones, receivers, Records(context.instance, settings), settings
                ):
                    removed[file.asset] += count
                    changed += [file.path] if count else []
                    if record is not None:
                        context.log_event(record)
                seen |= {file.path: folder.version(file.path) for file in files}
                # a fetch that began before may have put back what it had read
                folder = folder.listed()
                files = [file for file in day_files(folder, _ignore) if _is_new(folder, file, seen)]
        context.log.info(f"removed {removed.total()} events from {len(changed)} files; rates follow by themselves")
        lines = {str(number): count for number, count in sorted(receivers.matched.items())}
        if unmatched := [number for number, count in lines.items() if not count]:
            context.log.warning(f"no stored event matched line {', '.join(unmatched)} of the file")
        context.add_output_metadata(
            {
                "receivers_named": len(lines),
                "events_by_line": dg.MetadataValue.json(lines),
                "events_removed": dg.MetadataValue.json(dict(+removed)),
                "files": dg.MetadataValue.json(changed),
                "swept": dg.MetadataValue.json(swept),
            }
        )

    @dg.job(
        name=settings.named("erase_receiver"),
        executor_def=dg.in_process_executor,
        description=(
            "Removes receivers, named in a file, from every event file and from the quarantine, and keeps them out of "
            "later fetches. The metadata of the run is the receipt: counts by line and files, no data of a receiver."
        ),
    )
    def job() -> None:
        erase()

    return job


def bury(folder: Folder, files: Sequence[DayFile], receivers: Receivers, settings: Settings) -> Tombstones:
    """Keep tombstones of the receivers, and of the ids that stored events have for them."""
    try:
        tombstones = tombstones_of(folder, settings.tombstone_key).covering(receivers.values)
    except TombstonesError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    ids: set[str] = set()
    for file in files:
        for id_, values in _erased(folder, file, tombstones, receivers):
            if id_:
                ids.add(id_)
                receivers.add_id(id_, receivers.lines_of(values))
    tombstones = Tombstones.add(folder, settings.tombstone_key, {*receivers.values, *ids})
    Identity.update(folder, lambda found: found and replace(found, has_tombstones=True))
    return tombstones


def _ignore(_: str) -> None:
    """It was warned of already."""


def _is_new(folder: Folder, file: DayFile, seen: Mapping[str, Version | None]) -> bool:
    """Whether a file is there, or another one, since it was seen."""
    before, now = seen.get(file.path), folder.version(file.path)
    return now is not None and (before is None or before.tag != now.tag)


def remove(
    folder: Folder,
    files: Sequence[DayFile],
    tombstones: Tombstones,
    receivers: Receivers,
    records: Records,
    settings: Settings,
) -> Iterator[tuple[DayFile, int, dg.AssetMaterialization | None]]:
    """Rewrite each file that has events of erased receivers: how many, and the record of what is there now.

    Also where Dagster's record is of what was there before, as an earlier try was killed before it said so.
    """
    from np6_assets.storage import parquet

    newest = newest_records(files, records)
    for file in files:
        count = 0
        for _, values in _erased(folder, file, tombstones, receivers):
            count += 1
            receivers.count(values)
        footer = parquet.footer(folder, file.path)
        if file.is_quarantine and count == footer.num_rows:
            folder.remove(file.path)
            yield file, count, None
            continue
        before = newest.get(file)
        known = before is None or content_of(before) == footer.metadata.get(parquet.CONTENT, b"").decode()
        if count or not known:
            written = rewrite(folder, file, lambda rows: _kept(rows, tombstones, receivers), settings.file_mode)
            yield file, count, None if before is None else record_of(before, written)


def _erased(
    folder: Folder, file: DayFile, tombstones: Tombstones, receivers: Receivers
) -> Iterator[tuple[str | None, list[str | None]]]:
    """Of each event of an erased receiver its receiver's id, and all that names the receiver."""
    from np6_assets.contact.tombstones import RECEIVER_COLUMNS
    from np6_assets.storage import parquet

    for table in parquet.tables(folder, file.path, ("event",) if file.is_quarantine else RECEIVER_COLUMNS):
        if file.is_quarantine:
            for text in table.column("event").to_pylist():
                if values := _named(text, tombstones, receivers):
                    yield _id(text), list(values)
        else:
            for row in table.filter(tombstones.named(table)).to_pylist():
                yield row["receiver_id"], list(row.values())


def _kept(rows: "pa.Table", tombstones: Tombstones, receivers: Receivers) -> "pa.Table":
    if "event" not in rows.column_names:
        return tombstones.without(rows)
    return rows.filter([not _named(text, tombstones, receivers) for text in rows.column("event").to_pylist()])


def _named(text: str | None, tombstones: Tombstones, receivers: Receivers) -> list[str]:
    """What names the receiver of a rejected event, if that is one who was erased."""
    from np6_assets.events.reject import parsed

    event = None if text is None else parsed(text)
    if event is None:
        return receivers.in_text(text or "")
    return list(receiver_values(event)) if tombstones.match_event(event) else []


def _id(text: str) -> str | None:
    """The id of a rejected event's receiver."""
    from np6_assets.events.reject import parsed

    event = parsed(text)
    ids = Counter(receiver_values(event)) - Counter(contact_values(event))
    return next(iter(ids), None)
