"""Test retries of notifications that failed on a closed day, with growing pauses."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from np6_assets.partition_checks import Records
from np6_assets.refresh.event_files import EventFiles
from np6_assets.refresh.missing_notifications import REASON, find_days_to_retry
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets_tests.refresh.account import Account, find_run_days
from np6_assets_tests.support.deployment import build_resource
from np6_assets_tests.support.events import HOUR_MS, Population, build_event
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer

FIRST = date(2026, 3, 20)
REFUSED = "/notifications/102/events/activations"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MISSING_ONLY = {"ops": {"activations": {"config": {"missing_only": True}}}}


def build_events(days: int) -> Population:
    """Build for each day a send of two notifications at 10:00, and a hit of the second send at 11:00."""
    population = Population(notifications=[{"id": 101}, {"id": 102}])
    for ahead in range(days):
        ten = compute_day_bounds(FIRST + ahead * DAY, "UTC")[0] + 10 * HOUR_MS
        for id_ in (101, 102):
            send = {"activation_id": id_, "stamp_id": f"{id_} {ahead}", "stamp_time": ten, "subscription": "one"}
            population.activations.append(build_event("activations", id=f"send {id_} {ahead}", timestamp=ten, **send))
            if id_ == 102:
                population.hits.append(build_event("hits", id=f"hit {ahead}", timestamp=ten + HOUR_MS, **send))
    return population


@pytest.fixture
def account(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Account:
    return create_account(server, instance, tmp_path, days=2)


def create_account(server: RudeServer, instance: dg.DagsterInstance, folder: Path, days: int) -> Account:
    start = datetime(2026, 3, 20, 12, tzinfo=UTC)
    account = Account.create(folder / "data", server, instance, start, build_events(days), NP6_START_DATE=f"{FIRST}")
    account.deployment.np6 = build_resource(server, max_retries=1, step_retries=0)
    return account


def set_clock(account: Account, hours: float, day: date = FIRST) -> None:
    """Set the clock to `hours` after a day's end."""
    account.clock.now = datetime(day.year, day.month, day.day, tzinfo=UTC) + DAY + hours * HOUR


def build_settings(account: Account) -> Settings:
    data, url = str(account.deployment.data), account.server.url
    return Settings.from_environment({"NP6_DATA_DIR": data, "NP6_BASE_URL": url, "NP6_START_DATE": f"{FIRST}"})


def list_due_days(account: Account) -> list[date]:
    """List the days whose missing notifications are due for a retry."""
    settings = build_settings(account)
    files, folder = EventFiles(settings), Folder(settings.data_dir)
    files.list_files(folder)
    return find_days_to_retry(files, folder, Records(account.instance, settings), settings, account.clock())


@pytest.mark.slow
def test_notification_refused_for_a_week_gets_its_sends_and_final_rates(account: Account):
    account.server.script_always(REFUSED, "403")
    for hours, expected_days in ((-12, []), (1.5, []), (26, [FIRST]), (171, [FIRST, FIRST + DAY])):
        set_clock(account, hours)
        runs = []
        for _ in range(2):  # days that were never fetched come first
            tick = account.tick()
            assert account.run_requests(tick)
            runs += tick.runs
        # at least twice as old as at the last attempt
        days = [find_run_days(run) for run in runs if run.tags["np6/why"] == REASON]
        assert days == ([(f"{expected_days[0]}", f"{expected_days[-1]}")] if expected_days else [])
    account.deployment.materialize("reactivity_rates", FIRST, FIRST + DAY)
    assert account.deployment.missing_ids(FIRST)
    status = {row["activation_id"]: row["status"] for row in account.deployment.rates(FIRST)}
    assert status == {101: "final", 102: "incomplete"}

    account.server.reset_faults()
    set_clock(account, 343)
    assert account.run_requests(account.tick())
    assert account.run_requests(account.tick())
    account.deployment.materialize("reactivity_rates", FIRST, FIRST + DAY)
    for day in (FIRST, FIRST + DAY):
        assert not account.deployment.missing_ids(day)
        assert {row["event_id"] for row in account.deployment.rows("activations", day)} == {
            f"send {id_} {(day - FIRST).days}" for id_ in (101, 102)
        }
        rates = {row["activation_id"]: row for row in account.deployment.rates(day)}
        assert {id_: (row["activations"], row["hits"], row["is_final"]) for id_, row in rates.items()} == {
            101: (1, 0, True),
            102: (1, 1, True),
        }
    account.clock.forward(hours=2)
    assert account.tick().runs == []


