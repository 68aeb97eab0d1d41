"""Define the sensor `rates_follow`. What a tick does is in `rates_tick.py`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from np6_assets.refresh import jobs
from np6_assets.resources import STORE, get_store, list_resource_keys
from np6_assets.settings import Settings

if TYPE_CHECKING:
    from np6_assets.refresh.rates_tick import RateFiles

SECONDS_BETWEEN_TICKS = 30


def rates_follow(settings: Settings, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """Define the sensor. It is on unless somebody stops it: it requests nothing of the API."""

    @cache
    def files() -> RateFiles:
        from np6_assets.refresh.rates_tick import RateFiles

        return RateFiles(settings)

    @dg.sensor(
        name=settings.named(jobs.RATES_SENSOR),
        job=dg.define_asset_job(
            settings.named(jobs.COMPUTE_RATES),
            selection=dg.AssetSelection.assets(settings.key("reactivity_rates")),
            description="Computes the rates of a day of activations, or of a range of days, in one run.",
            executor_def=dg.in_process_executor,
        ),
        required_resource_keys=list_resource_keys(settings, STORE),
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Computes the rates of the days whose events changed since the rates were computed, whoever fetched them, "
            f"at most every {round(settings.refresh_interval.total_seconds() / 60)} minutes. Waits while events are "
            "being fetched, and until a day's own activations are stored."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from np6_assets.refresh.rates_tick import run_tick

        return run_tick(context, settings, files(), get_store(context, settings).open_folder(), now)

    return sensor
