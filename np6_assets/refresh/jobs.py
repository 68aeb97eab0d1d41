"""What the sensor and the schedule have in common: the names of their jobs, and how they ask for a run."""

from __future__ import annotations

import dagster as dg

from np6_assets.contact.days import FIRST_DAY_TAG, LAST_DAY_TAG
from np6_assets.events.kinds import ACTIVATIONS, KINDS
from np6_assets.settings import Settings

EVENT_ASSETS = tuple(kind.asset for kind in KINDS)

FETCH_EVENTS = "fetch_events"
"""Name of the sensor's job."""

DAILY_INGEST = "daily_ingest"
"""Name of the schedule's job."""

SENSOR = "np6_refresh"
"""Name of the sensor that asks for days; Dagster's tag for it is on its runs."""

CATCH_LATE_EVENTS = (SENSOR, DAILY_INGEST)
"""What catches late-arriving events, once it is turned on."""

WHY_TAG = "np6/why"
"""Tag of a run that was asked for here: the reason, in words."""


def request(
    settings: Settings,
    first: str,
    last: str,
    why: str,
    *,
    full_refresh: bool = False,
    missing_only: bool = False,
    run_key: str | None = None,
) -> dg.RunRequest:
    """Ask for the days from `first` to `last`, both included, in one run; with a `run_key` only once.

    `missing_only`: for the activations alone of notifications that did not answer.
    """
    assets = [settings.key(asset) for asset in ([ACTIVATIONS.asset] if missing_only else EVENT_ASSETS)]
    said = {"full_refresh": full_refresh, "missing_only": missing_only}
    config = {name: True for name, is_so in said.items() if is_so}
    days = {FIRST_DAY_TAG: first, LAST_DAY_TAG: last} if first != last else {}
    return dg.RunRequest(
        run_key=run_key,
        partition_key=None if days else first,
        run_config={"ops": {"__".join(key): {"config": config} for key in assets}} if config else {},
        asset_selection=[dg.AssetKey(key) for key in assets] if missing_only else None,
        tags={**days, WHY_TAG: why},
    )
