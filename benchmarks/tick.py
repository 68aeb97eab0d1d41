"""Measure a tick of the sensor np6_refresh when nothing is new since the day was fetched."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks import commands, inputs
from benchmarks.rounds import Contender, Rounds, build_rows
from benchmarks.server import run_server


def measure(size: int, rounds: Rounds) -> list[dict[str, Any]]:
    """Measure a tick for a day of so many events."""
    fetched_at = inputs.DAY.start + timedelta(hours=12)
    now = fetched_at + timedelta(minutes=20)  # a day is not probed for NP6_REFRESH_MINUTES after its fetch
    feed = inputs.write_feed(rounds.work, size)
    with run_server("server", *feed.files) as server:
        server.publish_until(round(fetched_at.timestamp() * 1000))
        contender = Contender(
            "np6_refresh, one day open",
            lambda folder: commands.build_project_script("tick", server.url, fetched_at.isoformat(), now.isoformat()),
            lambda folder: json.loads(Path(folder, "tick.json").read_text()),
            lambda folder: commands.prepare_deployment(folder, server.url, NP6_START_DATE=inputs.DAY.key),
        )
        runs = rounds.measure(size, [contender], server.read_cpu)
    feed.remove()
    return build_rows(size, runs)
