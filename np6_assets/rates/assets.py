"""The asset `reactivity_rates`, one partition for each activation day."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from np6_assets.partitions import ACTIVATION_DATE, backfill_policy, daily, days_ahead
from np6_assets.rates import pictures
from np6_assets.rates.columns import COLUMNS, SCHEMA
from np6_assets.rates.compute import ACTIVATION_DAYS, Feeds, rates
from np6_assets.rates.lineage import COLUMN_LINEAGE, column_lineage
from np6_assets.refresh.automation import follow_the_events
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder
from np6_assets.storage.io_manager import ALLOW_MISSING, ParquetStore, Partition, PartitionStream
from np6_assets.storage.schemas import storage_metadata

_CHARTED_COHORTS = 30


def rates_asset(settings: Settings) -> dg.AssetsDefinition:
    """The rates of each activation day, over the days of its window."""

    def window(days: int) -> dg.AssetIn:
        return dg.AssetIn(partition_mapping=days_ahead(days), metadata={ALLOW_MISSING: True})

    reactions = window(settings.window_days)

    @dg.asset(
        name="reactivity_rates",
        description=(
            "What share of the day's sends was hit, opted out or bounced, one row for each notification, version "
            f"and application. Reactions count up to {settings.window_days} days after the day of the send."
        ),
        group_name="rates",
        kinds={"duckdb", "pandas", "parquet"},
        partitions_def=daily(settings.start_date, settings.timezone),
        backfill_policy=backfill_policy(settings.backfill_days_per_run),
        automation_condition=follow_the_events(),
        metadata=storage_metadata(COLUMNS, ACTIVATION_DATE),
        ins={
            "activations": window(ACTIVATION_DAYS),
            "hits": reactions,
            "optouts": reactions,
            "bounces": reactions,
            "impressions": reactions,
        },
    )
    def reactivity_rates(
        context: dg.AssetExecutionContext,
        activations: ds.Dataset,
        hits: ds.Dataset,
        optouts: ds.Dataset,
        bounces: ds.Dataset,
        impressions: ds.Dataset,
        store: ParquetStore,
    ) -> Any:
        datasets = {
            "activations": activations,
            "hits": hits,
            "optouts": optouts,
            "bounces": bounces,
            "impressions": impressions,
        }
        feeds = Feeds(datasets, settings.timezone)
        folder = store.folder()
        names = notification_names(folder)
        last = max(context.partition_keys)

        def cohorts() -> Iterator[tuple[str, Partition]]:
            for key in context.partition_keys:
                frame = rates(feeds, key, settings.window_days)
                context.add_asset_metadata(metadata_of(frame, names), partition_key=key)
                if key == last:  # the UI shows what the newest materialization says
                    context.add_asset_metadata(overview(folder, key, frame), partition_key=key)
                yield key, frame

        yield from PartitionStream(lambda: nullcontext(cohorts())).outputs()

    return reactivity_rates


def metadata_of(frame: pd.DataFrame, names: Mapping[int, str]) -> dict[str, Any]:
    """What the UI shows of a cohort: its own rates, which Dagster plots over the partitions, and its notifications."""
    metadata: dict[str, Any] = {
        "activations": _number(frame["activations"].sum(min_count=1)),
        **{measure.column: measure.of(frame).rate for measure in pictures.MEASURES},
        "notifications": dg.MetadataValue.md(pictures.notifications_markdown(frame, names)),
    }
    return {name: value for name, value in metadata.items() if value is not None}


def _number(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def notification_names(folder: Folder) -> dict[int, str]:
    """The notifications' names, as far as `notifications` is materialized.

    No dependency of the rates: a notification that gets another name must not make every cohort stale.
    """
    if not folder.exists(parquet.file_of("notifications")):
        return {}
    schema = pa.schema([("activation_id", pa.int64()), ("name", pa.string())])
    table = parquet.dataset(folder, "notifications", schema).to_table().to_pydict()
    return {key: name for key, name in zip(table["activation_id"], table["name"], strict=True) if name}


def overview(folder: Folder, key: str, frame: pd.DataFrame) -> dict[str, Any]:
    """What the UI shows of the cohorts up to one that is not stored yet, and where the columns come from."""
    last = date.fromisoformat(key)
    before = [(last - timedelta(days=ago)).isoformat() for ago in range(1, _CHARTED_COHORTS)]
    stored = parquet.partitioned_dataset(folder, "reactivity_rates", SCHEMA, ACTIVATION_DATE, before)
    cohorts = pictures.cohorts_of(
        pd.concat(
            [stored.to_table().to_pandas(types_mapper=pd.ArrowDtype), frame.assign(**{ACTIVATION_DATE: last})],
        )
    )
    chart = {"chart": dg.MetadataValue.md(pictures.chart_markdown(cohorts))} if cohorts else {}
    return {COLUMN_LINEAGE: column_lineage(), **chart}
