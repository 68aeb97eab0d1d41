"""Run rounds until their number or the time is reached, write the report, and fail if anything was lost."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from soak.faults import Deck
from soak.month import run_month
from soak.report import build_report
from soak.round import ROOT, Outcome, run_round

MONTH_EVERY = 4
"""The second of so many rounds is a month."""


def main() -> None:
    """Run rounds as the options say."""
    options = _parse_options()
    rng = random.Random(options.seed)
    deck = Deck(rng)
    deadline = time.monotonic() + options.seconds
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="np6-soak-") as work:
        while len(outcomes) < options.rounds and (not outcomes or time.monotonic() < deadline):
            number, seed = len(outcomes) + 1, rng.getrandbits(32)
            folder = Path(work) / f"{number}"
            is_month = number % MONTH_EVERY == 2
            outcome = run_month(number, seed, folder) if is_month else run_round(number, seed, deck, folder)
            outcomes.append(outcome)
            print(_format_progress(outcome), file=sys.stderr)
            if outcome.losses:
                shutil.copytree(folder, options.out / f"round-{number}", dirs_exist_ok=True)
            shutil.rmtree(folder)
    report = build_report(outcomes, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "README.md").write_text(report)
    print(report)
    sys.exit(any(outcome.losses for outcome in outcomes))


def _format_progress(outcome: Outcome) -> str:
    return (
        f"round {outcome.number}, seed {outcome.seed}, {outcome.seconds:.0f} s: {outcome.faults.total()} faults in "
        f"{outcome.requests} requests, {outcome.kills} kills, {outcome.full_disks} full disks, "
        f"{len(outcome.losses)} losses"
    )


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of all that is random, except the timing of processes")
    parser.add_argument("--rounds", type=int, default=8, help="maximum number of rounds")
    parser.add_argument("--seconds", type=float, default=600, help="start no round after this time")
    parser.add_argument(
        "--out", type=Path, default=ROOT / ".soak", help="folder of the report, and of rounds with losses"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
