"""Run sensors and schedule for ten days with faults, and compare the files with one clean backfill's."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets_tests.refresh.account import Account
from np6_assets_tests.support.deployment import Deployment, list_days, read_files
from np6_assets_tests.support.events import KINDS, build_population, set_one_agency
from np6_assets_tests.support.oracle import read_activation_id
from np6_assets_tests.support.rude_server import RudeServer

pytestmark = pytest.mark.slow

ZONE = "Europe/Paris"
FIRST = date(2026, 3, 28)  # the next day has 23 hours in Paris
LAST = date(2026, 4, 6)
WINDOW = 2


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=3) as running:
        yield running


def test_ten_days_with_faults_end_as_one_clean_backfill(
    server: RudeServer, kept_instance: dg.DagsterInstance, tmp_path: Path
):
    events = set_one_agency(build_population(61, FIRST, 10, ZONE, window_days=WINDOW, sends_per_day=6))
    # an open day records the missing sends of a deleted notification, a late fetch does not
    listed = {entry["id"] for entry in events.notifications}
    for kind in KINDS:
        events.feed(kind)[:] = [one for one in events.feed(kind) if read_activation_id(one) in listed]
    settings = {"NP6_TIMEZONE": ZONE, "NP6_WINDOW_DAYS": str(WINDOW), "NP6_START_DATE": "2026-03-20"}
    # this setting does not apply here
    settings["NP6_BACKFILL_DAYS_PER_RUN"] = "2"
    account = Account.create(
        tmp_path / "alone", server, kept_instance, datetime(2026, 3, 28, 10, tzinfo=UTC), events, **settings
    )
    # of each feed some events come late: by less than the overlap
    account.late = {one["id"]: timedelta(minutes=50) for kind in KINDS for one in events.feed(kind)[::4]}

    def tick_at(day: int, hour: int, minute: int = 0) -> list[str]:
        """Tick both sensors at this time, do their runs, and return the first and last day of each."""
        account.clock.now = datetime(2026, 3, 28, hour, minute, tzinfo=UTC) + timedelta(days=day)
        tick = account.tick()
        assert len(tick.requests) <= 2 * 4 + 4 + 1
        account.run_requests(tick)
        account.follow()
        return [f"{first[8:]}-{last[8:]}" for first, last in tick.days]

    # a run that fails at one of the feeds is asked for again
    server.script("/notifications/reactivities/impressions", "401")
    assert tick_at(0, 10) == ["28-28"]
    assert tick_at(0, 10, 2) == ["28-28"]
    # the API is down as the day ends, at 23:00 in UTC
    server.script_always("/", "503")
    assert tick_at(0, 23, 30) == tick_at(1, 3) == []
    server.reset_faults()
    assert tick_at(1, 12) == ["28-29"]
    # the daemon is stopped for a week, and the cursor is lost
    account.cursor = None
    before = len(server.list_requests())
    assert tick_at(8, 12) == ["04-05", "29-03"]
    # the look, which finds news at once; four feeds on eight days; in each run the notifications, and the activations
    # of each, for the days that close and for the open one
    assert len(server.list_requests()) - before == 1 + 4 * 8 + 2 + 3 * len(events.notifications)
    assert tick_at(8, 12, 1) == []
    # at night the last days again, in full, and in a run of its own the 28th, which has had no fetch since it closed
    account.clock.now = datetime(2026, 4, 6, 1, 30, tzinfo=UTC)
    account.run_night()
    account.follow()
    assert tick_at(10, 6) == ["06-07"]
    assert account.runs == 8

    server.serve(events)
    with dg.DagsterInstance.ephemeral() as other:
        clean = Deployment(tmp_path / "clean", server, other, account.clock, **settings)
        clean.materialize(list(KINDS), FIRST, LAST)
        clean.materialize("reactivity_rates", FIRST - timedelta(days=WINDOW), LAST - timedelta(days=WINDOW))
    expected, found = read_files(clean.data), read_files(account.deployment.data)
    assert len(expected) == 5 * 10 + 10
    assert {name: found.get(name) for name in expected} == expected
    # the final ones are final, and nothing is left to do
    final = [day for day in list_days(FIRST, LAST) if all(row["is_final"] for row in account.deployment.rates(day))]
    assert final == list_days(FIRST, LAST - timedelta(days=WINDOW))
    computed = account.rates_runs
    assert tick_at(10, 6, 1) == []
    assert account.rates_runs == computed
