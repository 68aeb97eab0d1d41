"""Days that are fetched again: only what is new is downloaded, and the file is the one that a full fetch gives."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from np6_assets_tests.support.deployment import PSEUDONYM_KEY, Deployment, files
from np6_assets_tests.support.events import KINDS, Population, population
from np6_assets_tests.support.oracle import day_bounds
from np6_assets_tests.support.rude_server import Request, RudeServer

DAY = date(2026, 3, 29)  # 23 hours in Paris
PARIS = "Europe/Paris"
HITS = "/notifications/reactivities/hits"
OVERLAP = timedelta(minutes=30)
FULL = {"ops": {kind: {"config": {"full_refresh": True}} for kind in KINDS}}


class Clock:
    """A clock that is set by hand."""

    def __init__(self, hours: float) -> None:
        self.now = datetime.fromtimestamp(day_bounds(DAY, PARIS)[0] / 1000, UTC)
        self.forward(hours)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    @property
    def milliseconds(self) -> int:
        return round(self.now.timestamp() * 1000)


def published(made: Population, until: int, late: int = 0) -> Population:
    """What is there at a time, if every third event takes `late` ms longer than its own time to appear."""

    def is_there(number: int, moment: int) -> bool:
        return moment + (late if number % 3 == 0 else 0) < until

    there = replace(made)
    for kind in KINDS:
        feed = made.feed(kind)
        setattr(there, kind, [one for number, one in enumerate(feed) if is_there(number, one["timestamp"])])
    there.misfits = [misfit for misfit in made.misfits if is_there(1, misfit.placed_ms)]
    return there


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        yield running


class Account:
    """A deployment, the account that feeds it, and the time, in Paris, on a day that goes by."""

    def __init__(self, data: Path, server: RudeServer, instance: dg.DagsterInstance, **environment: str) -> None:
        self.clock = Clock(hours=10)
        self.made = population(41, DAY, 1, PARIS, sends_per_day=60)
        self.server = server
        self.environment = {"NP6_TIMEZONE": PARIS, "NP6_REFRESH_OVERLAP_MINUTES": "30", **environment}
        self.deployment = Deployment(data / "stored", server, instance, self.clock, **self.environment)

    def fetch(self, *assets: str, late: int = 0, full: bool = False) -> list[Request]:
        """Fetch what there is by now, and say what was asked for."""
        self.server.serve(published(self.made, self.clock.milliseconds, late))
        before = len(self.server.asked())
        config = {"ops": {asset: FULL["ops"][asset] for asset in assets}} if full else None
        self.deployment.materialize(list(assets), DAY, run_config=config)
        return self.server.asked()[before:]

    def in_full(self, *assets: str) -> dict[str, bytes]:
        """The files that a deployment without any has after one fetch."""
        with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
            fresh = Deployment(Path(folder), self.server, instance, self.clock, **self.environment)
            fresh.materialize(list(assets), DAY)
            return files(Path(folder))

    def version(self, asset: str) -> str:
        records = self.deployment.instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
        return records[0].asset_materialization.tags["dagster/data_version"]


@pytest.fixture
def account(tmp_path: Path, server: RudeServer, instance: dg.DagsterInstance) -> Account:
    return Account(tmp_path, server, instance)


def milliseconds(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1000))


def test_a_day_that_goes_by_is_fetched_from_where_it_was_left_and_ends_as_a_full_fetch_has_it(account: Account):
    kinds = list(KINDS)
    account.fetch(*kinds)
    rows = len(account.deployment.rows("hits", DAY))
    for hours in (3, 0.25, 6, 3.5, 1):  # the last but one is after midnight, the last after the day is closed
        asked_from = account.clock.now - OVERLAP
        account.clock.forward(hours)
        asked = account.fetch(*kinds)
        starts = {request.query.get("reactivityStart") or request.query.get("start") for request in asked} - {None}
        if hours < 1 or hours > 3.5 or hours == 3:
            assert starts == {milliseconds(asked_from)}
        assert files(account.deployment.data) == account.in_full(*kinds)
        metadata = account.deployment.metadata("hits", DAY)
        assert metadata["events_gained"] == len(account.deployment.rows("hits", DAY)) - rows
        rows += metadata["events_gained"]
    account.deployment.assert_holds(account.made, kinds, DAY, DAY)
    end = datetime.fromtimestamp(day_bounds(DAY, PARIS)[1] / 1000, UTC)
    assert account.deployment.fetched_until("hits", DAY) == end


@settings(max_examples=5, deadline=None)
@given(
    hours=st.lists(st.floats(0, 9), min_size=1, max_size=4),
    late=st.integers(0, int(OVERLAP.total_seconds() * 1000)),
    kind=st.sampled_from(list(KINDS)),
)
def test_what_is_published_late_within_the_overlap_is_not_missed(
    server: RudeServer, instance: dg.DagsterInstance, hours: list[float], late: int, kind: str
):
    with tempfile.TemporaryDirectory() as folder:
        account = Account(Path(folder), server, instance)
        for more in [*hours, 24]:
            account.fetch(kind, late=late)
            account.clock.forward(more)
        account.fetch(kind, late=late)
        account.deployment.assert_holds(account.made, [kind], DAY, DAY)


def test_a_full_refresh_asks_for_the_whole_day(account: Account):
    account.fetch("hits")
    account.clock.forward(2)
    [request] = account.fetch("hits", full=True)
    assert request.query["reactivityStart"] == str(day_bounds(DAY, PARIS)[0])
    assert files(account.deployment.data) == account.in_full("hits")


def test_a_closed_day_is_fetched_in_full_and_keeps_its_version_unless_something_is_new(account: Account):
    account.clock.forward(24)
    everything = account.made
    first = min(one["timestamp"] for one in everything.hits if one["timestamp"] >= day_bounds(DAY, PARIS)[0])
    late = {one["id"] for one in everything.hits if one["timestamp"] == first}
    account.made = replace(everything, hits=[one for one in everything.hits if one["id"] not in late])
    account.fetch("hits")
    version = account.version("hits")
    before = files(account.deployment.data)

    account.clock.forward(5)
    [request] = account.fetch("hits")
    assert request.query["reactivityStart"] == str(day_bounds(DAY, PARIS)[0])
    assert files(account.deployment.data) == before
    assert account.version("hits") == version
    assert account.deployment.metadata("hits", DAY)["events_gained"] == 0

    account.made = everything
    account.fetch("hits")
    assert account.version("hits") != version
    assert account.deployment.metadata("hits", DAY)["events_gained"] == len(late)
    account.deployment.assert_holds(everything, ["hits"], DAY, DAY)


def test_a_day_with_events_in_quarantine_is_fetched_in_full(
    tmp_path: Path, server: RudeServer, instance: dg.DagsterInstance
):
    account = Account(tmp_path, server, instance)
    account.made = population(42, DAY, 1, PARIS, misfit_days=[DAY])
    account.clock.forward(10)
    account.fetch("hits")
    quarantined = len(account.deployment.quarantined("hits", DAY))
    assert quarantined > 5
    account.clock.forward(1)
    [request] = account.fetch("hits")
    assert request.query["reactivityStart"] == str(day_bounds(DAY, PARIS)[0])
    assert len(account.deployment.quarantined("hits", DAY)) >= quarantined
    assert files(account.deployment.data) == account.in_full("hits")


def test_a_day_stored_under_another_setting_for_contact_data_is_fetched_in_full(
    tmp_path: Path, server: RudeServer, instance: dg.DagsterInstance
):
    account = Account(tmp_path, server, instance, NP6_CONTACT_DATA="keep")
    account.fetch("hits")
    assert any(row["receiver_unicity"] for row in account.deployment.rows("hits", DAY))
    environment = {
        **account.environment,
        "NP6_CONTACT_DATA": "pseudonymize",
        "NP6_PSEUDONYM_KEY": PSEUDONYM_KEY,
    }
    account.environment = environment
    account.deployment = Deployment(account.deployment.data, server, instance, account.clock, **environment)
    account.clock.forward(1)
    [request] = account.fetch("hits")
    assert request.query["reactivityStart"] == str(day_bounds(DAY, PARIS)[0])
    assert not any("@" in (row["receiver_unicity"] or "") for row in account.deployment.rows("hits", DAY))
    assert files(account.deployment.data) == account.in_full("hits")
