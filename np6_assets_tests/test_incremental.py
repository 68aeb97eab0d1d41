"""Fetch open days incrementally, and compare their files with those of a full fetch."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from np6_assets_tests.support.clock import Clock
from np6_assets_tests.support.deployment import Deployment, read_files, select_published
from np6_assets_tests.support.events import KINDS, build_population, to_ms
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import Request, RudeServer

DAY = date(2026, 3, 29)  # 23 hours in Paris
PARIS = "Europe/Paris"
HITS = "/notifications/reactivities/hits"
LOOKBACK = timedelta(minutes=30)
LOOKBACK_MS = 30 * 60_000


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(scope="module")
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        yield running


class Account:
    """A deployment, its account, and a clock on a day in Paris."""

    def __init__(self, data: Path, server: RudeServer, instance: dg.DagsterInstance, **environment: str) -> None:
        self.clock = Clock(datetime.fromtimestamp(compute_day_bounds(DAY, PARIS)[0] / 1000, UTC) + timedelta(hours=10))
        self.population = build_population(41, DAY, 1, PARIS, sends_per_day=60)
        self.server = server
        self.environment = {"NP6_TIMEZONE": PARIS, "NP6_LOOKBACK_MINUTES": "30", **environment}
        self.deployment = Deployment(data / "stored", server, instance, self.clock, **self.environment)

    def fetch(self, *assets: str, late: int = 0, full: bool = False) -> list[Request]:
        """Fetch the events published by now, and return the requests."""
        self.server.serve(select_published(self.population, to_ms(self.clock()), late))
        before = len(self.server.list_requests())
        config = {"ops": {asset: {"config": {"full_refresh": full}} for asset in assets}}
        self.deployment.materialize(list(assets), DAY, run_config=config)
        return self.server.list_requests()[before:]

    def fetch_fresh(self, *assets: str) -> dict[str, bytes]:
        """Fetch the day once in an empty deployment, and return its files."""
        with tempfile.TemporaryDirectory() as folder:
            fresh = Deployment(Path(folder), self.server, self.deployment.instance, self.clock, **self.environment)
            fresh.materialize(list(assets), DAY)
            return read_files(Path(folder))

    def read_version(self, asset: str) -> str:
        records = self.deployment.instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
        return records[0].asset_materialization.tags["dagster/data_version"]


@pytest.fixture
def account(tmp_path: Path, server: RudeServer, instance: dg.DagsterInstance) -> Account:
    return Account(tmp_path, server, instance)


def test_incremental_fetches_write_the_files_of_a_full_fetch(account: Account):
    kinds = ["hits", "activations"]  # a feed of all notifications, and one of each
    account.fetch(*kinds)
    rows = len(account.deployment.rows("hits", DAY))
    for hours in (3, 0.25, 6, 3.5, 1):  # the last but one is after midnight, the last after the day is closed
        expected_start = account.clock.now - LOOKBACK
        account.clock.forward(hours=hours)
        requests = account.fetch(*kinds)
        starts = {request.query.get("reactivityStart") or request.query.get("start") for request in requests} - {None}
        if hours < 1 or hours > 3.5 or hours == 3:
            assert starts == {f"{to_ms(expected_start)}"}
        metadata = account.deployment.metadata("hits", DAY)
        assert metadata["events_gained"] == len(account.deployment.rows("hits", DAY)) - rows
        rows += metadata["events_gained"]
        assert read_files(account.deployment.data) == account.fetch_fresh(*kinds)
    account.deployment.assert_stored(account.population, kinds, DAY, DAY)
    start, end = compute_day_bounds(DAY, PARIS)
    assert to_ms(account.deployment.fetched_until("hits", DAY)) == end
    before = read_files(account.deployment.data)
    [request] = account.fetch("hits", full=True)
    assert request.query["reactivityStart"] == str(start)
    assert read_files(account.deployment.data) == before


def test_late_events_within_the_lookback_are_fetched(account: Account):
    assert_late_events_are_fetched(account, [0.4, 7], LOOKBACK_MS, "bounces")


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(
    hours=st.lists(st.floats(0, 9), min_size=1, max_size=4),
    late=st.integers(0, LOOKBACK_MS),
    kind=st.sampled_from(list(KINDS)),
)
def test_late_events_are_fetched_at_any_time(
    server: RudeServer, instance: dg.DagsterInstance, hours: list[float], late: int, kind: str
):
    with tempfile.TemporaryDirectory() as folder:
        assert_late_events_are_fetched(Account(Path(folder), server, instance), hours, late, kind)


def assert_late_events_are_fetched(account: Account, hours: list[float], late: int, kind: str) -> None:
    """Fetch after each of these hours and once closed, with every third event `late` ms late."""
    for more in [*hours, 24]:
        account.fetch(kind, late=late)
        account.clock.forward(hours=more)
    account.fetch(kind, late=late)
    account.deployment.assert_stored(account.population, [kind], DAY, DAY)


def test_closed_day_keeps_its_version_without_new_events(account: Account):
    account.clock.forward(hours=24)
    everything = account.population
    first = min(one["timestamp"] for one in everything.hits if one["timestamp"] >= compute_day_bounds(DAY, PARIS)[0])
    late = {one["id"] for one in everything.hits if one["timestamp"] == first}
    account.population = replace(everything, hits=[one for one in everything.hits if one["id"] not in late])
    account.fetch("hits")
    version = account.read_version("hits")
    before = read_files(account.deployment.data)

    account.clock.forward(hours=5)
    [request] = account.fetch("hits")
    assert request.query["reactivityStart"] == str(compute_day_bounds(DAY, PARIS)[0])
    assert read_files(account.deployment.data) == before
    assert account.read_version("hits") == version
    assert account.deployment.metadata("hits", DAY)["events_gained"] == 0

    account.population = everything
    account.fetch("hits")
    assert account.read_version("hits") != version
    assert account.deployment.metadata("hits", DAY)["events_gained"] == len(late)
    account.deployment.assert_stored(everything, ["hits"], DAY, DAY)


@pytest.mark.slow
def test_quarantine_of_an_open_day_is_merged(tmp_path: Path, server: RudeServer, instance: dg.DagsterInstance):
    account = Account(tmp_path, server, instance)
    account.population = build_population(42, DAY, 1, PARIS, bad_event_days=[DAY])
    account.clock.forward(hours=2 + 3 / 3600)  # 12:00:03, when the rejected events begin
    fetched_until = account.clock.now
    account.fetch("hits")
    before = account.deployment.quarantine("hits", DAY)
    assert before
    account.clock.forward(hours=6)
    [request] = account.fetch("hits")
    assert request.query["reactivityStart"] == f"{to_ms(fetched_until - LOOKBACK)}"
    after = account.deployment.quarantine("hits", DAY)
    assert len(after) > len(before)
    assert {row["event_key"] for row in before} < {row["event_key"] for row in after}
    assert read_files(account.deployment.data) == account.fetch_fresh("hits")
    account.clock.forward(hours=24)
    account.fetch("hits")
    account.deployment.assert_stored(account.population, ["hits"], DAY, DAY)
