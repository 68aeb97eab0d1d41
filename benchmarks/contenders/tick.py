"""Ticks of the sensor np6_refresh when nothing is new, in one process: URL FETCHED_AT NOW. Writes tick.json."""

import json
import os
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from statistics import median

import dagster as dg

from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions

TICKS = 7
EVENTS = ["hits", "optouts", "bounces", "impressions", "activations"]

url, *moments = sys.argv[1:]
fetched_at, now = (datetime.fromisoformat(moment) for moment in moments)
clock = [fetched_at]
definitions = build_definitions(Settings.from_environment(os.environ), lambda: clock[0])
assets = list(definitions.assets or ())
resources = dict(definitions.resources or {})


def sent() -> dict[str, int]:
    """What the server has sent since it was asked last."""
    with urllib.request.urlopen(f"{url}/bench/sent") as answer:
        counts: dict[str, int] = json.load(answer)
        return counts


with dg.DagsterInstance.ephemeral() as instance:
    dg.materialize(assets, selection=["notifications"], resources=resources, instance=instance)
    dg.materialize(
        assets, selection=EVENTS, resources=resources, partition_key=str(fetched_at.date()), instance=instance
    )
    clock[0] = now
    sensor = definitions.resolve_sensor_def("np6_refresh")
    cursor, costs, counts = None, [], {}
    for _ in range(TICKS):
        sent()
        wall, cpu = time.perf_counter(), time.process_time()
        with dg.build_sensor_context(instance, cursor=cursor, definitions=definitions, resources=resources) as context:
            tick = sensor.evaluate_tick(context)
        costs.append((time.perf_counter() - wall, time.process_time() - cpu))
        counts, cursor = sent(), tick.cursor
        if tick.run_requests:
            sys.exit(f"something is new: {tick.run_requests}")
    wall, cpu = (median(cost) for cost in zip(*costs, strict=True))
Path("tick.json").write_text(json.dumps({**counts, "seconds": wall, "cpu": cpu}))
