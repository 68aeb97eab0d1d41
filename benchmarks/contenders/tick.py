"""Run ticks of the sensor np6_refresh when nothing is new, in one process, and write tick.json: URL FETCHED_AT NOW."""

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from statistics import median

import dagster as dg

from benchmarks.server import take_counts
from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions

TICKS = 7
EVENT_ASSETS = ["hits", "optouts", "bounces", "impressions", "activations"]

url, *times = sys.argv[1:]
fetched_at, now = map(datetime.fromisoformat, times)
clock = [fetched_at]
definitions = build_definitions(Settings.from_environment(os.environ), lambda: clock[0])
assets = list(definitions.assets or ())
resources = dict(definitions.resources or {})

with dg.DagsterInstance.ephemeral() as instance:
    dg.materialize(assets, selection=["notifications"], resources=resources, instance=instance)
    dg.materialize(
        assets, selection=EVENT_ASSETS, resources=resources, partition_key=str(fetched_at.date()), instance=instance
    )
    clock[0] = now
    sensor = definitions.resolve_sensor_def("np6_refresh")
    cursor, costs, counts = None, [], {}
    for _ in range(TICKS):
        take_counts(url)
        wall, cpu = time.perf_counter(), time.process_time()
        with dg.build_sensor_context(instance, cursor=cursor, definitions=definitions, resources=resources) as context:
            tick = sensor.evaluate_tick(context)
        costs.append((time.perf_counter() - wall, time.process_time() - cpu))
        counts, cursor = take_counts(url), tick.cursor
        if tick.run_requests:
            sys.exit(f"the tick requested runs, though nothing is new: {tick.run_requests}")
    wall, cpu = (median(cost) for cost in zip(*costs, strict=True))
Path("tick.json").write_text(json.dumps({**counts, "seconds": wall, "cpu": cpu}))
