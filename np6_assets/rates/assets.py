"""The asset `reactivity_rates`, one partition for each activation day."""

from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from datetime import datetime
from typing import Any

import dagster as dg

from np6_assets.contact.days import check_run_days, get_today
from np6_assets.partitions import ACTIVATION_DATE, backfill_policy, daily, days_ahead, event_days
from np6_assets.progress import Progress
from np6_assets.rates.columns import COLUMNS
from np6_assets.resources import IO_MANAGER, STORE, get_store, list_resource_keys
from np6_assets.settings import Settings
from np6_assets.storage.io_manager import ALLOW_MISSING, Dataset, Partition, PartitionStream
from np6_assets.storage.schemas import build_storage_metadata


def build_rates_asset(settings: Settings, now: Callable[[], datetime]) -> dg.AssetsDefinition:
    """Build the asset: the rates of each activation day, over the days of its window."""

    def window(asset: str) -> dg.AssetIn:
        days = days_ahead(settings.window_days)
        return dg.AssetIn(settings.key(asset), partition_mapping=days, metadata={ALLOW_MISSING: True})

    @dg.asset(
        key=settings.key("reactivity_rates"),
        description=(
            "What share of the day's sends was hit, opted out or bounced, one row for each notification, version "
            f"and application. Events count up to {settings.window_days} days after the day of the send."
        ),
        group_name=settings.named("rates"),
        kinds={"spark" if settings.spark_connect else "duckdb", "parquet"},
        partitions_def=daily(settings.start_date, settings.timezone),
        backfill_policy=backfill_policy(settings.backfill_days_per_run),
        metadata=build_storage_metadata(COLUMNS, ACTIVATION_DATE),
        required_resource_keys=list_resource_keys(settings, STORE),
        io_manager_key=settings.named(IO_MANAGER),
        ins={asset: window(asset) for asset in ("activations", "hits", "optouts", "bounces", "impressions")},
    )
    def reactivity_rates(context: dg.AssetExecutionContext, **stored: Dataset) -> Any:
        from np6_assets.rates.compute import build_duckdb_runner, compute_rates, open_duckdb
        from np6_assets.rates.counting import count_uncounted, place_events
        from np6_assets.rates.feeds import Feeds, find_due_time
        from np6_assets.rates.inputs import INPUTS
        from np6_assets.rates.metadata import build_metadata, build_overview, read_notification_names
        from np6_assets.rates.spark import open_spark_runner
        from np6_assets.storage import parquet

        check_run_days(context.run.tags, settings, now())
        folder = get_store(context, settings).open_folder().cache_listing()
        datasets = {asset: parquet.reopen_dataset(folder, data) for asset, data in stored.items()}
        feeds = Feeds(datasets, settings.timezone, find_due_time(folder, settings))
        names = read_notification_names(folder)
        keys, newest = context.partition_keys, get_today(settings, now())
        last = max(keys)

        def cohorts() -> Generator[Partition]:
            spark = settings.spark_connect
            progress = Progress("reactivity_rates", len(keys), context.log.info, unit="rows")
            with (
                open_duckdb() as database,
                open_spark_runner(spark) if spark else nullcontext(build_duckdb_runner(database)) as run,
            ):
                placed = place_events(database, feeds, keys)
                for key, rows in compute_rates(run, feeds, keys, settings.window_days):
                    metadata = build_metadata(rows, names, is_over=key < str(newest))
                    uncounted = count_uncounted(placed[key], settings).values()
                    metadata["events_in_no_cohort"] = sum(sum(reasons.values()) for reasons in uncounted)
                    if key == last:  # the UI shows what the newest materialization says
                        metadata = build_overview(folder, key, rows, settings, newest) | metadata
                    used = {INPUTS: feeds.read_inputs(event_days(key, settings.window_days)).write()}
                    yield Partition(key, rows.replace_schema_metadata(used), metadata)
                    progress.record_day(key, rows.num_rows)

        yield from PartitionStream(lambda: closing(cohorts())).yield_outputs()

    return reactivity_rates
