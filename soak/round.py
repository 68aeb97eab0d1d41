"""Run a round: fetch an account without faults, and again under faults, kills and a full disk, until it succeeds."""

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

from np6_assets_tests.support.events import Population, build_population
from np6_assets_tests.support.oracle import compute_day_bounds
from soak import compare
from soak.faults import END_MODES_OF_ROUNDS, Deck, FaultyServer, find_unlisted_ids

ROOT = Path(__file__).parents[1]
TIMEZONE = "Europe/Paris"
WINDOW_DAYS = 2
DAYS = 5

CLOCK_CHANGES = {
    date(2026, 3, 29): (datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
    date(2026, 10, 25): (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
}
"""The days in Paris with 23 and 25 hours, and times around their change: in autumn both are half past two there."""

COERCED_SHARE = 0.02
"""Share of the events with one coerced value, besides those of the day that has every variant."""

MAX_DISTURBED_WORKERS = 3
"""At most so many workers of a range of days, the first ones, are killed or run into a full disk."""

MAX_WORKERS = 6
"""A range of days that needs more workers counts as lost."""

MAX_FREE_BYTES = 50_000
"""A disk is full after fewer bytes than these."""

WORKER_SECONDS = 180.0
"""A worker that takes longer is killed, and has failed."""


@dataclass
class Outcome:
    """What happened in a round. `starts` counts workers, or the runs of a month."""

    number: int
    seed: int
    clock: datetime
    limited_disk: bool
    days: int = DAYS
    end: str = "half open"
    sorts: bool = True
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    kills: int = 0
    full_disks: int = 0
    starts: int = 0
    files: int = 0
    seconds: float = 0.0
    losses: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Machine:
    """A machine on which workers run: its folders, and the server that they fetch from."""

    folder: Path
    server: FaultyServer

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def make_folders(self) -> None:
        """Make the folders, and a DAGSTER_HOME with the project's dagster.yaml."""
        for name in ("data", "home", "tmp"):
            (self.folder / name).mkdir(parents=True)
        shutil.copy(ROOT / "dagster.yaml", self.folder / "home")

    def start_worker(
        self, first: date, last: date, now: datetime, free_bytes: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a worker for a range of days; with `free_bytes`, its disk is full after so many."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NP6_", "DAGSTER_"))}
        environment = {
            **inherited,
            "NP6_BASE_URL": self.server.url,
            "NP6_API_KEY": self.server.key,
            "NP6_DATA_DIR": str(self.data),
            "NP6_START_DATE": "2026-02-01",
            "NP6_TIMEZONE": TIMEZONE,
            "NP6_WINDOW_DAYS": str(WINDOW_DAYS),
            "DAGSTER_HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            **({} if free_bytes is None else {"SOAK_FREE_BYTES": str(free_bytes)}),
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


def run_round(number: int, seed: int, deck: Deck, folder: Path) -> Outcome:
    """Run a round in a folder. The account, the kills, the clock and the server's modes follow from the seed."""
    started = time.monotonic()
    rng = random.Random(seed)
    change = rng.choice(list(CLOCK_CHANGES))
    outcome = Outcome(number, seed, rng.choice(CLOCK_CHANGES[change]), limited_disk=number % 2 == 1)
    outcome.end, outcome.sorts = rng.choice(END_MODES_OF_ROUNDS), rng.random() < 0.5
    first = change - timedelta(days=rng.randrange(1, 3))
    days = [first + timedelta(days=ahead) for ahead in range(DAYS)]
    account = build_population(
        seed,
        first,
        DAYS,
        TIMEZONE,
        notifications=8,
        sends_per_day=40,
        bad_event_days=[rng.choice(days)],
        poison_days=[rng.choice(days)],
        coerced_share=COERCED_SHARE,
    )
    # They answer: with 404 they would be named in files of days that were open, but not in the clean run's.
    unlisted = find_unlisted_ids(account)
    account.notifications += [{"id": id_} for id_ in unlisted]
    key = f"key-{rng.getrandbits(64):016x}"
    with FaultyServer(account, deck, seed, key) as server:
        server.unlisted = set(unlisted)
        clean, disturbed = Machine(folder / "clean", server), Machine(folder / "disturbed", server)
        clean.make_folders()
        disturbed.make_folders()
        _run_clean(clean, days, outcome)
        server.faulty = True
        server.end_mode, server.sorts, server.sends_204 = outcome.end, outcome.sorts, rng.random() < 0.5
        clean_requests = len(server.requests)
        _run_disturbed(disturbed, days, rng, outcome)
        outcome.requests = len(server.requests) - clean_requests
        outcome.faults = server.injected
    outcome.losses += _find_losses(clean, disturbed, account, days, key)
    outcome.files = len(compare.list_files(clean.data))
    outcome.seconds = time.monotonic() - started
    return outcome


def _run_clean(clean: Machine, days: list[date], outcome: Outcome) -> None:
    """Fetch all days at once, when they are closed, from the server without faults."""
    now = _compute_end(days)
    clean.server.until_ms = _to_ms(now)
    if _wait_for_worker(clean.start_worker(days[0], days[-1], now)) != 0:
        outcome.losses.append("the clean run failed")


def _run_disturbed(disturbed: Machine, days: list[date], rng: random.Random, outcome: Outcome) -> None:
    """Fetch the days up to the clock change, at that time; then all days, when they are closed."""
    begun = [day for day in days if compute_day_bounds(day, TIMEZONE)[0] <= _to_ms(outcome.clock)]
    for now, range_of_days in ((outcome.clock, begun), (_compute_end(days), days)):
        disturbed.server.until_ms = _to_ms(now)
        first, last = range_of_days[0], range_of_days[-1]
        disturbed_workers = rng.randrange(1, MAX_DISTURBED_WORKERS + 1)
        for attempt in range(MAX_WORKERS):
            is_disturbed = attempt < disturbed_workers
            is_limited = outcome.limited_disk and is_disturbed and rng.random() < 0.5
            free_bytes = rng.randrange(MAX_FREE_BYTES) if is_limited else None
            outcome.starts += 1
            worker = disturbed.start_worker(first, last, now, free_bytes)
            if is_disturbed and not is_limited:
                outcome.kills += _kill_at_random(worker, disturbed.server, rng)
            status = _wait_for_worker(worker)
            if status == 0:
                break
            outcome.full_disks += status > 0 and is_limited
        else:
            outcome.losses.append(f"{first} to {last} failed in {MAX_WORKERS} workers")


def _kill_at_random(worker: subprocess.Popen[bytes], server: FaultyServer, rng: random.Random) -> bool:
    """Kill a worker at a random time after a random request; return whether it was still running."""
    requests = len(server.requests) + rng.randrange(1, 20)
    while worker.poll() is None and len(server.requests) < requests:
        time.sleep(0.005)
    time.sleep(rng.random() * rng.choice((0.1, 2.0)))
    if worker.poll() is not None:
        return False
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    return True


def _wait_for_worker(worker: subprocess.Popen[bytes]) -> int:
    """Return a worker's exit status, negative if it was killed; kill it if it takes too long."""
    try:
        return worker.wait(WORKER_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        return worker.wait()


def _find_losses(clean: Machine, disturbed: Machine, account: Population, days: list[date], key: str) -> list[str]:
    secrets = {"the key": key.encode(), "an address": b"@example.com"}
    wrong = compare.find_wrong_rows(clean.data, account, days, TIMEZONE, WINDOW_DAYS)
    return [
        *(f"clean run: {loss}" for loss in wrong),
        *compare.find_different_files(disturbed.data, clean.data),
        *compare.find_quarantine_errors(disturbed.data, account, days, TIMEZONE, in_order=False),
        *compare.find_leftover_files(disturbed.folder / "tmp"),
        *compare.find_leaks([clean.folder, disturbed.folder], secrets),
    ]


def _compute_end(days: list[date]) -> datetime:
    """Compute a time at which all days are closed."""
    return datetime.fromtimestamp(compute_day_bounds(days[-1], TIMEZONE)[1] / 1000, UTC) + timedelta(hours=6)


def _to_ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
