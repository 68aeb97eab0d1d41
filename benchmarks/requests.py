"""How many requests an account of thousands of notifications costs in a day of refreshes, of which few are active."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.rounds import PROJECT, Contender, Rounds, script

NOTIFICATIONS, ACTIVE = 5_000, 30

KINDS = ("list", "feeds", "activations", "probes")
"""What a request asks for, as a fact of a run: the list of notifications, the feed of a whole account, the activations
of one notification; or, in a tick of the sensor, whether there is anything new."""

PHASES = {
    "first": "first fetch: four days, by `daily_ingest`",
    "refresh": "refreshes, by `np6_refresh` every 15 minutes",
    "closing": "the refresh that closes the day",
    "nightly": "the next night's fetch of four days, by `daily_ingest`",
}
DAY = ("refresh", "closing", "nightly")
"""The phases of an ordinary day."""


def measure(sizes: list[int], rounds: Rounds) -> list[dict[str, Any]]:
    """One run, as its counts are the same each time."""
    rows = []
    for size in sizes:
        day = Contender(
            "a day",
            lambda folder, size=size: script(PROJECT, "day_of_refreshes", str(size), str(ACTIVE)),
            lambda folder: json.loads(Path(folder, "requests.json").read_text()),
        )
        runs = Rounds(rounds.work, 1, rounds.limits).measure(size, [day])
        rows += [{"size": size, "contender": name, "runs": found} for name, found in runs.items()]
    return rows


def lines(size: int, facts: Mapping[str, float]) -> list[str]:
    """The rows of the report's table, by phase and for the day."""
    counts = {phase: [int(facts.get(f"{phase} {what}", 0)) for what in ("runs", *KINDS)] for phase in PHASES}
    day = [sum(column) for column in zip(*(counts[phase] for phase in DAY), strict=True)]
    made = []
    for what, (runs, *kinds) in [*((PHASES[phase], counts[phase]) for phase in PHASES), ("all of the day", day)]:
        everyone = sum(kinds) - kinds[KINDS.index("activations")] + runs * size
        cells = " | ".join(f"{number:,}" for number in (runs, *kinds, sum(kinds), everyone))
        made.append(f"| {size:,} | {what} | {cells} |")
    return made
