"""Test which runs the sensor `np6_refresh` requests, and how many requests a tick sends."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets.progress import Progress
from np6_assets.settings import NO_KEY, Settings
from np6_assets.wiring import build_definitions
from np6_assets_tests.refresh.account import Account, Tick
from np6_assets_tests.support.clock import Clock
from np6_assets_tests.support.deployment import Deployment, list_days, read_files
from np6_assets_tests.support.events import KINDS, REACTIVITIES, build_event, build_population
from np6_assets_tests.support.oracle import compute_day_bounds, list_columns
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import build_table

FIRST = date(2026, 3, 20)
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
MORNING = datetime(2026, 3, 20, 9, tzinfo=UTC)
ENDED = "ended and is not complete"


@pytest.fixture
def account(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Account:
    events = build_population(51, FIRST, 1, sends_per_day=6)
    for kind in KINDS:
        events.feed(kind).clear()
    return Account.create(tmp_path / "data", server, instance, NOON, events)


def add_event(account: Account, kind: str, at: datetime) -> None:
    """Add an event to the account."""
    ms = round(at.timestamp() * 1000)
    id_ = account.events.notifications[0]["id"]
    number = sum(len(account.events.feed(one)) for one in KINDS)
    account.events.feed(kind).append(build_event(kind, id=f"event-{number}", timestamp=ms, activation_id=id_))


def get_day(ahead: int) -> str:
    return str(FIRST + timedelta(days=ahead))


def count_bytes(tick: Tick) -> int:
    """Sum the bytes of all responses."""
    return sum(request.bytes_sent for request in tick.requests)


def test_tick_without_new_events_needs_few_requests_and_bytes(account: Account):
    account.deployment.materialize("notifications")
    ticks = []
    for _ in range(len(account.events.notifications)):
        account.clock.forward(minutes=1)
        ticks.append(account.tick())
    for tick in ticks:
        assert tick.runs == []
        assert tick.message == "Nothing new was published, and every day that has ended is closed."
        paths = [request.path for request in tick.requests]
        assert paths[:4] == [f"/notifications/reactivities/{kind}" for kind in REACTIVITIES]
        assert 1 <= len(paths[4:]) == min(4, len(account.events.notifications))
        assert count_bytes(tick) < 100
    # the notifications are probed in turn
    probed = {request.path for tick in ticks for request in tick.requests[4:]}
    assert len(probed) == len(account.events.notifications)


def test_event_of_any_kind_requests_a_fetch(account: Account):
    for kind in KINDS:
        account.cursor = None
        for other in KINDS:
            account.events.feed(other).clear()
        add_event(account, kind, MORNING)
        tick = account.tick()
        assert tick.days == [(get_day(0), get_day(0))]
        assert tick.runs[0].tags["np6/why"] == f"{kind} were published"
        assert json.loads(account.cursor or "")["summary"] == f"Requested {FIRST}: {kind} were published."


def test_event_is_fetched_once_and_its_day_closed_after_the_lookback(account: Account):
    add_event(account, "hits", MORNING)
    assert account.run_requests(account.tick())  # one run
    for asset in KINDS:
        assert len(account.deployment.rows(asset, FIRST)) == (asset == "hits")
    account.clock.forward(minutes=1)
    assert account.tick().runs == []
    account.clock.now = datetime(2026, 3, 21, 0, 59, tzinfo=UTC)
    tick = account.tick()
    assert tick.runs == []
    # yesterday and today, of each of the feeds for all notifications; and today's activations
    assert len(tick.requests) == 2 * 4 + 1 + min(4, len(account.events.notifications))
    account.clock.forward(minutes=1)
    tick = account.tick()
    assert tick.days == [(get_day(0), get_day(0))]
    assert tick.runs[0].tags["np6/why"] == "ended since it was fetched"
    assert account.run_requests(tick)
    assert account.deployment.fetched_until("hits", FIRST) == datetime(2026, 3, 21, tzinfo=UTC)
    account.clock.forward(minutes=1)
    assert account.tick().runs == []


@pytest.mark.slow
def test_event_published_before_midnight_is_requested_right_after_it(account: Account):
    add_event(account, "hits", MORNING)
    assert account.run_requests(account.tick())
    add_event(account, "bounces", datetime(2026, 3, 20, 23, 59, tzinfo=UTC))
    account.clock.now = datetime(2026, 3, 21, 0, 1, tzinfo=UTC)
    assert account.tick().days == [(get_day(0), get_day(0))]


def test_week_without_the_daemon_is_requested_in_two_runs(account: Account):
    add_event(account, "hits", MORNING)
    assert account.run_requests(account.tick())
    account.clock.forward(days=7)
    add_event(account, "optouts", account.clock() - timedelta(minutes=5))
    for cursor in (account.cursor, "not a cursor"):
        account.cursor = cursor
        tick = account.tick()
        assert tick.days == [(get_day(6), get_day(7)), (get_day(0), get_day(5))]
        assert [run.tags["np6/why"] for run in tick.runs] == [
            f"{get_day(6)}: {ENDED}; {get_day(7)}: optouts were published",
            f"{get_day(0)}: ended since it was fetched; {get_day(1)} to {get_day(5)}: {ENDED}",
        ]


def test_day_is_not_requested_while_it_is_fetched(account: Account, monkeypatch: pytest.MonkeyPatch):
    add_event(account, "hits", MORNING)
    during: list[Tick] = []
    record_day = Progress.record_day

    def tick_after_day(progress: Progress, get_day: str, events: int) -> None:
        record_day(progress, get_day, events)
        during.append(account.tick())

    monkeypatch.setattr(Progress, "record_day", tick_after_day)
    assert account.run_requests(account.tick())
    assert [tick.message for tick in during] == [f"Being fetched already: {FIRST}."] * len(KINDS)
    assert not any(tick.requests for tick in during)


def test_day_of_a_backfill_is_not_requested(account: Account):
    account.tick()
    account.clock.forward(days=3)
    with account.deployment.add_backfill("hits", [get_day(0), get_day(1)], account.clock()):
        tick = account.tick()
        assert tick.days == [(get_day(2), get_day(2))]
    assert account.tick().days == [(get_day(0), get_day(1))]


def test_failed_run_is_requested_again_with_growing_pauses(account: Account):
    add_event(account, "hits", MORNING)
    account.server.script("/notifications/reactivities/bounces", *["400"] * 2)
    tries: list[tuple[int, bool]] = []
    for minute in range(8):
        tick = account.tick()
        if tick.runs:
            tries.append((minute, account.run_requests(tick)))
            if len(tries) == 2:
                message = account.tick().message
        account.clock.forward(minutes=1)
    # 1 and 4 minutes after the one before
    assert tries == [(0, False), (1, False), (5, True)]
    assert message == (
        f"bounces of {FIRST}: 2 failed attempts; the runs say why. Next attempt from {FIRST} 12:05 UTC on."
    )


def test_sensor_requests_nothing_while_the_api_fails(account: Account):
    account.tick()  # from this day on it watches
    account.clock.forward(days=2)
    account.server.script_always("/", "503")
    for _ in range(2):
        tick = account.tick()
        assert tick.runs == []
        assert tick.message.startswith("Nothing requested, as the API failed: GET /notifications/")
        assert len(tick.requests) == 2 * 4  # of two feeds, as one may be down alone
        account.clock.forward(minutes=1)
    account.server.reset_faults()
    account.server.script_always("/", "401")
    tick = account.tick()
    assert (tick.runs, len(tick.requests)) == ([], 1)
    assert "the API does not know the key; set NP6_API_KEY to a valid key" in tick.message
    assert account.server.key not in tick.message + (account.cursor or "")
    account.server.reset_faults()
    account.server.fail_randomly(0.33, seed=2, wait=0)
    assert account.tick().days == [(get_day(0), get_day(1))]


def test_failed_feed_delays_its_own_events_alone(account: Account):
    account.tick()
    account.deployment.materialize("notifications")
    account.clock.forward(days=2)
    add_event(account, "hits", account.clock() - timedelta(minutes=1))
    notification = account.events.notifications[0]["id"]
    for path in ("/notifications/reactivities/bounces", f"/notifications/{notification}/events/activations"):
        account.server.reset_faults()
        account.server.script_always(path, "404")
        tick = account.tick()
        assert tick.days == [(get_day(0), get_day(2))]
        account.cursor = json.dumps({"closed_through": get_day(-1)})
        account.events.hits.clear()
        tick = account.tick()
        assert tick.days == [(get_day(0), get_day(1))]
        assert f"Not all could be probed: GET {path} returned 404" in json.loads(account.cursor or "")["summary"]
        account.cursor = json.dumps({"closed_through": get_day(-1)})
        add_event(account, "hits", account.clock() - timedelta(minutes=1))


def test_deleted_notification_does_not_end_the_probes_of_the_others(account: Account):
    account.deployment.materialize("notifications")
    deleted, *others = sorted(notification["id"] for notification in account.events.notifications)
    account.server.script_always(f"/notifications/{deleted}/events/activations", "404")
    at = round(MORNING.timestamp() * 1000)
    account.events.activations.append(build_event("activations", id="sent", timestamp=at, activation_id=others[0]))
    tick = account.tick()
    assert tick.days == [(get_day(0), get_day(0))]
    assert tick.runs[0].tags["np6/why"] == "activations were published"


@pytest.mark.slow
def test_forbidden_feed_does_not_slow_the_others(account: Account):
    account.server.script_always("/notifications/reactivities/impressions", "403")
    requested = []
    for _ in range(5):
        add_event(account, "hits", account.clock() - timedelta(minutes=1))
        tick = account.tick()
        assert tick.days == [(get_day(0), get_day(0))]
        requested.append([key.to_user_string() for key in tick.runs[0].asset_selection or map(dg.AssetKey, KINDS)])
        account.run_requests(tick)
        assert account.deployment.fetched_until("hits", FIRST) == account.clock()
        account.clock.forward(minutes=15)
    # impressions 1, 4, 16 and 64 minutes after the time before, at a quarter of an hour
    assert ["impressions" in assets for assets in requested] == [True, True, True, False, True]
    assert all({*assets, "impressions"} == set(KINDS) for assets in requested)


def test_open_day_is_fetched_as_often_as_set(account: Account):
    fetched = []
    for minute in (0, 1, 14, 15, 16):
        account.clock.now = NOON + timedelta(minutes=minute)
        add_event(account, "bounces", account.clock() - timedelta(seconds=30))
        tick = account.tick()
        assert bool(tick.requests) == bool(tick.runs)  # and probed as often
        fetched += [minute for _ in tick.runs]
        account.run_requests(tick)
    assert fetched == [0, 15]
    assert len(account.deployment.rows("bounces", FIRST)) == 4


@pytest.mark.slow
def test_tick_ends_in_time_and_the_next_one_continues(account: Account):
    closed, slow = (
        list_days(FIRST - timedelta(days=20), FIRST - timedelta(days=1)),
        Clock(NOON, step=timedelta(seconds=20)),
    )
    for asset in KINDS:
        for one in closed:
            store_closed(account.deployment, asset, one)
    requested, closed_through = [], []
    for _ in range(3):
        # the code is loaded anew each time: nothing but the cursor is carried on
        account.deployment = Deployment(account.deployment.data, account.server, account.instance, slow)
        slow.now = NOON
        requested += account.tick().runs
        memory = json.loads(account.cursor or "")
        closed_through.append(memory["closed_through"])
        assert ("could not be read in time" in memory["summary"]) == (len(closed_through) < 3)
    assert requested == []
    assert closed_through == [str(closed[6]), str(closed[13]), str(closed[-1])]


def store_closed(deployment: Deployment, asset: str, one: date) -> None:
    """Write and record a closed day as a run does."""
    end = datetime.fromtimestamp(compute_day_bounds(one, "UTC")[1] / 1000, UTC)
    path = deployment.path(asset, one)
    path.parent.mkdir(parents=True)
    metadata = {"np6.fetched_until": end.isoformat()}
    pq.write_table(build_table([], list_columns(asset)).replace_schema_metadata(metadata), path)
    deployment.instance.report_runless_asset_event(
        dg.AssetMaterialization(asset, partition=f"{one}", metadata={"fetched_until": dg.MetadataValue.timestamp(end)})
    )


def test_sensor_without_a_key_names_the_setting(instance: dg.DagsterInstance, tmp_path: Path):
    definitions = build_definitions(Settings.from_environment({"NP6_DATA_DIR": str(tmp_path)}))
    with dg.build_sensor_context(
        instance=instance, definitions=definitions, resources=definitions.resources
    ) as context:
        assert definitions.resolve_sensor_def("np6_refresh").evaluate_tick(context).skip_message == NO_KEY


def test_file_without_a_record_is_fetched_again(account: Account):
    account.tick()
    account.clock.forward(days=1)
    deployment, instance = account.deployment, account.instance
    with dg.DagsterInstance.ephemeral() as deployment.instance:
        deployment.materialize(list(KINDS), FIRST)
    deployment.instance = instance
    assert deployment.fetched_until("hits", FIRST) == datetime(2026, 3, 21, tzinfo=UTC)
    assert account.tick().days == [(get_day(0), get_day(0))]


def test_sensor_days_are_those_of_the_time_zone(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    events = build_population(52, FIRST, 1, sends_per_day=6)
    account = Account.create(tmp_path / "data", server, instance, NOON, events, NP6_TIMEZONE="Europe/Paris")
    account.clock.now = datetime.fromtimestamp(compute_day_bounds(FIRST, "Europe/Paris")[1] / 1000, UTC) - timedelta(
        minutes=1
    )
    assert account.tick().days == [(get_day(0), get_day(0))]
    account.cursor = None
    account.clock.forward(minutes=2)
    assert account.tick().runs == []


def move_start_date(account: Account, start: date) -> None:
    """Restart the deployment with another NP6_START_DATE, over the same folder, instance and cursors."""
    deployment = account.deployment
    account.deployment = Deployment(
        deployment.data, account.server, account.instance, account.clock, NP6_START_DATE=f"{start}"
    )


@pytest.mark.slow
def test_sensors_follow_a_moved_start_date(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    events = build_population(53, FIRST, 6, sends_per_day=4)
    account = Account.create(tmp_path / "data", server, instance, NOON, events, NP6_START_DATE=get_day(0))

    def tick_next_day() -> tuple[list[tuple[str, str]], list[date]]:
        """Tick both sensors a day later, do their runs, and return the fetched days and the computed cohorts."""
        account.clock.forward(days=1)
        tick = account.tick()
        assert account.run_requests(tick)
        return tick.days, account.follow()

    assert account.run_requests(account.tick())
    account.follow()
    assert tick_next_day() == ([(get_day(0), get_day(1))], list_days(FIRST, FIRST + timedelta(days=1)))
    before = read_files(account.deployment.data)

    # forward, past days that are stored and the one that is open
    move_start_date(account, FIRST + timedelta(days=3))
    tick = account.tick()
    assert tick.runs == []
    assert tick.message == f"Nothing to do before NP6_START_DATE, which is {get_day(3)}."
    assert account.follow() == []
    assert tick_next_day() == ([], [])
    fetched, computed = tick_next_day()
    assert fetched == [(get_day(3), get_day(3))]
    assert set(computed) <= {FIRST + timedelta(days=3)}
    assert {name: read_files(account.deployment.data)[name] for name in before} == before

    # and back: the open day is closed, and its rates follow
    move_start_date(account, FIRST - timedelta(days=2))
    fetched, computed = tick_next_day()
    assert {date.fromisoformat(one) for first, last in fetched for one in (first, last)} >= {FIRST + timedelta(days=4)}
    for _ in range(2):
        tick_next_day()
    open_days = [
        get_day(ahead)
        for ahead in range(6)
        if not account.deployment.path("hits", FIRST + timedelta(days=ahead)).exists()
        or account.deployment.fetched_until("hits", FIRST + timedelta(days=ahead))
        < datetime(2026, 3, 21 + ahead, tzinfo=UTC)
    ]
    assert open_days == []
    final = [row["is_final"] for ahead in range(4) for row in account.deployment.rates(FIRST + timedelta(days=ahead))]
    assert all(final)
