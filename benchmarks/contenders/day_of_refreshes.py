"""A day of this project's sensor and schedule, in one process: NOTIFICATIONS ACTIVE. Writes requests.json.

The server is a loopback server in the same process, whose record of requests is what is counted.
"""

import json
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from np6_assets_tests.refresh.account import Account
from np6_assets_tests.support.events import KINDS, Population, event
from np6_assets_tests.support.oracle import day_bounds
from np6_assets_tests.support.rude_server import Request, RudeServer

DAY = datetime(2026, 3, 20, tzinfo=UTC)
NIGHT = timedelta(hours=3, minutes=30)
TICK = timedelta(minutes=15)
BEFORE = 4
"""Days of sends before the day: those that the first fetch brings."""
SENDS_PER_DAY = 24
"""Of each active notification, at even distances; each has a hit five minutes later."""


class Server(RudeServer):
    """Serves what was published by now, by its clock."""

    now = DAY

    def elements(self, request: Request, **options: Any) -> list[Any]:
        until = self.now.timestamp() * 1000
        return [item for item in super().elements(request, **options) if item.ms < until]


class LeftAlone(Account):
    """A deployment over a server that has a clock of its own."""

    def publish(self) -> None:
        self.server.now = self.clock.now


def population(notifications: int, active: int) -> Population:
    made = Population(notifications=[{"id": id_, "name": f"Notification {id_}"} for id_ in range(1, notifications + 1)])
    for id_ in range(1, active + 1):
        for number in range((BEFORE + 2) * SENDS_PER_DAY):
            sent = (
                DAY + (number - BEFORE * SENDS_PER_DAY) * timedelta(days=1) / SENDS_PER_DAY + id_ * timedelta(minutes=1)
            )
            at = round(sent.timestamp() * 1000)
            stamp = {"activation_id": id_, "stamp_id": f"{id_} {number}", "stamp_time": at}
            made.activations.append(event("activations", id=f"send {id_} {number}", timestamp=at, **stamp))
            made.hits.append(event("hits", id=f"hit {id_} {number}", timestamp=at + 5 * 60_000, **stamp))
    return made


def kind_of(request: Request) -> str:
    if request.path == "/notifications":
        return "list"
    return "activations" if request.path.endswith("/events/activations") else "feeds"


def main(notifications: int, active: int) -> None:
    made = population(notifications, active)
    counts: Counter[str] = Counter()
    with Server(made) as server, dg.DagsterInstance.ephemeral() as instance:
        account = LeftAlone.made(Path("work"), server, instance, DAY + NIGHT, made, NP6_WINDOW_DAYS="7")

        def count(phase: str, requests: list[Request], probes: bool = False) -> None:
            counts.update(f"{phase} {'probes' if probes else kind_of(request)}" for request in requests)

        def night(phase: str) -> None:
            before = len(server.requests)
            assert account.nightly()
            counts[f"{phase} runs"] += 1
            count(phase, server.requests[before:])

        night("first")
        while account.clock.now < DAY + timedelta(days=1) + NIGHT:
            account.clock.forward(minutes=TICK / timedelta(minutes=1))
            tick = account.tick()
            is_closing = any("ended" in request.tags["np6/why"] for request in tick.runs)
            phase = "closing" if is_closing else "refresh"
            count(phase, tick.requests, probes=True)
            before = len(server.requests)
            for first, last in tick.days:  # without the checks, which ask nothing
                account.deployment.materialize(list(KINDS), date.fromisoformat(first), date.fromisoformat(last))
            counts[f"{phase} runs"] += len(tick.runs)
            count(phase, server.requests[before:])
        night("nightly")
        check(account, made)
    Path("requests.json").write_text(json.dumps(counts))


def check(account: Account, made: Population) -> None:
    """Fails unless the day has all of its events and is closed."""
    bounds = day_bounds(DAY.date(), "UTC")
    for asset in ("activations", "hits"):
        found = {row["event_id"] for row in account.deployment.rows(asset, DAY.date())}
        assert found == {one["id"] for one in made.feed(asset) if bounds[0] <= one["timestamp"] < bounds[1]}
        assert account.deployment.fetched_until(asset, DAY.date()) == DAY + timedelta(days=1)


main(*map(int, sys.argv[1:]))
