"""Measure the import of the definitions, next to that of Dagster, and the time of each package in it."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from benchmarks import commands
from benchmarks.rounds import Contender, Rounds, build_rows

PYTHON = str(commands.PROJECT_BIN / "python")
IMPORT_DAGSTER = "import dagster"
IMPORT_DEFINITIONS = "import np6_assets.definitions"


def measure(repeats: int, rounds: Rounds) -> list[dict[str, Any]]:
    """Measure each import so many times."""

    def build_contender(name: str, code: str) -> Contender:
        return Contender(name, lambda folder: [PYTHON, "-c", code], lambda folder: {})

    contenders = [
        build_contender("python -c pass", "pass"),
        build_contender(IMPORT_DAGSTER, IMPORT_DAGSTER),
        build_contender(IMPORT_DEFINITIONS, IMPORT_DEFINITIONS),
    ]
    runs = Rounds(rounds.work, repeats, rounds.limits).measure(repeats, contenders)
    return [*build_rows(repeats, runs), {"contender": "packages", "packages": _measure_packages()}]


def _measure_packages() -> dict[str, float]:
    """Measure the seconds that each package's own modules take in the import of the definitions, the slowest first."""
    command = [PYTHON, "-X", "importtime", "-c", IMPORT_DEFINITIONS]
    output = subprocess.run(command, cwd=commands.ROOT, stderr=subprocess.PIPE, text=True, check=True).stderr
    seconds: dict[str, float] = {}
    for match in re.finditer(r"^import time:\s*(\d+) \|\s*\d+ \|\s*([\w.]+)$", output, re.MULTILINE):
        package = match[2].partition(".")[0]
        seconds[package] = seconds.get(package, 0.0) + int(match[1]) / 1e6
    return dict(sorted(seconds.items(), key=lambda item: -item[1])[:12])
