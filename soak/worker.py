"""One worker process: the project's definitions over some days, as a deployment runs them, with shorter waits.

    python -m soak.worker FIRST LAST NOW

NOW is the clock, ISO 8601. Settings and DAGSTER_HOME come from the environment. Exit status 1 where a run
failed.
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
from soak import disk

READ_TIMEOUT = 0.5
"""Seconds; a stalled request costs as much."""


def main() -> None:
    """Fetch the days and compute their rates."""
    first, last, now = sys.argv[1:]
    if left := os.environ.get("SOAK_BYTES"):
        disk.fill(int(left))
    moment = datetime.fromisoformat(now)
    settings = Settings.from_environment(os.environ)
    definitions = build_definitions(settings, lambda: moment)
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
