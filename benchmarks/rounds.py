"""Contenders, run in turn: one round after another, each contender once a round, its output checked each time."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks.measure import Limits, Run, run

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / ".venv" / "bin"
PEERS = ROOT / ".venv-bench" / "bin"

DAGSTER = "this project"
ALONE = "this project, without Dagster"


class WrongOutputError(Exception):
    """A contender's output is not what it should be."""


@dataclass(frozen=True)
class Contender:
    """A program, given an empty folder for its output.

    `check` raises WrongOutputError, or gives facts about the output; `before` prepares the folder, unmeasured. `size`
    is the contender's own, where it is not the round's.
    """

    name: str
    command: Callable[[Path], Sequence[str]]
    check: Callable[[Path], Mapping[str, float]]
    environment: Callable[[Path], Mapping[str, str]] = lambda folder: {}
    before: Callable[[Path], None] = lambda folder: None
    size: int | None = None


def script(python: Path, name: str, *arguments: str) -> list[str]:
    """The command of one of the programs in `contenders`."""
    return [str(python / "python"), "-m", f"benchmarks.contenders.{name}", *arguments]


def in_dagster(url: str, data: Path, home: Path, **more: str) -> dict[str, str]:
    """The environment of a run of this project."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    return {
        "NP6_BASE_URL": url,
        "NP6_API_KEY": "any",
        "NP6_DATA_DIR": str(data),
        "DAGSTER_HOME": str(home),
        **more,
    }


def materialize(selection: str, partitions: str, module: str = "np6_assets.definitions") -> list[str]:
    """The command that fetches or computes a day, or a range of days, for assets of this project."""
    days = ["--partition-range" if "..." in partitions else "--partition", partitions]
    return [str(PROJECT / "dagster"), "asset", "materialize", "-m", module, "--select", selection, *days]


@dataclass
class Rounds:
    """Runs contenders over rounds, and keeps what each size cost, by shape and contender, to estimate larger ones."""

    work: Path
    repeats: int
    limits: Limits
    known: dict[tuple[str, str], dict[int, Run]] = field(default_factory=dict)

    def remember(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take over what was measured before; of the failures those that are for lack of time or memory."""
        for row in rows:
            if row.get("runs"):
                last = Run(**row["runs"][-1])
                if not last.failed or last.failed.startswith(("more than", "not run")):
                    self.known.setdefault((row.get("shape", ""), row["contender"]), {})[row["size"]] = last

    def measure(
        self,
        size: int,
        contenders: Sequence[Contender],
        serving: Callable[[], float] = lambda: 0.0,
        shape: str = "",
    ) -> dict[str, list[Run]]:
        """Run each contender once a round, and give its runs in the order of the rounds.

        A contender that fails has no further round. `serving` is as for `run`; `shape` tells apart inputs of one size.
        """
        runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
        for number in range(self.repeats):
            # another one comes first in each round; one with a size of its own stays after the one before it
            firsts = [at for at, contender in enumerate(contenders) if contender.size is None] or [0]
            shift = firsts[number % len(firsts)]
            for contender in [*contenders[shift:], *contenders[:shift]]:
                before = runs[contender.name]
                if before and before[-1].failed:
                    continue
                events = size if contender.size is None else contender.size
                key = shape, contender.name
                one = self._too_much(key, events) or self._one(contender, serving)
                before.append(one)
                self.known.setdefault(key, {})[events] = one
                result = one.failed.splitlines()[0] if one.failed else _cost(one)
                _say(f"{' '.join((shape, f'{events:,}')):>24}  {contender.name:<40} {result}")
        return runs

    def _one(self, contender: Contender, serving: Callable[[], float]) -> Run:
        folder = self.work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        contender.before(folder)
        done = run(
            contender.command(folder),
            self.work / "run.log",
            environment={"PYTHONPATH": str(ROOT), **contender.environment(folder)},
            folder=folder,
            limits=self.limits,
            serving=serving,
        )
        if not done.failed:
            try:
                done.facts.update(contender.check(folder))
            except WrongOutputError as error:
                done = replace(done, failed=f"wrong output: {error}")
        if done.failed:
            _say(done.failed)
        shutil.rmtree(folder, ignore_errors=True)
        return done

    def _too_much(self, key: tuple[str, str], size: int) -> Run | None:
        """A run that is not made, because by the smaller sizes it would exceed the limits."""
        nothing = (0, Run(0, 0, 0, 0))
        smaller = sorted((known for known in self.known.get(key, {}).items() if known[0] < size), key=itemgetter(0))
        *_, first, last = [nothing, nothing, *smaller]
        if last[1].failed:
            return Run(0, 0, 0, 0, last[1].failed)
        if not last[0]:
            return None
        seconds = last[1].wall * size / last[0]
        if seconds > self.limits.seconds:
            return Run(0, 0, 0, 0, f"not run: {seconds / 60:.0f} minutes, by the size before")
        # one size alone does not tell what is the program's and what the events'
        grows = (last[1].peak - first[1].peak) / (last[0] - first[0]) if first[0] else 0.0
        peak = last[1].peak + grows * (size - last[0])
        if peak > self.limits.bytes:
            return Run(0, 0, 0, 0, f"not run: {peak / 2**30:.0f} GiB, by the sizes before")
        return None


def _cost(one: Run) -> str:
    return f"{one.wall:8.2f} s  {one.cpu:8.2f} CPU s  {one.peak / 2**20:8.0f} MiB  others {one.others:.2f}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
