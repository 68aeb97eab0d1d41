"""Test the schedule `daily_ingest`: the days that it requests, and what its runs record."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from np6_assets.settings import NO_KEY, Settings
from np6_assets.wiring import build_definitions
from np6_assets_tests.refresh.account import Account, find_run_days
from np6_assets_tests.support.deployment import list_days
from np6_assets_tests.support.events import KINDS, build_population, set_one_agency
from np6_assets_tests.support.oracle import compute_day_bounds, expect_rows
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import canonicalize

NIGHT = datetime(2026, 3, 24, 3, 30, tzinfo=ZoneInfo("Europe/Paris"))


@pytest.fixture
def instance(kept_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """An instance with files, which schedules require."""
    return kept_instance


def evaluate(instance: dg.DagsterInstance, at: datetime = NIGHT, **environment: str) -> Any:
    settings = Settings.from_environment({"NP6_TIMEZONE": "Europe/Paris", "NP6_API_KEY": "any", **environment})
    definitions = build_definitions(settings)
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=definitions.get_repository_def()
    ) as context:
        return definitions.resolve_schedule_def("daily_ingest").evaluate_tick(context)


def test_schedule_requests_yesterday_and_the_trailing_days_in_one_run(instance: dg.DagsterInstance):
    for environment, first in (
        ({}, "2026-03-20"),
        ({"NP6_TRAILING_DAYS": "1"}, "2026-03-22"),
        ({"NP6_START_DATE": "2026-03-22"}, "2026-03-22"),
    ):
        [request] = evaluate(instance, **environment).run_requests or []
        assert find_run_days(request) == (first, "2026-03-23")
        assert request.tags["np6/why"] == f"2026-03-23 in full, and again the days from {first} on"
    # half past three in Auckland is the day before in UTC
    at = datetime(2026, 3, 24, 3, 30, tzinfo=ZoneInfo("Pacific/Auckland"))
    [request] = evaluate(instance, at, NP6_TIMEZONE="Pacific/Auckland", NP6_TRAILING_DAYS="0").run_requests or []
    assert request.partition_key == "2026-03-23"


def record_fetch(
    instance: dg.DagsterInstance, data: Path, day: date, age: float, kinds: tuple[str, ...] = tuple(KINDS)
) -> None:
    """Record a fetch of a day at `age` days after its start."""
    for kind in kinds:
        (data / kind / f"event_date={day}").mkdir(parents=True, exist_ok=True)
        metadata = {"hours_after_end": 24 * (age - 1)}
        instance.report_runless_asset_event(dg.AssetMaterialization(kind, partition=f"{day}", metadata=metadata))


def list_confirmations(tick: Any) -> list[tuple[str, str]]:
    """List the first and last day of each run after the first."""
    return list(map(find_run_days, (tick.run_requests or [])[1:]))


def test_day_is_confirmed_once_its_window_has_closed(instance: dg.DagsterInstance, tmp_path: Path):
    today = NIGHT.date()
    ages = (5, 7, 8, 9, 10, 31, 32)
    for age in ages:
        record_fetch(instance, tmp_path, today - timedelta(days=age), 1.2)
    # those of 8 to 31 days; days that follow one another are one run
    found = list_confirmations(evaluate(instance, NP6_DATA_DIR=f"{tmp_path}"))
    assert found == [("2026-02-21", "2026-02-21"), ("2026-03-14", "2026-03-16")]
    for age in ages:
        record_fetch(instance, tmp_path, today - timedelta(days=age), 8.5 if age > 8 else 7.9)
    tick = evaluate(instance, NP6_DATA_DIR=f"{tmp_path}")
    assert list_confirmations(tick) == [("2026-03-16", "2026-03-16")]
    assert tick.run_requests[1].tags["np6/why"] == "once more, as no fetch was made since it was 8 days old"
    assert tick.run_requests[1].run_config["ops"]["hits"]["config"] == {"full_refresh": True}
    record_fetch(instance, tmp_path, today - timedelta(days=8), 8.2)
    assert list_confirmations(evaluate(instance, NP6_DATA_DIR=f"{tmp_path}")) == []


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("0", [("2026-02-21", "2026-02-23"), ("2026-03-16", "2026-03-19")]),
        ("7", [("2026-02-21", "2026-02-23"), ("2026-03-16", "2026-03-16")]),
        ("60", [("2026-02-21", "2026-02-22")]),
    ],
)
def test_confirmation_age_follows_the_window(
    instance: dg.DagsterInstance, tmp_path: Path, window: str, expected: list[tuple[str, str]]
):
    """The trailing days, here three, are not requested twice."""
    for ago in (1, 4, 5, 6, 7, 8, 29, 30, 31):
        (tmp_path / "hits" / f"event_date={NIGHT.date() - timedelta(days=ago)}").mkdir(parents=True)
    assert list_confirmations(evaluate(instance, NP6_WINDOW_DAYS=window, NP6_DATA_DIR=f"{tmp_path}")) == expected


def test_days_never_fetched_or_before_the_start_are_not_confirmed(instance: dg.DagsterInstance, tmp_path: Path):
    today = NIGHT.date()
    for ago in (9, 10, 12, 25):
        record_fetch(instance, tmp_path, today - timedelta(days=ago), 1.2)
    # only one asset was fetched since
    record_fetch(instance, tmp_path, today - timedelta(days=14), 9, ("hits",))
    expected = [("2026-03-10", "2026-03-10"), ("2026-03-12", "2026-03-12"), ("2026-03-14", "2026-03-15")]
    assert list_confirmations(evaluate(instance, NP6_START_DATE="2026-03-01", NP6_DATA_DIR=f"{tmp_path}")) == expected


@pytest.mark.slow
def test_confirmations_store_all_late_events(instance: dg.DagsterInstance, tmp_path: Path):
    """Events are up to twenty days late, as long as the window; daily_ingest is off on most nights."""
    random = Random(5)
    first, last = date(2026, 3, 1), date(2026, 3, 6)
    events = set_one_agency(build_population(71, first, 6, sends_per_day=3))
    with RudeServer(seed=1) as server:
        account = Account.create(
            tmp_path / "data",
            server,
            instance,
            datetime(2026, 3, 2, 3, 30, tzinfo=UTC),
            events,
            NP6_START_DATE=str(first),
            NP6_WINDOW_DAYS="20",
            NP6_TRAILING_DAYS="1",
        )
        feeds = [events.feed(kind) for kind in KINDS]
        account.late = {one["id"]: timedelta(days=20 * random.random() ** 2) for feed in feeds for one in feed}

        def find_incomplete() -> list[tuple[str, date]]:
            return [
                (kind, day)
                for kind in KINDS
                for day in list_days(first, last)
                if canonicalize(account.deployment.rows(kind, day))
                != canonicalize(expect_rows(kind, events.feed(kind), *compute_day_bounds(day, "UTC")))
            ]

        for night in range(30):
            if night in (0, 2, 4, 5):  # each day once or twice, soon after its end
                assert account.run_night()
            if night == 6:
                assert len(find_incomplete()) > 10
            if night in (22, 26):  # the days are 21 days old and more
                assert account.run_night()
            account.clock.forward(days=1)
    assert find_incomplete() == []
    # the names of the notifications are fetched too
    assert (tmp_path / "data" / "notifications" / "part-0.parquet").exists()


def test_schedule_requests_nothing_before_the_start_date_or_without_a_key(instance: dg.DagsterInstance):
    tick = evaluate(instance, NP6_START_DATE="2026-03-24")
    assert not tick.run_requests
    assert tick.skip_message == "2026-03-23 is before NP6_START_DATE, which is 2026-03-24."
    assert evaluate(instance, NP6_API_KEY="").skip_message == NO_KEY
