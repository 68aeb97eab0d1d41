"""The daily assets, one for each event kind, and the asset `notifications`."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from np6_assets.contact.days import check_run_days
from np6_assets.events.kinds import TIME, EventKind
from np6_assets.partitions import EVENT_DATE, backfill_policy, daily
from np6_assets.resources import IO_MANAGER, NP6, STORE, get_np6, get_store, list_resource_keys
from np6_assets.settings import Settings
from np6_assets.storage.io_manager import FILE_MODE, PartitionStream
from np6_assets.storage.schemas import build_storage_metadata

MISSING_ONLY = "Of closed days of activations, ask those notifications alone that did not answer (np6.missing_ids)."
REPLACE = "Forget what is stored, in favour of what the API has now. Stored events that it no longer has are lost."


class IngestConfig(dg.Config):
    """Run config of an event asset."""

    full_refresh: bool = Field(default=False, description="Fetch every day in full, not from its watermark on.")
    replace: bool = Field(default=False, description=REPLACE)
    missing_only: bool = Field(default=False, description=MISSING_ONLY)


class NotificationsConfig(dg.Config):
    """Run config of `notifications`."""

    replace: bool = Field(default=False, description=REPLACE)


NOTIFICATION_COLUMNS = (
    ("activation_id", pa.int64(), "Id of the notification.", False),
    ("name", pa.string(), "Name of the notification in NP6.", True),
    ("type", pa.string(), "Type of the notification.", True),
    ("unlisted_since", TIME, "Since when the API lists it no longer; null while it does, or if it never did.", True),
    ("first_seen", TIME, "When it was first seen; null where version 0.1 did.", True),
)


def build_event_asset(kind: EventKind, settings: Settings, now: Callable[[], datetime]) -> dg.AssetsDefinition:
    """Build the daily asset of an event kind."""

    @dg.asset(
        key=settings.key(kind.asset),
        description=_describe_asset(kind.description, settings),
        group_name=settings.named("events"),
        kinds={"python", "duckdb", "parquet"},
        partitions_def=daily(settings.start_date, settings.timezone),
        backfill_policy=backfill_policy(settings.backfill_days_per_run),
        pool=settings.pool,
        required_resource_keys=list_resource_keys(settings, NP6, STORE),
        io_manager_key=settings.named(IO_MANAGER),
        # activations come last: reactions name notifications that the API's list may not
        op_tags={"dagster/priority": "-1"} if kind.per_notification else {},
        metadata=build_storage_metadata(
            ((column.name, column.type, column.description, not column.required) for column in kind.columns),
            EVENT_DATE,
        )
        | ({} if settings.file_mode is None else {FILE_MODE: settings.file_mode}),
    )
    def events(context: dg.AssetExecutionContext, config: IngestConfig) -> Any:
        from np6_assets.events.run import EventRun

        check_run_days(context.run.tags, settings, now())
        np6 = get_np6(context, settings)
        run = EventRun(context, kind, settings, get_store(context, settings).open_folder().cache_listing(), now, config)
        yield from PartitionStream(lambda: run.open_partitions(np6)).yield_outputs()

    return events


def _describe_asset(text: str, settings: Settings) -> str:
    """Append to a description which setting is missing for a run."""
    return text if settings.missing is None else f"{text}\n\n**{settings.missing}**"


def build_notifications_asset(settings: Settings, now: Callable[[], datetime]) -> dg.AssetsDefinition:
    """Build the asset `notifications`."""

    @dg.asset(
        key=settings.key("notifications"),
        description=_describe_asset("The account's notifications: their names and types.", settings),
        group_name=settings.named("events"),
        kinds={"python", "parquet"},
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=settings.pool,
        required_resource_keys=list_resource_keys(settings, NP6, STORE),
        io_manager_key=settings.named(IO_MANAGER),
        metadata=build_storage_metadata(NOTIFICATION_COLUMNS),
    )
    def asset(context: dg.AssetExecutionContext, config: NotificationsConfig) -> pa.Table:
        from np6_assets.events import notifications
        from np6_assets.events.folder_identity import FolderIdentity
        from np6_assets.events.run import open_exclusive_client

        folder = get_store(context, settings).open_folder().cache_listing()
        with open_exclusive_client(context, get_np6(context, settings), folder, now) as client:
            FolderIdentity(folder, settings, context.log.warning).record_events([])
            before = {} if config.replace else notifications.read_notifications(folder)
            named = notifications.find_ids_in_reactions(folder, settings, now())
            rows = notifications.merge_notifications(
                notifications.fetch_notifications(client), before, named, now().replace(microsecond=0)
            )
        schema = pa.schema([pa.field(name, type_, nullable) for name, type_, _, nullable in NOTIFICATION_COLUMNS])
        return pa.Table.from_pylist([asdict(row) for row in rows], schema)

    return asset
