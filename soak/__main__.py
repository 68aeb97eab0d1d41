"""The command: plays rounds until their number or the time is up, writes the report, and fails if anything was lost."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from soak import month, report
from soak.faults import Deck
from soak.round import ROOT, Outcome, play

MONTH_EVERY = 4
"""The second of so many rounds is a month; the others have five days."""


def main() -> None:
    """Play, and tell."""
    options = _options()
    rng = random.Random(options.seed)
    deck = Deck(rng)
    ends = time.monotonic() + options.seconds
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="np6-soak-") as work:
        while len(outcomes) < options.rounds and (not outcomes or time.monotonic() < ends):
            folder = Path(work) / f"{len(outcomes)}"
            number, seed = len(outcomes) + 1, rng.getrandbits(32)
            is_month = number % MONTH_EVERY == 2
            outcome = month.play(number, seed, folder) if is_month else play(number, seed, deck, folder)
            outcomes.append(outcome)
            print(_line(outcome), file=sys.stderr)
            if outcome.lost:
                shutil.copytree(folder, options.out / f"round-{outcome.number}", dirs_exist_ok=True)
            shutil.rmtree(folder)
    text = report.markdown(outcomes, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "README.md").write_text(text)
    print(text)
    sys.exit(any(outcome.lost for outcome in outcomes))


def _line(one: Outcome) -> str:
    done = f"{one.faults.total()} faults in {one.requests} requests, {one.kills} kills, disk full {one.refusals} times"
    return f"round {one.number}, seed {one.seed}, {one.seconds:.0f} s: {done}, lost {len(one.lost)}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of everything random but the timing of the processes")
    parser.add_argument("--rounds", type=int, default=8, help="most rounds")
    parser.add_argument("--seconds", type=float, default=600, help="no round starts later than this")
    parser.add_argument("--out", type=Path, default=ROOT / ".soak", help="folder of the report, and of lossy rounds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
