"""Test which days are fetched after a week without the daemon, a night, a changed clock and a deploy."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets_tests.refresh.account import Account
from np6_assets_tests.support.dagster_processes import wait_until
from np6_assets_tests.support.deployment import build_resource
from np6_assets_tests.support.events import KINDS, build_population
from np6_assets_tests.support.rude_server import RudeServer

pytestmark = pytest.mark.slow

FIRST = date(2026, 3, 27)
ZONE = "Europe/Paris"  # the clocks go forward in the night to the 29th: that day ends at 22:00 in UTC
HITS = "/notifications/reactivities/hits"
FEEDS = 4


@pytest.fixture
def account(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Account:
    """An account that is up to date on the first day at noon in UTC, and has events on each day of two weeks."""
    events = build_population(71, FIRST, 14, ZONE, sends_per_day=6, lead_days=0)
    events.notifications.append({"id": 128})  # of which there are reactions: not listed, it would answer 404
    settings = {"NP6_TIMEZONE": ZONE, "NP6_START_DATE": f"{FIRST}"}
    account = Account.create(
        tmp_path / "data", server, instance, datetime(2026, 3, 27, 12, tzinfo=UTC), events, **settings
    )
    assert account.run_requests(account.tick())
    return account


def run_at(account: Account, moment: str) -> list[tuple[str, str]]:
    """Tick at a time in March 2026 in UTC, do the runs, and return the first and last day of each."""
    account.clock.now = datetime.fromisoformat(f"2026-03-{moment}+00:00")
    tick = account.tick()
    assert account.run_requests(tick)
    return [(first[8:], last[8:]) for first, last in tick.days]


def test_week_without_the_daemon_is_fetched_in_two_runs(account: Account):
    server, notifications = account.server, len(account.events.notifications)
    account.clock.forward(days=7)  # the 3rd of April
    tick = account.tick()
    assert tick.days == [("2026-04-02", "2026-04-03"), ("2026-03-27", "2026-04-01")]
    assert len(tick.requests) == 1  # the probe, which finds something at once
    newest, older = tick.runs
    before = len(server.list_requests())
    assert account.run("fetch_events", newest)
    # the feeds of two days; the notifications; the activations of each for yesterday, which closes, and, for today, of
    # those that may have sent: all but 128
    assert len(server.list_requests()) - before == FEEDS * 2 + 1 + 2 * notifications - 1
    stored = {path.parent.name for path in account.deployment.data.glob("hits/*/*.parquet")}
    assert stored == {f"event_date={day}" for day in ("2026-03-27", "2026-04-02", "2026-04-03")}
    before = len(server.list_requests())
    assert account.run("fetch_events", older)
    # the feeds of six days; the activations of all of them in one request each
    assert len(server.list_requests()) - before == FEEDS * 6 + 1 + notifications
    # the cohorts of all these days, each once; then nothing is left to do
    assert account.follow() == [FIRST + timedelta(days=ahead) for ahead in range(8)]
    assert account.tick().runs == []
    assert account.follow() == []


def test_day_of_23_hours_closes_on_time(account: Account):
    assert run_at(account, "29T12:00") == [("27", "29")]
    assert run_at(account, "29T21:59") == [("29", "29")]  # something was published
    account.events.hits.clear()
    for kind in KINDS:  # and nothing from now on
        account.events.feed(kind).clear()
    assert run_at(account, "29T22:59") == []
    assert run_at(account, "29T23:00") == [("29", "29")]  # it ended an hour ago
    assert run_at(account, "29T22:00") == run_at(account, "29T23:01") == []


def test_sensor_completes_an_interrupted_backfill(account: Account):
    server, instance = account.server, account.instance
    account.deployment.np6 = build_resource(server, max_concurrent_requests=1)
    account.clock.now = datetime(2026, 4, 2, 12, tzinfo=UTC)
    account.publish()
    server.script(HITS, None, None, "stall before")  # of the third request
    before = len(server.list_requests(HITS))
    interruption = threading.Thread(
        target=_interrupt, args=(lambda: len(server.list_requests(HITS)) >= before + 3, server)
    )
    interruption.start()
    backfill = account.deployment.materialize(list(KINDS), FIRST, FIRST + timedelta(days=5), raise_on_error=False)
    interruption.join()
    assert not backfill.success
    stored = instance.get_materialized_partitions(dg.AssetKey("hits"))
    assert stored == {"2026-03-27", "2026-03-28"}
    # the bounces of all days are there, and the hits of two: days that lack the same assets are a run, two at a time
    tick = account.tick()
    assert tick.days == [("2026-04-02", "2026-04-02"), ("2026-03-29", "2026-04-01")]
    assert account.run_requests(tick)
    tick = account.tick()
    assert tick.days == [("2026-03-27", "2026-03-28")]
    assert {key.path[-1] for key in tick.runs[0].asset_selection or ()} == {"activations", "impressions", "optouts"}
    assert account.run_requests(tick)
    assert account.tick().runs == []


def _interrupt(when: Callable[[], bool], server: RudeServer) -> None:
    """End the run in this process, as a deploy does."""
    wait_until(when, "the request")
    os.kill(os.getpid(), signal.SIGINT)
    server.release()


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=4) as running:
        yield running
