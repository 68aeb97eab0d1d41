"""What the sensor and the schedule have in common: the names of their jobs, and how they ask for a run."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from np6_assets.contact.days import FIRST_DAY_TAG, LAST_DAY_TAG
from np6_assets.events.kinds import ACTIVATIONS, KINDS
from np6_assets.settings import Settings

EVENT_ASSETS = tuple(kind.asset for kind in KINDS)

FETCH_EVENTS = "fetch_events"
"""Name of the sensor's job."""

FETCH_DAILY = "fetch_daily"
"""Name of the schedule's job."""

FETCHING = (FETCH_EVENTS, FETCH_DAILY)

COMPUTE_RATES = "compute_rates"
"""Name of the job of the sensor of the rates."""

RATES_SENSOR = "rates_follow"
"""Name of the sensor that asks for rates."""

SENSOR = "np6_refresh"
"""Name of the sensor that asks for days; Dagster's tag for it is on its runs."""

DAILY_INGEST = "daily_ingest"
"""Name of the schedule."""

WHY_TAG = "np6/why"
"""Tag of a run that was asked for here: the reason, in words."""


def catchers_of_late_events(settings: Settings) -> tuple[str, str]:
    """The sensor and the schedule of an account that catch late-arriving events, once one of them is turned on."""
    return settings.named(SENSOR), settings.named(DAILY_INGEST)


def request(
    settings: Settings,
    first: str,
    last: str,
    why: str,
    *,
    full_refresh: bool = False,
    missing_only: bool = False,
    run_key: str | None = None,
    assets: Iterable[str] | None = None,
) -> dg.RunRequest:
    """Ask for the days from `first` to `last`, both included, in one run; with a `run_key` only once.

    Of the job's assets, or of some of them. `missing_only`: of activations alone, and of the notifications that did not
    answer.
    """
    if missing_only:
        assets = [ACTIVATIONS.asset]
    flags = {"full_refresh": full_refresh, "missing_only": missing_only}
    config = {"config": {name: True for name, is_set in flags.items() if is_set}}
    configured = EVENT_ASSETS if assets is None else assets
    ops = {"__".join(settings.key(asset)): config for asset in configured} if any(flags.values()) else {}
    days = {FIRST_DAY_TAG: first, LAST_DAY_TAG: last} if first != last else {}
    return dg.RunRequest(
        run_key=run_key,
        partition_key=None if days else first,
        run_config={"ops": ops} if ops else {},
        asset_selection=None if assets is None else [dg.AssetKey(settings.key(asset)) for asset in sorted(assets)],
        tags={**days, WHY_TAG: why},
    )
