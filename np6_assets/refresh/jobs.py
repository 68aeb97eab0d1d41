"""The jobs that fetch event days, and how the sensor and the schedule ask for a run of them."""

from __future__ import annotations

import dagster as dg

from np6_assets.events.kinds import KINDS

EVENT_ASSETS = tuple(kind.asset for kind in KINDS)

FETCH_EVENTS = dg.define_asset_job(
    "fetch_events",
    selection=dg.AssetSelection.assets(*EVENT_ASSETS),
    description="Fetches event days: all event assets of a day, or of a range of days, in one run.",
)

DAILY_INGEST = dg.define_asset_job(
    "daily_ingest",
    selection=dg.AssetSelection.assets(*EVENT_ASSETS, "notifications"),
    description="Fetches event days, and the list of notifications, in one run.",
)

JOBS = (FETCH_EVENTS, DAILY_INGEST)

DAY_TAG = "dagster/partition"
FIRST_DAY_TAG = "dagster/asset_partition_range_start"
LAST_DAY_TAG = "dagster/asset_partition_range_end"
"""Dagster's tags for the partition, or the range of partitions, that a run is for."""

SENSOR = "np6_refresh"
"""Name of the sensor that asks for days; Dagster's tag for it is on its runs."""

WHY_TAG = "np6/why"
"""Tag of a run that was asked for here: the reason, in words."""


def request(first: str, last: str, why: str, *, full_refresh: bool = False) -> dg.RunRequest:
    """Ask for the days from `first` to `last`, both included, in one run."""
    full = {"ops": {asset: {"config": {"full_refresh": True}} for asset in EVENT_ASSETS}}
    days = {FIRST_DAY_TAG: first, LAST_DAY_TAG: last} if first != last else {}
    return dg.RunRequest(
        partition_key=None if days else first,
        run_config=full if full_refresh else {},
        tags={**days, WHY_TAG: why},
    )
