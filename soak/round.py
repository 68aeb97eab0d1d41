"""Play a round: fetch an account without faults, and again under faults, kills and a full disk, until it is done."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from np6_assets_tests.support.events import Population, population
from np6_assets_tests.support.oracle import day_bounds
from soak import compare
from soak.faults import ENDS, Deck, FaultyServer, unlisted

ROOT = Path(__file__).parents[1]
TIMEZONE = "Europe/Paris"
WINDOW_DAYS = 2
DAYS = 5

CLOCK_CHANGES = {
    date(2026, 3, 29): (datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
    date(2026, 10, 25): (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
}
"""The days in Paris with 23 and with 25 hours, and moments around their change: in autumn both say half past two."""

COERCED_SHARE = 0.02
"""Share of the events in which one value is coerced, besides those of the day that has every variant."""

SHAKEN = 3
"""Most workers of one range of days that are killed or run into a full disk: the first ones."""

ATTEMPTS = 6
"""Most workers of one range of days."""

BYTES_LEFT = 50_000
"""A disk is full after fewer bytes than these."""

SECONDS = 180.0
"""A worker that takes longer counts as hanging."""


@dataclass
class Outcome:
    """Faults, kills and losses of a round. `starts` counts workers, or the runs of a month."""

    number: int
    seed: int
    clock: datetime
    on_full_disk: bool
    days: int = DAYS
    end: str = "half open"
    sorts: bool = True
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    kills: int = 0
    refusals: int = 0
    starts: int = 0
    files: int = 0
    hidden: int = 0
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Worker:
    """Start workers on the folders of a run, with the round's server."""

    folder: Path
    server: FaultyServer
    on_disk: Path

    def start(self, first: date, last: date, now: datetime, left: int | None = None) -> subprocess.Popen[bytes]:
        """Start one; `left` is the number of bytes after which its disk is full."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NP6_", "DAGSTER_"))}
        environment = {
            **inherited,
            "NP6_BASE_URL": self.server.url,
            "NP6_API_KEY": self.server.key,
            "NP6_DATA_DIR": str(self.on_disk),
            "NP6_START_DATE": "2026-02-01",
            "NP6_TIMEZONE": TIMEZONE,
            "NP6_WINDOW_DAYS": str(WINDOW_DAYS),
            "DAGSTER_HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            **({} if left is None else {"SOAK_BYTES": str(left)}),
        }
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "soak.worker", f"{first}", f"{last}", now.isoformat()],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def play(number: int, seed: int, deck: Deck, folder: Path) -> Outcome:
    """Play a round in a folder. The account, the kills, the clock and the server's modes follow from the seed."""
    started = time.monotonic()
    rng = random.Random(seed)
    change = rng.choice(list(CLOCK_CHANGES))
    outcome = Outcome(number, seed, rng.choice(CLOCK_CHANGES[change]), on_full_disk=number % 2 == 1)
    outcome.end, outcome.sorts = rng.choice(ENDS), rng.random() < 0.5
    first = change - timedelta(days=rng.randrange(1, 3))
    days = [first + timedelta(days=ahead) for ahead in range(DAYS)]
    made = population(
        seed,
        first,
        DAYS,
        TIMEZONE,
        notifications=8,
        sends_per_day=40,
        misfit_days=[rng.choice(days)],
        poison_days=[rng.choice(days)],
        coerced_share=COERCED_SHARE,
    )
    # they answer: one that answers 404 is missing in days that were open alone, and so not in the clean run's
    deleted = unlisted(made)
    made.notifications += [{"id": id_} for id_ in deleted]
    key = f"key-{rng.getrandbits(64):016x}"
    with FaultyServer(made, deck, seed, key) as server:
        server.hidden = set(deleted)
        clean = _worker(folder / "clean", server)
        _clean_run(clean, days, outcome)
        server.faulty = True
        server.end, server.sorts, server.no_content = outcome.end, outcome.sorts, rng.random() < 0.5
        shaken = _worker(folder / "shaken", server)
        before = len(server.requests)
        _shaken_run(shaken, days, rng, outcome)
        outcome.requests = len(server.requests) - before
        outcome.faults = server.injected
    outcome.lost += _losses(clean, shaken, made, days, key)
    outcome.files = len(compare.stored(clean.on_disk))
    outcome.hidden = compare.hidden(shaken.on_disk)
    outcome.seconds = time.monotonic() - started
    return outcome


def _worker(folder: Path, server: FaultyServer) -> Worker:
    data = folder / "data"
    for made in (folder / "home", folder / "tmp", data):
        made.mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", folder / "home")
    return Worker(folder, server, data)


def _clean_run(worker: Worker, days: list[date], outcome: Outcome) -> None:
    """All days at once, when they are closed, from a server without faults."""
    worker.server.until_ms = _ms(_end(days))
    if _finished(worker.start(days[0], days[-1], _end(days))) != 0:
        outcome.lost.append("the clean run failed")


def _shaken_run(worker: Worker, days: list[date], rng: random.Random, outcome: Outcome) -> None:
    """First the days up to the change of the clock, in the middle of it; then all of them, until it is done."""
    moments = [(outcome.clock, [day for day in days if day_bounds(day, TIMEZONE)[0] <= _ms(outcome.clock)])]
    moments.append((_end(days), days))
    for moment, some in moments:
        worker.server.until_ms = _ms(moment)
        shaken = rng.randrange(1, SHAKEN + 1)
        for attempt in range(ATTEMPTS):
            is_shaken = attempt < shaken  # the others have to end well
            left = rng.randrange(BYTES_LEFT) if outcome.on_full_disk and is_shaken and rng.random() < 0.5 else None
            outcome.starts += 1
            process = worker.start(some[0], some[-1], moment, left)
            if is_shaken and left is None:
                outcome.kills += _killed(process, worker.server, rng)
            if (status := _finished(process)) == 0:
                break
            outcome.refusals += status > 0 and left is not None
        else:
            outcome.lost.append(f"{some[0]} to {some[-1]} could not be done in {ATTEMPTS} attempts")


def _killed(process: subprocess.Popen[bytes], server: FaultyServer, rng: random.Random) -> bool:
    """Kill a worker at a random moment after a random request, unless it has ended by then."""
    after = len(server.requests) + rng.randrange(1, 20)
    while process.poll() is None and len(server.requests) < after:
        time.sleep(0.005)
    time.sleep(rng.random() * rng.choice((0.1, 2.0)))
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def _finished(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a worker; one that hangs is killed."""
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _losses(clean: Worker, shaken: Worker, made: Population, days: list[date], key: str) -> list[str]:
    secrets = {"the key": key.encode(), "an address": b"@example.com"}
    return [
        *(f"clean run: {text}" for text in compare.wrong(clean.on_disk, made, days, TIMEZONE, WINDOW_DAYS)),
        *compare.differing(shaken.on_disk, clean.on_disk),
        *compare.wrongly_quarantined(shaken.on_disk, made, days, TIMEZONE, in_order=False),
        *compare.left_over(shaken.folder / "tmp"),
        *compare.leaked([clean.folder, shaken.folder], secrets),
    ]


def _end(days: list[date]) -> datetime:
    """A moment at which all of the days are closed."""
    return datetime.fromtimestamp(day_bounds(days[-1], TIMEZONE)[1] / 1000, UTC) + timedelta(hours=6)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
