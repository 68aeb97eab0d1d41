"""Erasure: `erase_receiver` removes receivers from every event file, and tombstones keep them out of later fetches.

Killed at any time it can be repeated: the tombstones are written first, then each file atomically.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from np6_assets.contact.receiver import find_contact_values, find_receiver_values
from np6_assets.contact.tombstones import Tombstones, TombstonesError, read_tombstones
from np6_assets.events.file_policy import check_pseudonym_key
from np6_assets.partition_checks import Records
from np6_assets.privacy.files import (
    DayFile,
    build_record,
    get_recorded_digest,
    list_day_files,
    read_newest_records,
    remove_unfinished,
    rewrite_file,
)
from np6_assets.privacy.receivers import Receivers, read_lines
from np6_assets.resources import STORE, get_store, list_resource_keys
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder, Version
from np6_assets.storage.folder_lock import lock_folder
from np6_assets.storage.identity import Identity

if TYPE_CHECKING:
    import pyarrow as pa


class EraseConfig(dg.Config):
    """Run config: never a receiver, as Dagster stores it."""

    file: str = Field(
        description=(
            "Path, where the run happens, of a text file that names the receivers to erase: on each line an id, a "
            "unicity, a hash or a pseudonym. Remove it afterwards."
        )
    )


def erase_receiver(settings: Settings) -> dg.JobDefinition:
    """Build the job that erases receivers."""

    @dg.op(
        name=settings.named("erase"),
        out=dg.Out(dg.Nothing),
        pool=settings.pool,
        required_resource_keys=list_resource_keys(settings, STORE),
    )
    def erase(context: dg.OpExecutionContext, config: EraseConfig) -> None:
        receivers = Receivers(read_lines(config.file), settings.contact)
        folder = get_store(context, settings).open_folder().cache_listing()
        with lock_folder(folder, context):
            check_pseudonym_key(settings.contact, folder, context.log.warning)
            swept = remove_unfinished(folder)
            files = list(list_day_files(folder, context.log.warning))
            tombstones = add_tombstones(folder, files, receivers, settings)
            removed: Counter[str] = Counter()
            changed = []
            seen: dict[str, Version | None] = {}
            while files:
                for file, count, record in remove_events(
                    folder, files, tombstones, receivers, Records(context.instance, settings), settings
                ):
                    removed[file.asset] += count
                    changed += [file.path] if count else []
                    if record is not None:
                        context.log_event(record)
                seen |= {file.path: folder.find_version(file.path) for file in files}
                # a fetch that began earlier may have written old rows back
                folder = folder.cache_listing()
                files = [file for file in list_day_files(folder, _ignore) if _is_new(folder, file, seen)]
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


def add_tombstones(folder: Folder, files: Sequence[DayFile], receivers: Receivers, settings: Settings) -> Tombstones:
    """Add tombstones of the receivers, and of the ids that stored events have for them."""
    try:
        tombstones = read_tombstones(folder, settings.tombstone_key).add_values(receivers.values)
    except TombstonesError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    ids: set[str] = set()
    for file in files:
        for id_, values in _find_erased_events(folder, file, tombstones, receivers):
            if id_:
                ids.add(id_)
                receivers.add_id(id_, receivers.find_lines(values))
    tombstones = Tombstones.add(folder, settings.tombstone_key, {*receivers.values, *ids})
    Identity.update(folder, lambda found: found and replace(found, has_tombstones=True))
    return tombstones


def _ignore(_: str) -> None:
    """Ignore a warning that was logged before."""


def _is_new(folder: Folder, file: DayFile, seen: Mapping[str, Version | None]) -> bool:
    """Whether a file was written since it was seen."""
    before, now = seen.get(file.path), folder.find_version(file.path)
    return now is not None and (before is None or before.tag != now.tag)


def remove_events(
    folder: Folder,
    files: Sequence[DayFile],
    tombstones: Tombstones,
    receivers: Receivers,
    records: Records,
    settings: Settings,
) -> Iterator[tuple[DayFile, int, dg.AssetMaterialization | None]]:
    """Rewrite each file with events of erased receivers; yield their number and the file's new record.

    Also if Dagster's record is outdated, because an earlier run was killed before it wrote the record.
    """
    from np6_assets.storage import parquet

    newest = read_newest_records(files, records)
    for file in files:
        count = 0
        for _, values in _find_erased_events(folder, file, tombstones, receivers):
            count += 1
            receivers.count(values)
        footer = parquet.read_footer(folder, file.path)
        if file.is_quarantine and count == footer.num_rows:
            folder.remove(file.path)
            yield file, count, None
            continue
        before = newest.get(file)
        known = before is None or get_recorded_digest(before) == footer.metadata.get(parquet.CONTENT, b"").decode()
        if count or not known:
            written = rewrite_file(
                folder, file, lambda rows: _drop_erased(rows, tombstones, receivers), settings.file_mode
            )
            yield file, count, None if before is None else build_record(before, written)


def _find_erased_events(
    folder: Folder, file: DayFile, tombstones: Tombstones, receivers: Receivers
) -> Iterator[tuple[str | None, list[str | None]]]:
    """Yield of each event of an erased receiver the receiver's id, and all its values."""
    from np6_assets.contact.tombstones import RECEIVER_COLUMNS
    from np6_assets.storage import parquet

    for table in parquet.read_tables(folder, file.path, ("event",) if file.is_quarantine else RECEIVER_COLUMNS):
        if file.is_quarantine:
            for text in table.column("event").to_pylist():
                if values := _find_receiver(text, tombstones, receivers):
                    yield _get_receiver_id(text), list(values)
        else:
            for row in table.filter(tombstones.match_rows(table)).to_pylist():
                yield row["receiver_id"], list(row.values())


def _drop_erased(rows: "pa.Table", tombstones: Tombstones, receivers: Receivers) -> "pa.Table":
    if "event" not in rows.column_names:
        return tombstones.drop_erased(rows)
    return rows.filter([not _find_receiver(text, tombstones, receivers) for text in rows.column("event").to_pylist()])


def _find_receiver(text: str | None, tombstones: Tombstones, receivers: Receivers) -> list[str]:
    """Find the receiver's values in a rejected event, if that receiver was erased."""
    from np6_assets.events.reject import parse_event

    event = None if text is None else parse_event(text)
    if event is None:
        return receivers.find_in_text(text or "")
    return list(find_receiver_values(event)) if tombstones.match_event(event) else []


def _get_receiver_id(text: str) -> str | None:
    """Return the id of a rejected event's receiver."""
    from np6_assets.events.reject import parse_event

    event = parse_event(text)
    ids = Counter(find_receiver_values(event)) - Counter(find_contact_values(event))
    return next(iter(ids), None)
