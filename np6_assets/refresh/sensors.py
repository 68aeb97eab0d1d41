"""Define the sensors `np6_refresh` and `rates_follow`. What a tick does is in `refresh_tick.py` and `rates_tick.py`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from np6_assets.refresh import jobs, late_event_checks
from np6_assets.resources import NP6, STORE, get_np6, get_store, list_resource_keys
from np6_assets.settings import Settings

if TYPE_CHECKING:
    from np6_assets.refresh.event_files import EventFiles
    from np6_assets.refresh.rates_tick import RateFiles

SECONDS_BETWEEN_RATES_TICKS = 30


def np6_refresh(settings: Settings, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """Define the sensor of event days. It is off until somebody turns it on: it uses the account's rate limit."""

    @cache
    def files() -> EventFiles:
        from np6_assets.refresh.event_files import EventFiles

        return EventFiles(settings)

    @dg.sensor(
        name=settings.named(jobs.SENSOR),
        job=dg.define_asset_job(
            settings.named(jobs.FETCH_EVENTS),
            selection=_select_events_without_late_checks(settings),
            description="Fetches event days: all event assets of a day, or of a range of days, in one run.",
            executor_def=dg.in_process_executor,
        ),
        required_resource_keys=list_resource_keys(settings, NP6, STORE),
        minimum_interval_seconds=round(settings.probe_interval.total_seconds()),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Fetches today when something new was published, at most every "
            f"{round(settings.refresh_interval.total_seconds() / 60)} minutes, and each day again "
            f"{round(settings.lookback.total_seconds() / 60)} minutes after its end. What is published later, "
            f"{settings.named(jobs.DAILY_INGEST)} fetches. Each tick says what it did, a run's tag {jobs.WHY_TAG} why."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if settings.missing is not None:
            return dg.SkipReason(settings.missing)
        from np6_assets.refresh.refresh_tick import RefreshTick

        folder = get_store(context, settings).open_folder()
        return RefreshTick(context, settings, folder, files(), now).run(get_np6(context, settings))

    return sensor


def rates_follow(settings: Settings, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """Define the sensor of rates. It is on unless somebody stops it: it requests nothing of the API."""

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
        minimum_interval_seconds=SECONDS_BETWEEN_RATES_TICKS,
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


def _select_events_without_late_checks(settings: Settings) -> dg.AssetSelection:
    """Select the event assets and their checks, except the daily check of late events: a fetch does not change it."""
    keys = [dg.AssetKey(settings.key(asset)) for asset in jobs.EVENT_ASSETS]
    late = dg.AssetSelection.checks(*(dg.AssetCheckKey(key, late_event_checks.CHECK) for key in keys))
    return dg.AssetSelection.assets(*keys) - late
