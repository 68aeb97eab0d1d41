"""A day of which one event in a hundred is new: what was published since, against all of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.ingest import checked
from benchmarks.measure import run
from benchmarks.rounds import PROJECT, ROOT, Contender, Rounds, in_dagster, script
from benchmarks.server import Served, serving

FULL = "all of the day"
SINCE = "what is new, and 60 minutes again (default)"
SINCE_LITTLE = "what is new, and 5 minutes again"

NEW = 0.01


def measure(sizes: list[int], rounds: Rounds) -> list[dict[str, Any]]:
    """Runs by number of events in the day."""
    rows = []
    for size in sorted(sizes):
        feed = inputs.feed(rounds.work, size)
        with serving("server", feed.body, feed.index) as server:
            fetched = _fetched(rounds.work / "fetched", server)
            runs = rounds.measure(size, contenders(feed, server, fetched), server.cpu)
        rows += [{"size": size, "bytes": feed.bytes, "contender": name, "runs": found} for name, found in runs.items()]
        shutil.rmtree(fetched)
        inputs.remove(feed)
    return rows


def _fetched(folder: Path, server: Served) -> Path:
    """The data of a day that was fetched before its last hundredth."""
    day = inputs.HITS_DAY
    moment = day.end - (day.end - day.start) * NEW
    server.show_until(round(moment.timestamp() * 1000))
    environment = {"PYTHONPATH": str(ROOT), **_environment(server, folder, 60)}
    done = run(script(PROJECT, "refresh", moment.isoformat()), folder / "log", environment=environment, folder=folder)
    if done.failed:
        raise RuntimeError(f"the first fetch failed: {done.failed}")
    server.show_until(2**61)
    return folder


def contenders(feed: inputs.Feed, server: Served, fetched: Path) -> list[Contender]:
    """What is new, and all of it."""
    late = inputs.HITS_DAY.end - timedelta(milliseconds=1)

    def contender(name: str, lookback: int, *arguments: str) -> Contender:
        return Contender(
            name,
            lambda folder: script(PROJECT, "refresh", late.isoformat(), *arguments),
            _checked(feed, server),
            lambda folder: _environment(server, folder, lookback),
            before=lambda folder: _ready(fetched, folder, server),
        )

    return [contender(SINCE, 60), contender(SINCE_LITTLE, 5), contender(FULL, 60, "full")]


def _environment(server: Served, folder: Path, lookback: int) -> dict[str, str]:
    return in_dagster(server.url, folder / "data", folder / "home", NP6_LOOKBACK_MINUTES=str(lookback))


def _ready(fetched: Path, folder: Path, server: Served) -> None:
    shutil.copytree(fetched / "data", folder / "data")
    server.sent()


def _checked(feed: inputs.Feed, server: Served) -> Callable[[Path], Mapping[str, float]]:
    check = checked(feed, "data/hits/*/*.parquet")
    return lambda folder: {**check(folder), "downloaded": server.sent()["bytes"]}
