"""The asset `reactivity_rates`, one partition for each activation day."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow.dataset as ds

from np6_assets.partitions import ACTIVATION_DATE, backfill_policy, daily, days_ahead
from np6_assets.rates.columns import COLUMNS
from np6_assets.rates.compute import ACTIVATION_DAYS, Feeds, rates
from np6_assets.refresh.automation import follow_the_events
from np6_assets.settings import Settings
from np6_assets.storage.io_manager import ALLOW_MISSING, Partition, PartitionStream
from np6_assets.storage.schemas import storage_metadata

_PREVIEW_ROWS = 20
_PREVIEW = (
    "activation_id",
    "activation_version",
    "activations",
    "hit_rate",
    "optout_rate",
    "bounce_rate",
    "is_final",
)


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
    ) -> Any:
        datasets = {
            "activations": activations,
            "hits": hits,
            "optouts": optouts,
            "bounces": bounces,
            "impressions": impressions,
        }
        feeds = Feeds(datasets, settings.timezone)

        def cohorts() -> Iterator[tuple[str, Partition]]:
            for key in context.partition_keys:
                frame = rates(feeds, key, settings.window_days)
                context.add_asset_metadata(metadata_of(frame), partition_key=key)
                yield key, frame

        yield from PartitionStream(lambda: nullcontext(cohorts())).outputs()

    return reactivity_rates


def metadata_of(frame: pd.DataFrame) -> dict[str, Any]:
    """What the UI shows of a cohort: its own rates, which Dagster plots over the partitions, and the largest rows."""
    totals = frame[["activations", "delivered", "hit_activations", "optout_activations", "bounced"]].sum(min_count=1)
    metadata: dict[str, Any] = {
        "activations": _number(totals["activations"]),
        "hit_rate": _share(totals["hit_activations"], totals["delivered"]),
        "optout_rate": _share(totals["optout_activations"], totals["delivered"]),
        "bounce_rate": _share(totals["bounced"], totals["activations"]),
        "preview": dg.MetadataValue.md(_preview(frame)),
    }
    return {name: value for name, value in metadata.items() if value is not None}


def _number(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _share(part: Any, whole: Any) -> float | None:
    return None if pd.isna(part) or pd.isna(whole) or not whole else float(part) / float(whole)


def _preview(frame: pd.DataFrame) -> str:
    """A Markdown table of the rows with the most sends."""
    largest = frame.sort_values("activations", ascending=False, kind="stable").head(_PREVIEW_ROWS)
    lines = ["| " + " | ".join(_PREVIEW) + " |", "|" + " --- |" * len(_PREVIEW)]
    lines += [
        "| " + " | ".join(_cell(name, value) for name, value in zip(_PREVIEW, row, strict=True)) + " |"
        for row in largest[list(_PREVIEW)].itertuples(index=False)
    ]
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.2%}" if name.endswith("_rate") else str(value)
