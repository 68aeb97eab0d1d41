"""Measure a backfill of the simulated account's smallest size, all assets: in one run, and in one run a day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from benchmarks import commands
from benchmarks.measure import Run
from benchmarks.rounds import Check, Contender, Rounds, WrongOutputError, build_rows
from benchmarks.server import RunningServer, run_server

FIRST = date(2025, 1, 1)
EVENT_ASSETS = ("hits", "optouts", "bounces", "impressions", "activations")
ASSETS = (*EVENT_ASSETS, "reactivity_rates")
ONE_RUN = "one run over the range"
DAILY_RUNS = "a run a day"
EMPTY_RUN = "one run of assets that do nothing"
EMPTY_RUN_WITH_RECORDS = "the same, with the records of this project for each day"
SAMPLED_DAYS = 5
"""How many days are fetched in runs of their own, from which the cost of a run a day is estimated."""


def measure(days: int, rounds: Rounds) -> list[dict[str, Any]]:
    """Measure a backfill of so many days."""
    last = FIRST + timedelta(days=days - 1)
    step = max(days // SAMPLED_DAYS, 1)
    sampled = [FIRST + timedelta(days=number * step) for number in range(min(SAMPLED_DAYS, days))]
    with run_server("sandbox", str(FIRST - timedelta(days=30))) as server:
        backfill = Backfill(server, last, rounds.work / "records.json")
        one_run = backfill.build_one_run()
        samples = [backfill.build_daily_run(day) for day in sampled]
        empty_runs = [
            backfill.build_empty_run(EMPTY_RUN),
            backfill.build_empty_run(EMPTY_RUN_WITH_RECORDS, BENCH_RECORDS=str(rounds.work / "records.json")),
        ]
        runs = rounds.measure(days, [*samples, one_run, *empty_runs], server.read_cpu)
    sample_runs = [runs.pop(sample.name) for sample in samples]
    daily_runs = {DAILY_RUNS: _extrapolate(sample_runs, days)}
    return build_rows(days, runs, dagster_runs=1) + build_rows(days, daily_runs, dagster_runs=days)


class Backfill:
    """Builds the contenders of a backfill from `FIRST` to `last`, and compares their files.

    What the run over all days records of one of them is written to `records`, for the bound to record the same.
    """

    def __init__(self, server: RunningServer, last: date, records: Path) -> None:
        self._server = server
        self._last = last
        self._records = records
        self._daily_files: dict[date, dict[str, bytes]] = {}

    def build_one_run(self) -> Contender:
        """Build the run over all days; its check compares the days that were fetched in runs of their own."""

        def check(folder: Path) -> Mapping[str, float]:
            data = folder / "data"
            days = (self._last - FIRST).days + 1
            for asset in ASSETS:
                found = len(list((data / asset).glob("*/part-0.parquet")))
                if found != days:
                    raise WrongOutputError(f"{asset}: {found} days, expected {days}")
            for day, files in self._daily_files.items():
                if _read_event_files(data, day) != files:
                    raise WrongOutputError(f"the files of {day} differ from those of a run of that day only")
            rows = sum(pq.read_metadata(file).num_rows for file in data.glob("*/event_date=*/part-0.parquet"))
            self._records.write_text(_read_records(folder / "home", FIRST + timedelta(days=days // 2)))
            return {**self._server.take_counts(), "rows": rows}

        return self._build_contender(ONE_RUN, f"{FIRST}...{self._last}", check)

    def build_daily_run(self, day: date) -> Contender:
        """Build the run of one day, whose files are kept to compare with."""

        def check(folder: Path) -> Mapping[str, float]:
            files = self._daily_files[day] = _read_event_files(folder / "data", day)
            if files.keys() != set(EVENT_ASSETS):
                raise WrongOutputError(f"{day}: files of {', '.join(sorted(files))} only")
            return self._server.take_counts()

        return self._build_contender(f"{DAILY_RUNS}: {day}", str(day), check)

    def build_empty_run(self, name: str, **settings: str) -> Contender:
        """Build the run over all days of assets that do nothing."""
        return self._build_contender(
            name,
            f"{FIRST}...{self._last}",
            lambda folder: self._server.take_counts(),
            "benchmarks.contenders.records",
            **settings,
        )

    def _build_contender(
        self, name: str, partitions: str, check: Check, module: str = "np6_assets.definitions", **settings: str
    ) -> Contender:
        environment = {"NP6_START_DATE": str(FIRST), **settings}
        return Contender(
            name,
            lambda folder: commands.build_materialize(",".join(ASSETS), partitions, module),
            check,
            lambda folder: commands.prepare_deployment(folder, self._server.url, **environment),
            self._reset_counts,
        )

    def _reset_counts(self, folder: Path) -> None:
        self._server.take_counts()


def _read_records(home: Path, day: date) -> str:
    """Read what the last run recorded of a day: its own materializations, not Dagster's, and the checks' results."""
    found: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs(limit=1)
        for entry in instance.all_logs(run.run_id):
            if (event := entry.dagster_event) is None:
                continue
            if event.is_step_materialization:
                found.append(event.step_materialization_data.materialization)
            elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                found.append(event.asset_check_evaluation_data)
    of_day = [one for one in found if one.partition == str(day)]
    own = [one for one in of_day if "dagster/code_version" not in (getattr(one, "tags", None) or {})]
    return dg.serialize_value(own)


def _read_event_files(data: Path, day: date) -> dict[str, bytes]:
    """Read a day's event files, by asset."""
    return {file.parts[-3]: file.read_bytes() for file in data.glob(f"*/event_date={day}/part-0.parquet")}


def _extrapolate(samples: list[list[Run]], days: int) -> list[Run]:
    """Estimate what a run for each day costs, round by round, from the runs of some days."""
    factor = days / len(samples)
    return [
        Run(
            sum(run.wall for run in runs) * factor,
            sum(run.cpu for run in runs) * factor,
            max(run.peak for run in runs),
            sum(run.others for run in runs) / len(runs),
            next((run.failed for run in runs if run.failed), ""),
            {"requests": round(sum(run.facts.get("requests", 0) for run in runs) * factor)},
        )
        for runs in zip(*samples, strict=False)
    ]
