"""Erasure: `erase_receiver` removes receivers from every event file, and tombstones keep them out of later fetches.

Killed at any time it can be repeated: the tombstones are written first, then each file atomically.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from np6_assets.contact.receiver import find_contact_values, find_receiver_values
from np6_assets.contact.tombstones import RECEIVER_COLUMNS, Tombstones
from np6_assets.events.file_policy import check_pseudonym_key
from np6_assets.partition_checks import Records
from np6_assets.privacy.files import (
    DayFile,
    build_job,
    is_recorded,
    list_day_files,
    open_locked_folder,
    read_newest_records,
    remove_unfinished,
    rewrite_file,
)
from np6_assets.privacy.receivers import Receivers, read_lines
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
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

    @build_job(
        settings,
        "erase_receiver",
        op="erase",
        description=(
            "Removes receivers, named in a file, from every event file and from the quarantine, and keeps them out of "
            "later fetches. The metadata of the run is the receipt: counts by line and files, no data of a receiver."
        ),
    )
    def job(context: dg.OpExecutionContext, config: EraseConfig) -> None:
        receivers = Receivers(read_lines(config.file), settings.contact)
        records = Records(context.instance, settings)
        removed: Counter[str] = Counter()
        changed = []
        seen: dict[str, str | None] = {}
        with open_locked_folder(context, settings) as folder:
            check_pseudonym_key(settings.contact, folder, context.log.warning)
            swept = remove_unfinished(folder)
            files = list_day_files(folder, context.log.warning)
            tombstones = add_tombstones(folder, files, receivers, settings)
            while files:
                for file, count, record in remove_events(folder, files, tombstones, receivers, records, settings):
                    removed[file.asset] += count
                    changed += [file.path] if count else []
                    if record is not None:
                        context.log_event(record)
                seen |= {file.path: _find_tag(folder, file) for file in files}
                # a fetch that began earlier may have written old rows back
                folder = folder.cache_listing()
                files = [
                    one for one in list_day_files(folder) if _find_tag(folder, one) not in (None, seen.get(one.path))
                ]
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

    return job


def _find_tag(folder: Folder, file: DayFile) -> str | None:
    """Find the tag of a file's version; None if it does not exist."""
    version = folder.find_version(file.path)
    return None if version is None else version.tag


def add_tombstones(folder: Folder, files: Sequence[DayFile], receivers: Receivers, settings: Settings) -> Tombstones:
    """Add tombstones of the receivers, and of the ids that stored events have for them."""
    tombstones = Tombstones.read(folder, settings.tombstone_key).add_values(receivers.values)
    ids: set[str] = set()
    for file in files:
        for id_, values in _find_erased_events(folder, file, tombstones, receivers):
            if id_:
                ids.add(id_)
                receivers.add_id(id_, receivers.find_lines(values))
    tombstones = Tombstones.add(folder, settings.tombstone_key, {*receivers.values, *ids})
    Identity.update(folder, lambda found: found and replace(found, has_tombstones=True))
    return tombstones


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
        before = newest.get(file)
        if file.is_quarantine and count == footer.num_rows:
            folder.remove(file.path)
            yield file, count, None
        elif count or not is_recorded(footer.metadata, before):
            drop = partial(_drop_erased, tombstones=tombstones, receivers=receivers)
            yield file, count, rewrite_file(folder, file, drop, settings.file_mode, before)


def _find_erased_events(
    folder: Folder, file: DayFile, tombstones: Tombstones, receivers: Receivers
) -> Iterator[tuple[str | None, list[str | None]]]:
    """Yield of each event of an erased receiver the receiver's id, and all its values."""
    from np6_assets.storage import parquet

    for table in parquet.read_tables(folder, file.path, ("event",) if file.is_quarantine else RECEIVER_COLUMNS):
        if file.is_quarantine:
            for text in table.column("event").to_pylist():
                id_, values = _find_receiver(text, tombstones, receivers)
                if values:
                    yield id_, list(values)
        else:
            for row in table.filter(tombstones.match_rows(table)).to_pylist():
                yield row["receiver_id"], list(row.values())


def _drop_erased(rows: "pa.Table", tombstones: Tombstones, receivers: Receivers) -> "pa.Table":
    if "event" not in rows.column_names:
        return tombstones.drop_erased(rows)
    events = rows.column("event").to_pylist()
    return rows.filter([not _find_receiver(text, tombstones, receivers)[1] for text in events])


def _find_receiver(text: str | None, tombstones: Tombstones, receivers: Receivers) -> tuple[str | None, list[str]]:
    """Find the id and all values of a rejected event's receiver; no values if that receiver was not erased."""
    from np6_assets.events.reject import parse_event

    event = None if text is None else parse_event(text)
    if event is None:
        return None, receivers.find_in_text(text or "")
    if not tombstones.match_event(event):
        return None, []
    values = list(find_receiver_values(event))
    return next(iter(Counter(values) - Counter(find_contact_values(event))), None), values
