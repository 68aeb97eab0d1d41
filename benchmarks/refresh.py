"""Measure an incremental fetch of a day of which one event in a hundred is new, next to a full fetch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks import commands, inputs
from benchmarks.ingest import build_check
from benchmarks.measure import measure_command
from benchmarks.rounds import Contender, Rounds, build_rows
from benchmarks.server import RunningServer, run_server

FULL = "all of the day"
DEFAULT_LOOKBACK = "what is new, and 60 minutes again (default)"
SHORT_LOOKBACK = "what is new, and 5 minutes again"

NEW_SHARE = 0.01


def measure(size: int, rounds: Rounds) -> list[dict[str, Any]]:
    """Measure fetches of a day of so many events."""
    feed = inputs.write_feed(rounds.work, size)
    with run_server("server", *feed.files) as server:
        fetched = _fetch_first(rounds.work / "fetched", server)
        runs = rounds.measure(size, _build_contenders(feed, server, fetched), server.read_cpu)
    shutil.rmtree(fetched)
    feed.remove()
    return build_rows(size, runs, bytes=feed.bytes)


def _fetch_first(folder: Path, server: RunningServer) -> Path:
    """Fetch the day before its last hundredth is published; return the folder with its data."""
    day = inputs.DAY
    now = day.end - (day.end - day.start) * NEW_SHARE
    server.publish_until(round(now.timestamp() * 1000))
    environment = {"PYTHONPATH": str(commands.ROOT), **commands.prepare_deployment(folder, server.url)}
    command = commands.build_project_script("refresh", now.isoformat())
    run = measure_command(command, folder / "log", environment=environment, folder=folder)
    if run.failed:
        raise RuntimeError(f"the first fetch failed: {run.failed}")
    server.publish_until(2**61)
    return folder


def _build_contenders(feed: inputs.Feed, server: RunningServer, fetched: Path) -> list[Contender]:
    now = inputs.DAY.end - timedelta(milliseconds=1)
    check_events = build_check(feed, "data/hits/*/*.parquet")

    def copy_data(folder: Path) -> None:
        shutil.copytree(fetched / "data", folder / "data")
        server.take_counts()

    def check(folder: Path) -> Mapping[str, float]:
        return {**check_events(folder), "downloaded": server.take_counts()["bytes"]}

    def build_contender(name: str, lookback_minutes: int, *arguments: str) -> Contender:
        return Contender(
            name,
            lambda folder: commands.build_project_script("refresh", now.isoformat(), *arguments),
            check,
            lambda folder: commands.prepare_deployment(folder, server.url, NP6_LOOKBACK_MINUTES=str(lookback_minutes)),
            copy_data,
        )

    return [
        build_contender(DEFAULT_LOOKBACK, 60),
        build_contender(SHORT_LOOKBACK, 5),
        build_contender(FULL, 60, "full"),
    ]
