"""Runs whose process is gone: they hold their place in the pool until somebody ends them."""

from __future__ import annotations

from pathlib import Path

from np6_assets.doctor.finding import Finding
from np6_assets.runs import lock
from np6_assets.runs.dead import SENSOR


def examine(home: Path) -> Finding:
    """The finding about the runs of this machine."""
    dead = list(lock.left_behind(home))
    if not dead:
        return Finding("runs", "ok", "none whose process is gone")
    text = f"the process is gone of {', '.join(dead)}; other runs may wait for them"
    advice = f"Dagster's daemon ends them within two minutes (sensor {SENSOR}): start it, or terminate them in the UI."
    return Finding("runs", "warning", text, advice, {"dead": dead})
