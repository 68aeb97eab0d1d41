"""The daily assets, one for each event kind, and the list of notifications."""

from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa

from np6_assets.events.decode import MISFIT_SCHEMA, Decoder
from np6_assets.events.ingest import DayEvents, Ingestion, fetched_until, notifications
from np6_assets.events.kinds import EventKind
from np6_assets.np6.resource import NP6Resource
from np6_assets.partitions import EVENT_DATE, daily, day_of
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder
from np6_assets.storage.io_manager import ParquetStore
from np6_assets.storage.schemas import storage_metadata

FETCHED_UNTIL = b"np6.fetched_until"
"""Key in a file's Parquet metadata: until when the day was fetched (ISO 8601, UTC)."""

NOTIFICATION_COLUMNS = (
    ("activation_id", pa.int64(), "Id of the notification.", False),
    ("name", pa.string(), "Name of the notification in NP6.", True),
    ("type", pa.string(), "Type of the notification.", True),
)


def event_asset(kind: EventKind, settings: Settings) -> dg.AssetsDefinition:
    """The daily asset of an event kind."""

    @dg.asset(
        name=kind.asset,
        description=_description(kind.description, settings),
        group_name="events",
        kinds={"python", "duckdb", "parquet"},
        partitions_def=daily(settings.start_date, settings.timezone),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="np6_api",
        metadata=storage_metadata(
            ((column.name, column.type, column.description, not column.required) for column in kind.columns),
            EVENT_DATE,
        ),
    )
    def events(context: dg.AssetExecutionContext, np6: NP6Resource, store: ParquetStore) -> Any:
        days = [day_of(key, settings.timezone) for key in context.partition_keys]

        def fetch() -> Generator[tuple[str, pa.RecordBatchReader]]:
            quarantine = Quarantine(store.folder(), kind.asset)
            with np6.client(context.log.warning) as client:
                ingestion = Ingestion(kind, client, Decoder(kind, settings.contact), lambda: datetime.now(UTC))
                with closing(ingestion.days(days)) as fetched:
                    for day in fetched:
                        misfits = quarantine.write(day)
                        until = fetched_until(day.day, day.asked_at, settings.refresh_overlap)
                        # known to the IO manager before it asks for the next day, which may take long or never come
                        context.add_asset_metadata(_metadata(day, misfits, until), partition_key=day.day.key)
                        yield day.day.key, _reader(kind, day, until)
                        if not misfits:
                            quarantine.remove(day)

        return parquet.PartitionStream(fetch)

    return events


def _description(text: str, settings: Settings) -> str:
    """What the UI says of an asset, and what is missing for a run of it."""
    return text if settings.missing is None else f"{text}\n\n**{settings.missing}**"


def _reader(kind: EventKind, day: DayEvents, until: datetime) -> pa.RecordBatchReader:
    schema = kind.schema.with_metadata({FETCHED_UNTIL: until.isoformat().encode()})
    batches = (batch for table in day.events.tables() for batch in table.to_batches())
    return pa.RecordBatchReader.from_batches(
        schema, (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in batches)
    )


def _metadata(day: DayEvents, misfits: int, until: datetime) -> dict[str, Any]:
    return {
        "fetched_until": dg.MetadataValue.timestamp(until),
        "events_received": day.events.rows,
        "quarantined": misfits,
        "unknown_fields": dg.MetadataValue.json(sorted(day.unknown_fields)),
    }


class Quarantine:
    """The events of an asset that do not fit its columns: `<data>/quarantine/<asset>/event_date=.../`."""

    def __init__(self, folder: Folder, asset: str) -> None:
        self._folder = folder
        self._asset = f"quarantine/{asset}"

    def write(self, day: DayEvents) -> int:
        """Write a day's misfits, if it has any, and say how many there are."""
        if not day.misfits.rows:
            return 0
        schema = pa.schema([MISFIT_SCHEMA.field("reason"), MISFIT_SCHEMA.field("event")])
        tables = (table.select(schema.names) for table in day.misfits.tables())
        rows = pa.RecordBatchReader.from_batches(schema, (batch for table in tables for batch in table.to_batches()))
        return parquet.write(self._folder, self._file(day), rows).rows

    def remove(self, day: DayEvents) -> None:
        """Remove what an earlier fetch of the day put here."""
        self._folder.remove(self._file(day))

    def _file(self, day: DayEvents) -> str:
        return parquet.file_of(self._asset, EVENT_DATE, day.day.key)


def notifications_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset with the notifications' names."""

    @dg.asset(
        name="notifications",
        description=_description("The account's notifications: their names and types.", settings),
        group_name="events",
        kinds={"python", "parquet"},
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="np6_api",
        metadata=storage_metadata(NOTIFICATION_COLUMNS),
    )
    def asset(context: dg.AssetExecutionContext, np6: NP6Resource) -> pd.DataFrame:
        with np6.client(context.log.warning) as client:
            return pd.DataFrame(notifications(client), columns=[name for name, *_ in NOTIFICATION_COLUMNS])

    return asset
