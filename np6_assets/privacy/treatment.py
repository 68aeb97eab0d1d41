"""Treatment: after a change of NP6_CONTACT_DATA, `treat_contact_data` treats every stored day without the API.

Killed at any time it can be repeated: each file is replaced atomically and names its policy.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import dagster as dg

from np6_assets.contact.rows import RowPolicy
from np6_assets.contact.tombstones import read_tombstones
from np6_assets.events.file_policy import MADE_WITH, check_pseudonym_key, get_policy, get_timezone
from np6_assets.events.kinds import KINDS
from np6_assets.partition_checks import Records
from np6_assets.partitions import parse_day
from np6_assets.privacy.files import (
    DayFile,
    build_record,
    get_recorded_digest,
    list_day_files,
    read_newest_records,
    rewrite_file,
)
from np6_assets.resources import STORE, get_store, list_resource_keys
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder, retry_if_changed
from np6_assets.storage.folder_lock import lock_folder
from np6_assets.storage.identity import Identity


def treat_contact_data(settings: Settings) -> dg.JobDefinition:
    """Build the job that treats the stored days."""

    @dg.op(
        name=settings.named("treat"),
        out=dg.Out(dg.Nothing),
        pool=settings.pool,
        required_resource_keys=list_resource_keys(settings, STORE),
    )
    def op(context: dg.OpExecutionContext) -> None:
        folder = get_store(context, settings).open_folder().cache_listing()
        treated: Counter[str] = Counter()
        with lock_folder(folder, context):
            check_pseudonym_key(settings.contact, folder, context.log.warning)
            files = list(list_day_files(folder, context.log.warning))
            for file, record in treat_files(folder, files, Records(context.instance, settings), settings):
                treated[file.asset] += 1
                if record is not None:
                    context.log_event(record)
            Identity.update(folder, lambda found: found and replace(found, contact=settings.contact.fingerprint))
        context.log.info(f"treated {treated.total()} files: {dict(treated)}")
        context.add_output_metadata({"treated": dg.MetadataValue.json(dict(treated))})

    @dg.job(
        name=settings.named("treat_contact_data"),
        executor_def=dg.in_process_executor,
        description=(
            "Treats the contact data of every stored day as NP6_CONTACT_DATA says now, also in the quarantine, without "
            "asking the API. What an earlier setting took away does not come back."
        ),
    )
    def job() -> None:
        op()

    return job


def treat_files(
    folder: Folder, files: list[DayFile], records: Records, settings: Settings
) -> Iterator[tuple[DayFile, dg.AssetMaterialization | None]]:
    """Rewrite each file that was written under another policy; yield its new record."""
    from np6_assets.storage import parquet

    tombstones = read_tombstones(folder, settings.tombstone_key)
    policy = RowPolicy(settings.contact, tombstones)
    newest = read_newest_records(files, records)
    for file in sorted(files, key=lambda one: not one.is_quarantine):  # its policy may be that of its day's file
        metadata = parquet.read_footer(folder, file.path).metadata or {}
        stored_as = get_policy(metadata)
        before = newest.get(file)
        known = before is None or get_recorded_digest(before) == metadata.get(parquet.CONTENT, b"").decode()
        if stored_as == settings.contact.fingerprint and known:
            continue
        if file.is_quarantine:
            retry_if_changed(partial(_treat_quarantine, folder, file, policy, settings))
            yield file, None
            continue
        timezone = get_timezone(metadata)
        written = rewrite_file(
            folder,
            file,
            lambda rows, stored_as=stored_as: policy.treat_rows(rows, stored_as)[0],  # type: ignore[misc]
            settings.file_mode,
            {MADE_WITH: f"{timezone} {settings.contact.fingerprint}".encode()},
        )
        yield file, None if before is None else build_record(before, written)


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
