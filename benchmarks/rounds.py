"""Run contenders in rounds: each once a round, in rotating order, with its output checked each time."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.commands import ROOT
from benchmarks.measure import Limits, Run, measure_command

THIS_PROJECT = "this project"
WITHOUT_DAGSTER = "this project, without Dagster"

Check = Callable[[Path], Mapping[str, float]]
"""Checks the output in a folder and returns facts about it; raises WrongOutputError."""


class WrongOutputError(Exception):
    """A contender's output is not the expected one."""


@dataclass(frozen=True)
class Contender:
    """A program to measure. Its callables get the empty folder in which it runs.

    `prepare` fills the folder, outside of the measurement. `size` is the size of its input, if not the round's.
    """

    name: str
    build_command: Callable[[Path], Sequence[str]]
    check: Check
    build_environment: Callable[[Path], Mapping[str, str]] = lambda folder: {}
    prepare: Callable[[Path], None] = lambda folder: None
    size: int | None = None


def build_rows(size: int, runs: Mapping[str, Sequence[Run]], **more: Any) -> list[dict[str, Any]]:
    """Build the rows of results.json of one input: one a contender."""
    return [{"size": size, **more, "contender": name, "runs": found} for name, found in runs.items()]


@dataclass
class Rounds:
    """Runs contenders in rounds.

    `last_runs` holds the last run of each size, by shape and contender, to estimate larger sizes.
    """

    work: Path
    repeats: int
    limits: Limits
    last_runs: dict[tuple[str, str], dict[int, Run]] = field(default_factory=dict)

    def load_results(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take earlier results as estimates, but not those of failures that may not recur."""
        for row in rows:
            if row.get("runs"):
                run = Run(**row["runs"][-1])
                if not run.failed or run.failed.startswith(("more than", "not run")):
                    self.last_runs.setdefault((row.get("shape", ""), row["contender"]), {})[row["size"]] = run

    def measure(
        self,
        size: int,
        contenders: Sequence[Contender],
        read_server_cpu: Callable[[], float] = lambda: 0.0,
        shape: str = "",
    ) -> dict[str, list[Run]]:
        """Run each contender once a round; return the runs of each in the order of the rounds.

        A contender that failed takes no part in later rounds. `shape` tells apart inputs of one size.
        """
        runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
        # A contender with a size of its own stays behind the contender before it.
        starts = [number for number, contender in enumerate(contenders) if contender.size is None] or [0]
        for number in range(self.repeats):
            start = starts[number % len(starts)]
            for contender in [*contenders[start:], *contenders[:start]]:
                earlier = runs[contender.name]
                if earlier and earlier[-1].failed:
                    continue
                input_size = size if contender.size is None else contender.size
                key = shape, contender.name
                run = self._predict_failure(key, input_size) or self._run_contender(contender, read_server_cpu)
                earlier.append(run)
                self.last_runs.setdefault(key, {})[input_size] = run
                result = run.failed.splitlines()[0] if run.failed else _format_cost(run)
                _log(f"{f'{shape} {input_size:,}':>24}  {contender.name:<40} {result}")
        return runs

    def _run_contender(self, contender: Contender, read_server_cpu: Callable[[], float]) -> Run:
        folder = self.work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        contender.prepare(folder)
        run = measure_command(
            contender.build_command(folder),
            self.work / "run.log",
            environment={"PYTHONPATH": str(ROOT), **contender.build_environment(folder)},
            folder=folder,
            limits=self.limits,
            read_server_cpu=read_server_cpu,
        )
        if not run.failed:
            try:
                run.facts.update(contender.check(folder))
            except WrongOutputError as error:
                run = replace(run, failed=f"wrong output: {error}")
        if run.failed:
            _log(run.failed)
        shutil.rmtree(folder, ignore_errors=True)
        return run

    def _predict_failure(self, key: tuple[str, str], size: int) -> Run | None:
        """Return a failed run if the next smaller size failed, or if an estimate from smaller ones is over a limit."""
        smaller = sorted((known, run) for known, run in self.last_runs.get(key, {}).items() if known < size)
        if not smaller:
            return None
        last_size, last = smaller[-1]
        if last.failed:
            return Run(0, 0, 0, 0, last.failed)
        seconds = last.wall * size / last_size if last_size else 0.0
        if seconds > self.limits.seconds:
            return Run(0, 0, 0, 0, f"not run: {seconds / 60:.0f} minutes, by the size before")
        peak = float(last.peak)
        if len(smaller) > 1:  # with a single size, the program's own memory is not known
            first_size, first = smaller[-2]
            peak += (last.peak - first.peak) / (last_size - first_size) * (size - last_size)
        if peak > self.limits.bytes:
            return Run(0, 0, 0, 0, f"not run: {peak / 2**30:.0f} GiB, by the sizes before")
        return None


def _format_cost(run: Run) -> str:
    return f"{run.wall:8.2f} s  {run.cpu:8.2f} CPU s  {run.peak / 2**20:8.0f} MiB  others {run.others:.2f}"


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