@pytest.mark.slow
def test_broken_notification_costs_twenty_requests_in_thirty_days(account: Account):
    account.server.script_always(REFUSED, "500")
    set_clock(account, 1)
    account.publish()
    account.deployment.materialize("activations", FIRST)
    assert account.deployment.missing_ids(FIRST)
    hours_tried = []
    for hours in [*range(1, 48), *range(48, 24 * 30, 8)]:
        set_clock(account, hours)
        if list_due_days(account):
            account.deployment.materialize("activations", FIRST, run_config=MISSING_ONLY)
            hours_tried.append(hours)
    assert hours_tried == [2, 4, 8, 16, 32, 64, 128, 256, 512]
    # each time twice, as a request is retried
    assert len(account.server.list_requests(REFUSED)) == 2 * 10
    assert len(account.server.list_requests("/notifications/101")) == 1


def test_deleted_notification_is_not_retried(account: Account):
    set_clock(account, -13)
    account.publish()
    account.deployment.materialize("activations", FIRST)
    account.server.unlisted = {102}
    account.server.script_always(REFUSED, "404")
    set_clock(account, 1)
    account.deployment.materialize("activations", FIRST)
    assert account.deployment.missing_ids(FIRST)
    set_clock(account, 999)
    assert list_due_days(account) == []


@pytest.mark.slow
def test_schedule_retries_days_that_it_does_not_fetch(
    server: RudeServer, kept_instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NP6_API_KEY", server.key)
    account = create_account(server, kept_instance, tmp_path, days=2)
    server.script_always(REFUSED, "403")
    for day in (FIRST, FIRST + DAY):
        set_clock(account, 1, day)
        account.publish()
        account.deployment.materialize("activations", day)

    def evaluate_retries(night: date) -> list[dg.RunRequest]:
        definitions = account.deployment.definitions
        moment = datetime(night.year, night.month, night.day, 3, 30, tzinfo=ZoneInfo("UTC"))
        with dg.build_schedule_context(
            instance=kept_instance, scheduled_execution_time=moment, repository_def=definitions.get_repository_def()
        ) as context:
            tick = definitions.resolve_schedule_def("daily_ingest").evaluate_tick(context)
        return [run for run in tick.run_requests or [] if run.tags["np6/why"] == REASON]

    assert evaluate_retries(FIRST + 3 * DAY) == []  # the days before yesterday are fetched in any case
    [run] = evaluate_retries(FIRST + 40 * DAY)
    assert run.asset_selection == [dg.AssetKey("activations")]
    assert run.run_config == MISSING_ONLY
    assert find_run_days(run) == (f"{FIRST}", f"{FIRST + DAY}")
    server.reset_faults()
    set_clock(account, 24 * 39)
    before = len(server.list_requests())
    result = account.deployment.definitions.resolve_job_def("fetch_daily").execute_in_process(
        instance=kept_instance, asset_selection=list(run.asset_selection), run_config=run.run_config, tags=run.tags
    )
    assert result.success
    assert [request.path for request in server.list_requests()[before:]] == ["/notifications", REFUSED]
    assert not account.deployment.missing_ids(FIRST)
    assert not account.deployment.missing_ids(FIRST + DAY)
    assert evaluate_retries(FIRST + 41 * DAY) == []
