"""The time limit of a run. Dagster ends and retries it then, also if a worker died on another machine."""

from __future__ import annotations

import dagster as dg

from np6_assets.contact.days import read_run_days
from np6_assets.dagster_private import tag_run

TAG = "dagster/max_runtime"
"""Dagster's tag for the limit in seconds; `max_runtime_seconds` in dagster.yaml is for runs without it."""

SECONDS = 3600
"""For every run: a request that is retried as often as possible takes half of it."""

SECONDS_PER_DAY = 600
"""For each day: five million events of 900 bytes, as gzip a tenth of that, take seven minutes at 1 MB/s."""


def limit_runtime(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag a run with its time limit, by its number of days; unless it has no days, or has the tag."""
    days = len(read_run_days(run.tags))
    if days and TAG not in run.tags:
        tag_run(instance, run.run_id, TAG, str(SECONDS + days * SECONDS_PER_DAY))
