"""Run the project's definitions over some days in one process, as a deployment does, with shorter waits.

    python -m soak.worker FIRST LAST NOW

NOW is the clock, ISO 8601. Settings and DAGSTER_HOME come from the environment; SOAK_FREE_BYTES, if set, limits the
disk. The exit status is 1 if a run failed.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime

import dagster as dg

from np6_assets.np6.resource import NP6Resource
from np6_assets.refresh.jobs import EVENT_ASSETS
from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions
from soak.disk import limit_disk

READ_TIMEOUT = 0.5
"""Seconds, which every stalled request takes."""


def main() -> None:
    """Fetch the days and compute their rates."""
    first, last, now_text = sys.argv[1:]
    if free_bytes := os.environ.get("SOAK_FREE_BYTES"):
        limit_disk(int(free_bytes))
    now = datetime.fromisoformat(now_text)
    settings = Settings.from_environment(os.environ)
    definitions = build_definitions(settings, lambda: now)
    np6 = NP6Resource(
        base_url=settings.base_url,
        api_key=dg.EnvVar("NP6_API_KEY"),
        read_timeout=READ_TIMEOUT,
        backoff=0.01,
        longest_wait=0.05,
        step_retry_delay=0,
    )
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with dg.DagsterInstance.get() as instance:
        for assets in (EVENT_ASSETS, ("reactivity_rates",)):
            result = dg.materialize(
                definitions.assets or (),
                selection=list(assets),
                resources={**(definitions.resources or {}), "np6": np6},
                instance=instance,
                tags=tags,
                raise_on_error=False,
            )
            if not result.success:
                sys.exit(1)


if __name__ == "__main__":
    main()
