"""Which partitions are being fetched or computed, by whomever: by Dagster's runs and backfills."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import dagster as dg

from np6_assets.contact.days import days_named
from np6_assets.dagster_private import days_of_backfills

BACKFILLS = 20
"""How many of the newest backfills are looked at for partitions that they are about to materialize."""

_FINISHED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


@dataclass(frozen=True)
class UnderWay:
    """The days that some run or backfill is to materialize, and how many of the runs a sensor asked for."""

    days: set[str]
    runs: int


def under_way(
    instance: dg.DagsterInstance, assets: Collection[dg.AssetKey], jobs: Collection[str], sensor: str
) -> UnderWay:
    """What is under way of some assets; `jobs` are those that materialize them where a run does not say which."""
    days: set[str] = set()
    runs = 0
    unfinished = dg.RunsFilter(statuses=[status for status in dg.DagsterRunStatus if status not in _FINISHED])
    for record in instance.get_run_records(unfinished):
        run = record.dagster_run
        selected = run.asset_selection
        if set(assets) & set(selected or ()) or (not selected and run.job_name in jobs):
            days |= set(days_named(run.tags))
            runs += run.tags.get("dagster/sensor_name") == sensor
    return UnderWay(days | days_of_backfills(instance, assets, BACKFILLS), runs)
