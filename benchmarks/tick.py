"""A tick of the sensor when nothing is new since the day was fetched."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.rounds import PROJECT, Contender, Rounds, in_dagster, script
from benchmarks.server import serving

TICK = "np6_refresh, one day open"


def measure(sizes: list[int], rounds: Rounds) -> list[dict[str, Any]]:
    """Runs by number of events in the day."""
    rows = []
    fetched_at = inputs.HITS_DAY.start + timedelta(hours=12)
    now = fetched_at + timedelta(minutes=20)  # a day is not probed for NP6_REFRESH_MINUTES after its fetch
    for size in sizes:
        feed = inputs.feed(rounds.work, size)
        with serving("server", feed.body, feed.index) as server:
            server.show_until(round(fetched_at.timestamp() * 1000))
            tick = Contender(
                TICK,
                lambda folder: script(PROJECT, "tick", server.url, fetched_at.isoformat(), now.isoformat()),
                lambda folder: json.loads(Path(folder, "tick.json").read_text()),
                lambda folder: in_dagster(
                    server.url, folder / "data", folder / "home", NP6_START_DATE=inputs.HITS_DAY.key
                ),
            )
            runs = rounds.measure(size, [tick], server.cpu)
        rows += [{"size": size, "contender": name, "runs": found} for name, found in runs.items()]
        inputs.remove(feed)
    return rows
