"""What importing the definitions takes, next to importing Dagster, and where it goes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import Any

from benchmarks.rounds import PROJECT, ROOT, Contender, Rounds

NOTHING = "python -c pass"
DAGSTER_ALONE = "import dagster"
DEFINITIONS = "import np6_assets.definitions"


def measure(sizes: list[int], rounds: Rounds) -> list[dict[str, Any]]:
    """Runs of each import."""
    python = str(PROJECT / "python")

    def contender(name: str, code: str) -> Contender:
        return Contender(name, lambda folder: [python, "-c", code], lambda folder: {})

    everyone = [
        contender(NOTHING, "pass"),
        contender(DAGSTER_ALONE, DAGSTER_ALONE),
        contender(DEFINITIONS, DEFINITIONS),
    ]
    rows = []
    for size in sizes:
        runs = Rounds(rounds.work, size, rounds.limits).measure(size, everyone)
        rows += [{"size": size, "contender": name, "runs": found} for name, found in runs.items()]
    return [*rows, {"contender": "packages", "packages": _packages([python, "-X", "importtime", "-c", DEFINITIONS])}]


def _packages(command: Sequence[str]) -> dict[str, float]:
    """Seconds that each package's own modules take while the definitions are imported, the largest first."""
    said = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True).stderr
    seconds: dict[str, float] = {}
    for found in re.finditer(r"^import time:\s*(\d+) \|\s*\d+ \|\s*([\w.]+)$", said, re.MULTILINE):
        package = found[2].partition(".")[0]
        seconds[package] = seconds.get(package, 0.0) + int(found[1]) / 1e6
    return dict(sorted(seconds.items(), key=lambda item: -item[1])[:12])
