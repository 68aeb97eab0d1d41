"""Count the requests of a day of refreshes of an account with thousands of notifications, of which few send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import commands
from benchmarks.rounds import Contender, Rounds, build_rows

NOTIFICATIONS, ACTIVE = 5_000, 30

KINDS = ("list", "feeds", "activations", "probes")
"""Kinds of requests: the list of notifications; a feed of the whole account; the activations of one notification; and
any of these by a tick of the sensor."""

PHASES = {
    "first": "first fetch: four days, by `daily_ingest`",
    "refresh": "refreshes, by `np6_refresh` every 15 minutes",
    "closing": "the refresh that closes the day",
    "nightly": "the next night's fetch of four days, by `daily_ingest`",
}
DAY_PHASES = ("refresh", "closing", "nightly")
"""The phases of an ordinary day."""


def measure(notifications: int, rounds: Rounds) -> list[dict[str, Any]]:
    """Count requests in one run, as every run has the same counts."""
    contender = Contender(
        "a day",
        lambda folder: commands.build_project_script("day_of_refreshes", str(notifications), str(ACTIVE)),
        lambda folder: json.loads(Path(folder, "requests.json").read_text()),
    )
    runs = Rounds(rounds.work, 1, rounds.limits).measure(notifications, [contender])
    return build_rows(notifications, runs)


def build_table_rows(notifications: int, facts: Mapping[str, float]) -> list[list[str]]:
    """Build the report's rows: one for each phase, and one for the day."""
    counts = {phase: [int(facts.get(f"{phase} {kind}", 0)) for kind in ("runs", *KINDS)] for phase in PHASES}
    day = [sum(column) for column in zip(*(counts[phase] for phase in DAY_PHASES), strict=True)]
    rows = []
    for what, (runs, *kinds) in [*((PHASES[phase], counts[phase]) for phase in PHASES), ("all of the day", day)]:
        everyone = sum(kinds) - kinds[KINDS.index("activations")] + runs * notifications
        numbers = [f"{number:,}" for number in (runs, *kinds, sum(kinds), everyone)]
        rows.append([f"{notifications:,}", what, *numbers])
    return rows
