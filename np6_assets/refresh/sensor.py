"""The sensor `np6_refresh`: what it says of itself, and how often it looks. What it does is in `tick.py`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from np6_assets.refresh import jobs, late_checks
from np6_assets.resources import NP6, STORE, keys_of, np6_of, store_of
from np6_assets.settings import Settings

if TYPE_CHECKING:
    from np6_assets.refresh.event_files import EventFiles


def np6_refresh(settings: Settings, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """The sensor. It does not run until it is turned on: it spends the account's rate limit."""

    @cache
    def files() -> EventFiles:
        from np6_assets.refresh.event_files import EventFiles

        return EventFiles(settings)

    @dg.sensor(
        name=settings.named(jobs.SENSOR),
        job=dg.define_asset_job(
            settings.named(jobs.FETCH_EVENTS),
            selection=_events_but_late_checks(settings),
            description="Fetches event days: all event assets of a day, or of a range of days, in one run.",
            executor_def=dg.in_process_executor,
        ),
        required_resource_keys=keys_of(settings, NP6, STORE),
        minimum_interval_seconds=round(settings.probe_interval.total_seconds()),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Fetches today when something new was published, at most every "
            f"{round(settings.refresh_interval.total_seconds() / 60)} minutes, and each day again "
            f"{round(settings.lookback.total_seconds() / 60)} minutes after its end. What is published later than that "
            f"is for {settings.named(jobs.DAILY_INGEST)} to catch. Each tick says what it did, and a run's tag "
            f"{jobs.WHY_TAG} why."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if settings.missing is not None:
            return dg.SkipReason(settings.missing)
        from np6_assets.refresh.tick import Tick

        folder = store_of(context, settings).folder()
        return Tick(context, settings, folder, files(), now).result(np6_of(context, settings))

    return sensor


def _events_but_late_checks(settings: Settings) -> dg.AssetSelection:
    """The event assets and their checks, but for the morning's on lateness: a fetch changes nothing of what it says."""
    keys = [dg.AssetKey(settings.key(asset)) for asset in jobs.EVENT_ASSETS]
    late = dg.AssetSelection.checks(*(dg.AssetCheckKey(key, late_checks.CHECK) for key in keys))
    return dg.AssetSelection.assets(*keys) - late
