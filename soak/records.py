"""How much Dagster records: simulated days of a deployment left alone, with the nightly job that removes old records.

`python -m soak.records --days 30 --pairs 4` prints a line a day: the runs that are recorded, and DAGSTER_HOME in bytes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg

from np6_assets.runs.records import KEPT, remove_runs
from np6_assets_tests.refresh.account import Clock
from np6_assets_tests.support.deployment import Deployment
from np6_assets_tests.support.events import population
from np6_assets_tests.support.rude_server import RudeServer

FIRST = date(2026, 3, 2)
WINDOW = 7
JOBS = {"fetch_events", "fetch_daily", "check_freshness", "check_lateness"}


@dataclass(frozen=True)
class Night:
    """What is recorded after a night: `runs` are all that Dagster lists, `files` the bytes by part of DAGSTER_HOME."""

    day: date
    removed: int
    runs: int
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """All of DAGSTER_HOME."""
        return sum(self.files.values())


def nights(folder: Path, days: int, pairs: int) -> Iterator[Night]:
    """Simulate days: in each, so many fetches of the day with its cohorts' rates, then a night.

    Dagster stamps its records with this machine's time, so a moment of the simulation is when it was simulated.
    """
    home = folder / "home"
    home.mkdir()
    made = population(1, FIRST, days, window_days=WINDOW)
    clock = Clock(datetime.combine(FIRST, time(), UTC))
    environment = {"NP6_START_DATE": f"{FIRST}", "NP6_WINDOW_DAYS": f"{WINDOW}"}
    with RudeServer(made, seed=1) as server, dg.DagsterInstance.local_temp(str(home)) as instance:
        deployment = Deployment(folder / "data", server, instance, clock, **environment)
        assets = {key for asset in deployment.definitions.assets or () for key in asset.keys}  # type: ignore[union-attr]
        moments = []
        for ahead in range(days):
            day = FIRST + timedelta(days=ahead)
            for pair in range(pairs):
                clock.now = datetime.combine(day, time(), UTC) + timedelta(days=1) * (pair + 1) / (pairs + 1)
                _fetch(deployment, "fetch_events", day, day)
                _rates(deployment, day)
            clock.now = datetime.combine(day, time(3, 30), UTC) + timedelta(days=1)
            _fetch(deployment, "fetch_daily", max(day - timedelta(days=3), FIRST), day)
            if ahead > WINDOW:
                confirmed = day - timedelta(days=WINDOW)
                _fetch(deployment, "fetch_daily", confirmed, confirmed)
            _rates(deployment, day)
            moments.append(datetime.now(UTC))
            removed = []
            if len(moments) > KEPT.days:
                removed = remove_runs(instance, assets, JOBS, moments[-1 - KEPT.days] + KEPT)
            yield Night(day, len(removed), instance.get_runs_count(), _sizes(home))


def _fetch(deployment: Deployment, job: str, first: date, last: date) -> None:
    tags = {"dagster/asset_partition_range_start": f"{first}", "dagster/asset_partition_range_end": f"{last}"}
    result = deployment.definitions.resolve_job_def(job).execute_in_process(
        instance=deployment.instance,
        partition_key=f"{first}" if first == last else None,
        tags={} if first == last else tags,
        resources={**(deployment.definitions.resources or {}), "np6": deployment.np6},
    )
    assert result.success


def _rates(deployment: Deployment, last: date) -> None:
    """The rates of the cohorts that an event of a day may count for."""
    first = max(last - timedelta(days=WINDOW), FIRST)
    tags = {"dagster/asset_partition_range_start": f"{first}", "dagster/asset_partition_range_end": f"{last}"}
    job = deployment.definitions.resolve_implicit_global_asset_job_def()
    rates = [dg.AssetKey("reactivity_rates")]
    assert job.execute_in_process(instance=deployment.instance, asset_selection=rates, tags=tags).success


def _sizes(home: Path) -> dict[str, int]:
    """Bytes on disk (of blocks) by part: the database that all runs share, those of the runs, logs, the rest."""
    sizes = dict.fromkeys(("index", "runs", "logs", "rest"), 0)
    for path in home.rglob("*"):
        if path.is_file():
            sizes[_part(path.relative_to(home))] += path.stat().st_blocks * 512
    return sizes


def _part(path: Path) -> str:
    if path.parts[0] == "storage":
        return "logs"
    if path.parts[:2] == ("history", "runs"):
        return "index" if path.name.startswith("index.") else "runs"
    return "rest"


def main() -> None:
    """Print a line a day."""
    parser = argparse.ArgumentParser(prog="python -m soak.records", description=__doc__)
    parser.add_argument("--days", type=int, default=30, help="days that are simulated")
    parser.add_argument("--pairs", type=int, default=4, help="fetches of a day, each with a run of rates")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="np6-records-") as folder:
        for night in nights(Path(folder), options.days, options.pairs):
            parts = ", ".join(f"{part} {size / 1e6:.1f}" for part, size in night.files.items())
            print(f"{night.day}: {night.runs} runs, {night.removed} removed, {night.bytes / 1e6:.1f} MB ({parts})")


if __name__ == "__main__":
    main()
