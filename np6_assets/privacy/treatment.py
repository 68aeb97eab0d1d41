"""Treatment: after a change of NP6_CONTACT_DATA, `treat_contact_data` treats every stored day without the API.

Killed at any time it can be repeated: each file is replaced atomically and names its policy.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from np6_assets.contact.rows import RowPolicy
from np6_assets.contact.tombstones import Tombstones
from np6_assets.events.file_policy import MADE_WITH, check_pseudonym_key, get_policy, get_timezone
from np6_assets.events.kinds import KINDS
from np6_assets.partition_checks import Records
from np6_assets.partitions import parse_day
from np6_assets.privacy.files import (
    DayFile,
    build_job,
    is_recorded,
    list_day_files,
    open_locked_folder,
    read_newest_records,
    rewrite_file,
)
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder, retry_if_changed
from np6_assets.storage.identity import Identity

if TYPE_CHECKING:
    import pyarrow as pa


def treat_contact_data(settings: Settings) -> dg.JobDefinition:
    """Build the job that treats the stored days."""

    @build_job(
        settings,
        "treat_contact_data",
        op="treat",
        description=(
            "Treats the contact data of every stored day as NP6_CONTACT_DATA says now, also in the quarantine, without "
            "asking the API. What an earlier setting took away does not come back."
        ),
    )
    def job(context: dg.OpExecutionContext) -> None:
        treated: Counter[str] = Counter()
        with open_locked_folder(context, settings) as folder:
            check_pseudonym_key(settings.contact, folder, context.log.warning)
            files = list_day_files(folder, context.log.warning)
            for file, record in treat_files(folder, files, Records(context.instance, settings), settings):
                treated[file.asset] += 1
                if record is not None:
                    context.log_event(record)
            Identity.update(folder, lambda found: found and replace(found, contact=settings.contact.fingerprint))
        context.log.info(f"treated {treated.total()} files: {dict(treated)}")
        context.add_output_metadata({"treated": dg.MetadataValue.json(dict(treated))})

    return job


def treat_files(
    folder: Folder, files: list[DayFile], records: Records, settings: Settings
) -> Iterator[tuple[DayFile, dg.AssetMaterialization | None]]:
    """Rewrite each file that was written under another policy; yield its new record."""
    from np6_assets.storage import parquet

    policy = RowPolicy(settings.contact, Tombstones.read(folder, settings.tombstone_key))
    newest = read_newest_records(files, records)
    for file in sorted(files, key=lambda one: not one.is_quarantine):  # its policy may be that of its day's file
        metadata = parquet.read_footer(folder, file.path).metadata or {}
        stored_as = get_policy(metadata)
        before = newest.get(file)
        if stored_as == settings.contact.fingerprint and is_recorded(metadata, before):
            continue
        if file.is_quarantine:
            retry_if_changed(partial(_treat_quarantine, folder, file, policy, settings))
            yield file, None
            continue
        made_with = {MADE_WITH: f"{get_timezone(metadata)} {settings.contact.fingerprint}".encode()}
        treat = partial(_treat_rows, policy=policy, stored_as=stored_as)
        yield file, rewrite_file(folder, file, treat, settings.file_mode, before, made_with)


def _treat_rows(rows: "pa.Table", policy: RowPolicy, stored_as: str) -> "pa.Table":
    return policy.treat_rows(rows, stored_as)[0]


def _treat_quarantine(folder: Folder, file: DayFile, policy: RowPolicy, settings: Settings) -> None:
    import pyarrow as pa

    from np6_assets.events.decode import Decoder
    from np6_assets.events.merge import QUARANTINE
    from np6_assets.events.store import EventStore

    [kind] = [kind for kind in KINDS if kind.quarantine == file.asset]
    store = EventStore(folder, kind, settings)
    day = parse_day(str(file.day), settings.timezone)
    decoder = Decoder(kind, policy.contact, policy.tombstones)
    tables = list(store.read_quarantine(day, store.read_day(day), decoder))
    rows = pa.concat_tables(tables).sort_by([(name, "ascending") for name in (QUARANTINE.number, QUARANTINE.key)])
    store.write_quarantine(day, iter([rows]))
