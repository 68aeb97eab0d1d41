"""An API that forgets, blanks, hides, renames, refuses and lies about the time, at random, for thirty days.

The expected rows are those that it ever sent in an answer that was asked for their day: the server notes them.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import pytest

from np6_assets_tests.support.deployment import Deployment, impatient, published
from np6_assets_tests.support.events import HOUR_MS, Population, event
from np6_assets_tests.support.oracle import day_bounds
from np6_assets_tests.support.rude_server import Request, RudeServer

FIRST = date(2026, 3, 1)
DAYS = 30
IDS = (101, 102, 103)
ASSETS = ("hits", "activations")
LIE = timedelta(hours=2)
DEEDS = (
    "forgets",
    "blanks",
    "hides",
    "renames",
    "another agency",
    "refuses",
    "breaks",
    "API's clock",
    "our clock",
    "no date",
)


class NotingServer(RudeServer):
    """Notes the ids of the events of known agencies that it sends, by asset and day, where they were asked for."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.day = FIRST
        self.sent: dict[tuple[str, date], set[str]] = defaultdict(set)

    def elements(self, request: Request, **options: Any) -> list[Any]:
        items = super().elements(request, **options)
        first, end = day_bounds(self.day, "UTC")
        start = int(request.query.get("reactivityStart") or request.query["start"])
        asset = "activations" if request.path.endswith("activations") else "hits"
        for item in items:
            sent = json.loads(item.body)
            if max(first, start) <= item.ms < end and sent["identity"]["agency"] == "DEMO":
                self.sent[asset, self.day].add(sent["id"])
        return items


def account() -> Population:
    """Each day each notification sends four times, and is hit twice."""
    made = Population(notifications=[{"id": id_, "name": f"Notification {id_}"} for id_ in IDS])
    for ahead in range(DAYS):
        start = day_bounds(FIRST + timedelta(days=ahead), "UTC")[0]
        for id_ in IDS:
            for number, kind in enumerate(("activations", "activations", "hits", "activations", "hits", "activations")):
                at = start + (4 * number + 1) * HOUR_MS
                made.feed(kind).append(
                    event(kind, id=f"{kind} {ahead} {id_} {number}", timestamp=at, activation_id=id_)
                )
    return made


class Account:
    """A deployment over thirty days, whose API does odd things to some of its fetches."""

    def __init__(self, data: Path, server: NotingServer, instance: dg.DagsterInstance) -> None:
        self.random = Random(16)
        self.server = server
        self.made = account()
        self.true_now = self.now = datetime(2026, 3, 1, tzinfo=UTC)
        self.deployment = Deployment(data, server, instance, lambda: self.now)
        self.deployment.np6 = impatient(server, max_retries=0, step_retries=0)
        self.closed: set[tuple[str, date]] = set()

    def fetch(self, day: date, hours: float, deeds: Iterable[str], **config: bool) -> None:
        """Fetch a day so many hours after its start, by the true clock."""
        self.true_now = self.now = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hours)
        server, deeds = self.server, set(deeds)
        server.behave()
        server.hidden, server.day = set(), day
        self.misbehave(deeds)
        by_api = self.true_now + (LIE * self.random.choice((-1, 1)) if "API's clock" in deeds else timedelta())
        server.date = lambda: None if "no date" in deeds else by_api
        run_config = {"ops": {asset: {"config": config} for asset in ASSETS}} if config else None
        self.deployment.materialize(list(ASSETS), day, run_config=run_config)
        for asset in ASSETS:
            if (asset, day) not in self.closed and self.is_closed(asset, day):
                assert self.true_now >= self.end(day) + timedelta(hours=1)
                self.closed.add((asset, day))

    def misbehave(self, deeds: set[str]) -> None:
        """Let the server do these things to the next fetch."""
        random, server = self.random, self.server
        there = published(self.made, round(self.true_now.timestamp() * 1000))
        for kind in ASSETS:
            feed = [] if "blanks" in deeds else there.feed(kind)
            if "forgets" in deeds:
                feed = random.sample(feed, len(feed) // 2)
            setattr(there, kind, copy.deepcopy(feed))
        one = random.choice(IDS)
        if "hides" in deeds:
            server.hidden = {one}
        if "renames" in deeds:
            there.notifications = [{**entry, "name": f"renamed {random.random()}"} for entry in there.notifications]
        for kind in ASSETS:
            for found in there.feed(kind):
                if "another agency" in deeds and random.random() < 0.2:
                    found["identity"]["agency"] = "OTHER"
        for deed, status in (("refuses", "403"), ("breaks", "500")):
            if deed in deeds:
                server.script(f"/notifications/{one}/events", *[status] * 3)
        if "our clock" in deeds:
            self.now += LIE * random.choice((-1, 1))
        server.serve(there)

    def is_closed(self, asset: str, day: date) -> bool:
        path = self.deployment.path(asset, day)
        return path.exists() and self.deployment.fetched_until(asset, day) == self.end(day)

    def end(self, day: date) -> datetime:
        return datetime.fromtimestamp(day_bounds(day, "UTC")[1] / 1000, UTC)

    def deeds(self) -> list[str]:
        """None or one or two of them; of the clocks one at most is wrong at a time."""
        found = self.random.sample(DEEDS, self.random.choice((0, 1, 1, 2)))
        clocks = [deed for deed in found if deed in ("API's clock", "our clock", "no date")]
        return [deed for deed in found if deed not in clocks[1:]]


@pytest.mark.slow
def test_union_of_all_that_was_ever_sent_is_stored(instance: dg.DagsterInstance, tmp_path: Path):
    with NotingServer() as server:
        account = Account(tmp_path / "data", server, instance)
        account.fetch(FIRST, 6, [])
        for ahead in range(DAYS):
            day = FIRST + timedelta(days=ahead)
            account.fetch(day, 13, account.deeds())
            account.fetch(day, 25.5, account.deeds())
            earlier = FIRST + timedelta(days=account.random.randrange(ahead + 1))
            account.fetch(earlier, 24 * ((day - earlier).days + 1) + 3, account.deeds(), full_refresh=True)
        # it is itself again, and has forgotten all but the last weeks
        account.made.hits = [
            one for one in account.made.hits if one["timestamp"] > day_bounds(FIRST, "UTC")[0] + 14 * 24 * HOUR_MS
        ]
        for ahead in range(DAYS):
            day = FIRST + timedelta(days=ahead)
            account.fetch(day, 24 * (DAYS - ahead) + 60, [])
            for asset in ASSETS:
                assert account.is_closed(asset, day)
                assert {row["event_id"] for row in account.deployment.rows(asset, day)} == server.sent[asset, day]
    assert sum(map(len, server.sent.values())) > 30 * 15
