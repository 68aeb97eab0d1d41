"""The sensor `rates_follow`: what it says of itself, and how often it looks. What it does is in `follow_tick.py`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from np6_assets.refresh import jobs
from np6_assets.resources import STORE, keys_of, store_of
from np6_assets.settings import Settings

if TYPE_CHECKING:
    from np6_assets.refresh.follow_tick import StoredFiles

SECONDS_BETWEEN_TICKS = 30


def rates_follow(settings: Settings, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """The sensor. It runs unless stopped: it follows what was fetched, and fetches nothing."""

    @cache
    def files() -> StoredFiles:
        from np6_assets.refresh.follow_tick import StoredFiles

        return StoredFiles(settings)

    @dg.sensor(
        name=settings.named(jobs.RATES_SENSOR),
        job=dg.define_asset_job(
            settings.named(jobs.COMPUTE_RATES),
            selection=dg.AssetSelection.assets(settings.key("reactivity_rates")),
            description="Computes the rates of a day of activations, or of a range of days, in one run.",
            executor_def=dg.in_process_executor,
        ),
        required_resource_keys=keys_of(settings, STORE),
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Computes the rates of the days whose events changed since the rates were computed, whoever fetched them, "
            f"at most every {round(settings.refresh_interval.total_seconds() / 60)} minutes. Waits while events are "
            "being fetched, and until a day's own activations are there."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from np6_assets.refresh.follow_tick import tick

        return tick(context, settings, files(), store_of(context, settings).folder(), now)

    return sensor
