"""Which partitions are being fetched or computed, by Dagster's runs and backfills, whoever started them."""

from __future__ import annotations

from collections.abc import Collection

import dagster as dg

from np6_assets.contact.days import read_run_days
from np6_assets.dagster_private import list_backfill_days

BACKFILLS = 20
"""How many of the newest backfills are searched for partitions that they will still materialize."""

_FINISHED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def find_active_runs(
    instance: dg.DagsterInstance, assets: Collection[dg.AssetKey], jobs: Collection[str], sensor: str
) -> tuple[set[str], int]:
    """Find the days that unfinished runs and backfills of some assets will materialize.

    Also returns how many of the runs a sensor requested. A run without an asset selection counts if it is of one of
    `jobs`.
    """
    days: set[str] = set()
    count = 0
    unfinished = dg.RunsFilter(statuses=[status for status in dg.DagsterRunStatus if status not in _FINISHED])
    for record in instance.get_run_records(unfinished):
        run = record.dagster_run
        selected = run.asset_selection
        if set(assets) & set(selected or ()) or (not selected and run.job_name in jobs):
            days |= set(read_run_days(run.tags))
            count += run.tags.get("dagster/sensor_name") == sensor
    return days | list_backfill_days(instance, assets, BACKFILLS), count
