"""Run this project's sensor and schedule for a day, and write requests.json: NOTIFICATIONS ACTIVE.

A loopback server in the same process records the requests that are counted.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from np6_assets_tests.refresh.account import Account
from np6_assets_tests.support.events import KINDS, Population, build_event
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import Request, RudeServer

DAY = datetime(2026, 3, 20, tzinfo=UTC)
NIGHT = timedelta(hours=3, minutes=30)
TICK_MINUTES = 15
EARLIER_DAYS = 4
"""Days of sends before the day: those of the first fetch."""
SENDS_PER_DAY = 24
"""Of each active notification, at even distances; each has a hit five minutes later."""


class ClockServer(RudeServer):
    """Serves what was published before `now`."""

    now = DAY

    def select_items(self, request: Request, **options: Any) -> list[Any]:
        until = self.now.timestamp() * 1000
        return [item for item in super().select_items(request, **options) if item.ms < until]


class ClockAccount(Account):
    """Publishes by setting the server's clock: filtering so many events for each tick takes long."""

    server: ClockServer

    def publish(self) -> None:
        self.server.now = self.clock.now


def build_population(notifications: int, active: int) -> Population:
    population = Population(
        notifications=[{"id": id_, "name": f"Notification {id_}"} for id_ in range(1, notifications + 1)]
    )
    for id_ in range(1, active + 1):
        first = DAY - timedelta(days=EARLIER_DAYS) + timedelta(minutes=id_)
        for number in range((EARLIER_DAYS + 2) * SENDS_PER_DAY):
            sent_at = first + number * timedelta(days=1) / SENDS_PER_DAY
            ms = round(sent_at.timestamp() * 1000)
            stamp = {"activation_id": id_, "stamp_id": f"{id_} {number}", "stamp_time": ms}
            population.activations.append(build_event("activations", id=f"send {id_} {number}", timestamp=ms, **stamp))
            population.hits.append(build_event("hits", id=f"hit {id_} {number}", timestamp=ms + 5 * 60_000, **stamp))
    return population


def classify(request: Request) -> str:
    if request.path == "/notifications":
        return "list"
    return "activations" if request.path.endswith("/events/activations") else "feeds"


def main(notifications: int, active: int) -> None:
    population = build_population(notifications, active)
    counts: Counter[str] = Counter()
    with ClockServer(population) as server, dg.DagsterInstance.ephemeral() as instance:
        account = ClockAccount.create(Path("work"), server, instance, DAY + NIGHT, population, NP6_WINDOW_DAYS="7")

        @contextmanager
        def count_runs(phase: str, runs: int) -> Iterator[None]:
            before = len(server.requests)
            yield
            counts[f"{phase} runs"] += runs
            counts.update(f"{phase} {classify(request)}" for request in server.requests[before:])

        with count_runs("first", 1):
            assert account.run_night()
        while account.clock.now < DAY + timedelta(days=1) + NIGHT:
            account.clock.forward(minutes=TICK_MINUTES)
            tick = account.tick()
            is_closing = any("ended" in run.tags["np6/why"] for run in tick.runs)
            phase = "closing" if is_closing else "refresh"
            counts[f"{phase} probes"] += len(tick.requests)
            with count_runs(phase, len(tick.runs)):
                for first, last in tick.days:  # without checks, which make no requests
                    account.deployment.materialize(list(KINDS), date.fromisoformat(first), date.fromisoformat(last))
        with count_runs("nightly", 1):
            assert account.run_night()
        assert_day_is_complete(account, population)
    Path("requests.json").write_text(json.dumps(counts))


def assert_day_is_complete(account: Account, population: Population) -> None:
    """Assert that the day has all of its events and is closed."""
    start, end = compute_day_bounds(DAY.date(), "UTC")
    for asset in ("activations", "hits"):
        found = {row["event_id"] for row in account.deployment.rows(asset, DAY.date())}
        assert found == {each["id"] for each in population.feed(asset) if start <= each["timestamp"] < end}
        assert account.deployment.fetched_until(asset, DAY.date()) == DAY + timedelta(days=1)


main(*map(int, sys.argv[1:]))
