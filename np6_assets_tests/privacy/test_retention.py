"""Remove old events and keep their rates."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets_tests.refresh.account import Account
from np6_assets_tests.support.deployment import Deployment, list_days, read_files
from np6_assets_tests.support.events import KINDS, build_population
from np6_assets_tests.support.rude_server import RudeServer

STORED = ("hits", "optouts")  # two kinds, as all take too long
FIRST = date(2026, 3, 1)
LAST = date(2026, 3, 10)
NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
FIRST_KEPT = date(2026, 3, 8)  # NP6_RETENTION_DAYS before today, the 14th
SETTINGS = {"NP6_RETENTION_DAYS": "6", "NP6_TRAILING_DAYS": "1"}


def build_deployment(
    server: RudeServer, instance: dg.DagsterInstance, data: Path, now: datetime = NOW, **settings: str
) -> Deployment:
    return Deployment(data, server, instance, lambda: now, **settings)


@pytest.fixture(scope="module")
def filled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ten days of events, some of them in quarantine, and of rates."""
    data = tmp_path_factory.mktemp("filled") / "data"
    population = build_population(61, FIRST, 10, sends_per_day=2, bad_event_days=[FIRST, LAST])
    with RudeServer(population) as server, dg.DagsterInstance.ephemeral() as instance:
        deployment = build_deployment(server, instance, data)
        deployment.materialize(STORED, FIRST, LAST)
        deployment.materialize("reactivity_rates", FIRST, LAST)
    return data


@pytest.fixture
def data(filled_folder: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(filled_folder, tmp_path / "data"))


def run_retention(deployment: Deployment, first_kept: date | None = FIRST_KEPT) -> dict[str, object]:
    """Run the job, with the first kept day confirmed or not; return its metadata."""
    config = {} if first_kept is None else {"first_kept": f"{first_kept}"}
    return deployment.run_job("apply_retention", remove_retired_days=config)


def test_retention_removes_only_old_events_and_their_quarantine(
    server: RudeServer, instance: dg.DagsterInstance, data: Path
) -> None:
    before = read_files(data)
    assert run_retention(build_deployment(server, instance, data)) == {}  # by default all is kept
    assert read_files(data) == before
    old = {name for name in before if any(f"event_date={day}/" in name for day in list_days(FIRST, date(2026, 3, 7)))}
    assert len(old) == 7 * len(STORED) + len(STORED)  # and one day of each kind's quarantine
    left = data / "hits" / f"event_date={FIRST}" / ".part-0.parquet.0123456789abcdef.tmp"
    left.write_bytes(b"unfinished")
    # days before a later start are kept as long as others
    receipt = run_retention(build_deployment(server, instance, data, **SETTINGS, NP6_START_DATE="2026-03-10"))
    assert receipt["first_kept"] == f"{FIRST_KEPT}"
    assert set(receipt["files"]) == old
    assert receipt["removed"] == {**dict.fromkeys(STORED, 7), **{f"quarantine/{kind}": 1 for kind in STORED}}
    assert receipt["swept"] == [str(left.relative_to(data))]
    assert read_files(data) == {name: content for name, content in before.items() if name not in old}
    assert not left.parent.exists()
    deployment = build_deployment(server, instance, data, **SETTINGS)
    assert run_retention(deployment)["files"] == []
    # the check also evaluates cohorts without events
    found = deployment.check("reactivity_rates", FIRST, LAST)
    assert {day for _, day in found if day} == {f"{day}" for day in list_days(FIRST, LAST)}


def test_retention_needs_no_confirmation_for_few_days(
    server: RudeServer, instance: dg.DagsterInstance, data: Path
) -> None:
    now = datetime(2026, 3, 12, 12, tzinfo=UTC)  # a day and a half after the newest watermark
    receipt = run_retention(
        build_deployment(server, instance, data, now, **SETTINGS | {"NP6_RETENTION_DAYS": "8"}), None
    )
    assert receipt["removed"] == {**dict.fromkeys(STORED, 3), **{f"quarantine/{kind}": 1 for kind in STORED}}


@pytest.mark.parametrize(
    ("now", "keep", "message"),
    [
        # a clock that is wrong
        (datetime(2031, 3, 12, tzinfo=UTC), 8, "the clock says 2031-03-12, and the newest .* until 2026-03-11"),
        pytest.param(datetime(2026, 3, 13, 1, tzinfo=UTC), 9, "more than 2 days apart", marks=pytest.mark.slow),
        pytest.param(datetime(2026, 3, 8, 12, tzinfo=UTC), 5, "more than 2 days apart", marks=pytest.mark.slow),
        # a mistyped setting: 6 for 600
        (datetime(2026, 3, 12, 12, tzinfo=UTC), 6, "5 of 10 stored days would go at once"),
    ],
)
def test_retention_needs_confirmation_of_an_unlikely_clock_or_setting(
    server: RudeServer, instance: dg.DagsterInstance, data: Path, now: datetime, keep: int, message: str
) -> None:
    before = read_files(data)
    deployment = build_deployment(server, instance, data, now, **SETTINGS | {"NP6_RETENTION_DAYS": f"{keep}"})
    first = now.date() - timedelta(days=keep)
    for confirmed in (None, first - timedelta(days=1), first + timedelta(days=1)):
        with pytest.raises(dg.Failure, match=f"^nothing was removed: .*{message}.*first_kept: '{first}'") as caught:
            run_retention(deployment, confirmed)
        assert not caught.value.allow_retries
        assert read_files(data) == before
    assert run_retention(deployment, first)["files"]
    assert not [name for name in read_files(data) if f"event_date={FIRST}/" in name]


@pytest.mark.parametrize(
    "asset", ["hits", *(pytest.param(asset, marks=pytest.mark.slow) for asset in ("activations", "reactivity_rates"))]
)
def test_run_of_retired_days_fails_before_any_request(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, asset: str
) -> None:
    data = tmp_path / "data"
    deployment = build_deployment(server, instance, data, **SETTINGS)
    with pytest.raises(dg.Failure, match=r"^2026-03-06 is not kept any more \(NP6_RETENTION_DAYS=6\); launch"):
        deployment.materialize(asset, date(2026, 3, 6), LAST)
    assert read_files(data) == {}
    assert server.list_requests() == []
    deployment.materialize(asset, FIRST_KEPT, LAST)
    assert read_files(data)


def test_sensor_requests_no_retired_day(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    events = build_population(62, FIRST, 10, sends_per_day=6)
    account = Account.create(
        tmp_path / "data", server, instance, datetime(2026, 3, 1, 12, tzinfo=UTC), events, **SETTINGS
    )
    account.deployment.materialize(list(KINDS), FIRST)
    account.clock.now = NOW  # no run for two weeks, and no event today
    assert account.tick().days == [("2026-03-13", "2026-03-13"), (f"{FIRST_KEPT}", "2026-03-12")]


@pytest.mark.slow
def test_rates_of_retired_days_are_not_requested(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    events = build_population(62, FIRST, 10, sends_per_day=6)

    def create_account(**settings: str) -> Account:
        return Account.create(tmp_path / "data", server, instance, NOW, events, **settings)

    create_account().deployment.materialize(
        ["hits", "activations"], FIRST_KEPT - timedelta(days=2), FIRST_KEPT + timedelta(days=1)
    )
    # the window of a cohort is a day
    assert create_account().tick_rates() == [(f"{FIRST_KEPT - timedelta(days=3)}", f"{FIRST_KEPT + timedelta(days=1)}")]
    assert create_account(**SETTINGS).tick_rates() == [(f"{FIRST_KEPT}", f"{FIRST_KEPT + timedelta(days=1)}")]
