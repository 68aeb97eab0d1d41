"""The names of sensors, schedules and their jobs, and how these request a run."""

from __future__ import annotations

import dagster as dg

from np6_assets.contact.days import FIRST_DAY_TAG, LAST_DAY_TAG
from np6_assets.events.kinds import ACTIVATIONS, KINDS
from np6_assets.refresh.planner import PlannedRun
from np6_assets.settings import Settings

EVENT_ASSETS = tuple(kind.asset for kind in KINDS)

SENSOR, FETCH_EVENTS = "np6_refresh", "fetch_events"
"""The sensor that requests event days, and its job."""

DAILY_INGEST, FETCH_DAILY = "daily_ingest", "fetch_daily"
"""The nightly schedule, and its job."""

RATES_SENSOR, COMPUTE_RATES = "rates_follow", "compute_rates"
"""The sensor that requests rates, and its job."""

FETCHING = (FETCH_EVENTS, FETCH_DAILY)

WHY_TAG = "np6/why"
"""Tag of a requested run: the reason, in words."""


def name_late_event_fetchers(settings: Settings) -> tuple[str, str]:
    """Name the sensor and the schedule of an account that fetch late-arriving events, once one of them is on."""
    return settings.named(SENSOR), settings.named(DAILY_INGEST)


def build_run_request(
    settings: Settings, run: PlannedRun, *, full_refresh: bool = False, run_key: str | None = None
) -> dg.RunRequest:
    """Request a planned run; with a `run_key` only once."""
    assets = {ACTIVATIONS.asset} if run.missing_only else run.assets
    flags = {"full_refresh": full_refresh, "missing_only": run.missing_only}
    config = {"config": {name: True for name, is_set in flags.items() if is_set}}
    configured = EVENT_ASSETS if assets is None else assets
    ops = {"__".join(settings.key(asset)): config for asset in configured} if any(flags.values()) else {}
    days = {FIRST_DAY_TAG: run.first, LAST_DAY_TAG: run.last} if run.first != run.last else {}
    return dg.RunRequest(
        run_key=run_key,
        partition_key=None if days else run.first,
        run_config={"ops": ops} if ops else {},
        asset_selection=None if assets is None else [dg.AssetKey(settings.key(asset)) for asset in sorted(assets)],
        tags={**days, WHY_TAG: run.reason},
    )
