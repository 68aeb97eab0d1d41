"""How long a run may take. Dagster ends it then, and starts it again: all that sees that a worker died elsewhere."""

from __future__ import annotations

import dagster as dg

from np6_assets.contact.days import days_named
from np6_assets.dagster_private import add_tags

TAG = "dagster/max_runtime"
"""Dagster's tag for it, in seconds; `max_runtime_seconds` in dagster.yaml is for runs without it."""

SECONDS = 3600
"""Of every run: a request that is retried for as long as it may be takes half of it."""

SECONDS_PER_DAY = 600
"""Five million events of 900 bytes, as gzip a tenth of that, at 1 MB/s: seven minutes."""


def bound(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Set how long a run may take, by the number of its days. One without days, or that has the tag, stays as it is."""
    days = len(days_named(run.tags))
    if days and TAG not in run.tags:
        add_tags(instance, run.run_id, {TAG: str(SECONDS + days * SECONDS_PER_DAY)})
