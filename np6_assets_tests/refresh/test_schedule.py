"""The schedule `daily_ingest`: which days it asks for, what its run does, and what it tells of lateness."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from np6_assets.definitions import build_definitions
from np6_assets.settings import NO_KEY, Settings
from np6_assets_tests.refresh.account import Account
from np6_assets_tests.support.events import population
from np6_assets_tests.support.oracle import day_bounds
from np6_assets_tests.support.rude_server import RudeServer

NIGHT = datetime(2026, 3, 24, 3, 30, tzinfo=ZoneInfo("Europe/Paris"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def evaluated(instance: dg.DagsterInstance, at: datetime = NIGHT, **environment: str) -> Any:
    settings = Settings.from_environment({"NP6_TIMEZONE": "Europe/Paris", "NP6_API_KEY": "any", **environment})
    definitions = build_definitions(settings)
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=definitions.get_repository_def()
    )
    return definitions.resolve_schedule_def("daily_ingest").evaluate_tick(context)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, "2026-03-20"),
        ({"NP6_TRAILING_DAYS": "1"}, "2026-03-22"),
        ({"NP6_START_DATE": "2026-03-22"}, "2026-03-22"),
    ],
)
def test_a_night_asks_for_yesterday_and_the_days_before_it_as_one_run(
    instance: dg.DagsterInstance, environment: dict[str, str], first: str
):
    [request] = evaluated(instance, **environment).run_requests or []
    assert request.partition_key is None
    assert request.tags["dagster/asset_partition_range_start"] == first
    assert request.tags["dagster/asset_partition_range_end"] == "2026-03-23"
    assert request.tags["np6/why"] == f"2026-03-23 in full, and again the days from {first} on"


def test_yesterday_alone_is_a_day(instance: dg.DagsterInstance):
    [request] = evaluated(instance, NP6_TRAILING_DAYS="0").run_requests or []
    assert request.partition_key == "2026-03-23"


def test_nothing_is_asked_for_before_the_start_date(instance: dg.DagsterInstance):
    tick = evaluated(instance, NP6_START_DATE="2026-03-24")
    assert not tick.run_requests
    assert tick.skip_message == "2026-03-23 is before NP6_START_DATE, which is 2026-03-24."


def test_without_a_key_it_says_what_is_missing(instance: dg.DagsterInstance):
    assert evaluated(instance, NP6_API_KEY="").skip_message == NO_KEY


def test_the_days_are_those_of_the_time_zone(instance: dg.DagsterInstance):
    # half past three in Auckland is the day before in UTC
    at = datetime(2026, 3, 24, 3, 30, tzinfo=ZoneInfo("Pacific/Auckland"))
    [request] = evaluated(instance, at, NP6_TIMEZONE="Pacific/Auckland", NP6_TRAILING_DAYS="0").run_requests or []
    assert request.partition_key == "2026-03-23"


def test_each_day_tells_what_it_gained_and_when(instance: dg.DagsterInstance, tmp_path: Path):
    first = date(2026, 3, 22)
    second = first + timedelta(days=1)
    events = population(71, first, 2, sends_per_day=6)
    with RudeServer(seed=1) as server:
        start = datetime(2026, 3, 23, 2, tzinfo=UTC)
        account = Account.made(tmp_path / "data", server, instance, start, events, NP6_START_DATE=str(first))
        end = day_bounds(first, "UTC")[1]
        late = {event["id"] for event in events.hits if end - 20 * 3_600_000 < event["timestamp"] < end}
        account.late = dict.fromkeys(late, timedelta(hours=24))
        account.publish()
        account.deployment.materialize(["hits", "bounces"], first)
        account.clock.now = datetime(2026, 3, 24, 3, 30, tzinfo=UTC)
        assert account.nightly()
    assert account.deployment.metadata("hits", first)["events_gained"] == len(late) > 0
    assert account.deployment.metadata("bounces", first)["events_gained"] == 0
    assert "events_gained" not in account.deployment.metadata("hits", second)
    assert account.deployment.metadata("hits", first)["hours_after_end"] == 27.5
    assert account.deployment.metadata("hits", second)["hours_after_end"] == 3.5
    for name in ("events_gained", "hours_after_end"):  # numbers, which Dagster draws over the days
        assert isinstance(account.deployment.metadata("hits", first)[name], int | float)
    # and the names of the notifications
    assert (tmp_path / "data" / "notifications" / "part-0.parquet").exists()
