"""Fetch days from servers that treat a window's end differently: the stored day is the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets_tests.support.clock import Clock
from np6_assets_tests.support.deployment import Deployment, build_resource, list_days, read_files, select_published
from np6_assets_tests.support.events import (
    HOUR_MS,
    Population,
    build_bad_events,
    build_event,
    build_population,
    set_one_agency,
)
from np6_assets_tests.support.oracle import (
    compute_day_bounds,
    read_event_time,
)
from np6_assets_tests.support.rude_acts import END_MODES, Act
from np6_assets_tests.support.rude_server import Request, RudeServer

PARIS = "Europe/Paris"
DAY = date(2026, 3, 29)  # 23 hours in Paris
FIRST, LAST = date(2026, 3, 28), date(2026, 4, 1)
KINDS = ["hits", "activations"]
HITS = "/notifications/reactivities/hits"
CUTS = ("cut length", "cut chunked", "cut close", "reset in body")

# Not "both by activation": there a window holds the reactions to its own sends alone, and no window at all holds the
# reaction of a day to a send of weeks before. The doctor tells.
MODES = [mode for mode in END_MODES if mode != "both by activation"]


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


QUICK = {("half open", True), ("inclusive", False), ("ignored", False), ("by activation", True)}
SERVERS = [
    pytest.param(
        mode, id=f"{mode[0]}, {'' if mode[1] else 'not '}sorted", marks=[] if mode in QUICK else pytest.mark.slow
    )
    for mode in itertools.product(MODES, (True, False))
]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        running.end_mode, running.sorts = request.param
        yield running


@pytest.fixture
def sorting_server() -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        yield running


@pytest.fixture(scope="module")
def account() -> Population:
    """Five days of sends and reactions, with ties at the ends of days and rejected events on both sides."""
    population = set_one_agency(build_population(81, FIRST, 5, PARIS, notifications=3, sends_per_day=6, window_days=2))
    for kind in ("optouts", "bounces", "impressions"):
        population.feed(kind).clear()
    sender = population.notifications[0]["id"]
    start, end = compute_day_bounds(DAY, PARIS)
    for kind in KINDS:
        # the clock is behind: the sends of these events are stamped at the end of the day and after it
        population.feed(kind).extend(
            build_event(kind, id=f"{kind} {ahead}", timestamp=end - 1, activation_id=sender, stamp_time=end + ahead)
            for ahead in (0, 1, 5_000, 55_000)
        )
        for at in (start - 2000, start, end - 2000, end):
            population.bad_events += build_bad_events(
                kind, f"rejected at {at}", at, sender, ["stamp 'stamp'", "source None"]
            )
    return population


def build_deployment(data: Path, server: RudeServer, instance: dg.DagsterInstance, **options: Any) -> Deployment:
    deployment = Deployment(data, server, instance, NP6_TIMEZONE=PARIS, NP6_CONTACT_DATA="keep")
    deployment.np6 = build_resource(server, **options)
    return deployment


# --- closed days ---------------------------------------------------------------------------------------------------


def test_closed_day_has_all_events(
    server: RudeServer, account: Population, instance: dg.DagsterInstance, tmp_path: Path
):
    server.serve(account)
    server.fail_randomly(0.6, seed=3, kinds=CUTS, streak=4)  # before, inside and beyond the window
    deployment = build_deployment(tmp_path / "data", server, instance)
    deployment.materialize(KINDS, DAY)
    assert {request.outcome for request in server.list_requests()} > {"ok"}
    assert not [request for request in server.list_requests() if request.outcome == "400"]
    deployment.assert_stored(account, KINDS, DAY, DAY, "keep")


@pytest.mark.slow
def test_range_has_all_events(server: RudeServer, account: Population, instance: dg.DagsterInstance, tmp_path: Path):
    server.serve(account)
    server.fail_randomly(0.4, seed=4, kinds=CUTS)
    deployment = build_deployment(tmp_path / "data", server, instance, max_concurrent_requests=1)
    deployment.materialize(KINDS, FIRST, LAST)
    deployment.assert_stored(account, KINDS, FIRST, LAST, "keep")
    stored = read_files(deployment.data)

    server.fail_randomly(0)
    before = len(server.list_requests())
    deployment.materialize(KINDS, FIRST, LAST)
    assert read_files(deployment.data) == stored
    requests = server.list_requests()[before:]
    # the last days of hits share a request
    assert len([request for request in requests if request.path == HITS]) < len(list_days(FIRST, LAST))
    if server.end_mode in ("ignored", "by activation"):
        for kind in KINDS:
            assert sum(deployment.metadata(kind, day)["events_outside_window"] for day in list_days(FIRST, LAST)) > 5


# --- an open day ---------------------------------------------------------------------------------------------------


def select_between(population: Population, start: datetime, end: datetime) -> Population:
    """Select the events of this time, to serve fewer."""
    first, last = (round(moment.timestamp() * 1000) for moment in (start, end))
    feeds = {
        kind: [one for one in population.feed(kind) if first <= (read_event_time(one) or 0) < last] for kind in KINDS
    }
    return replace(population, **feeds)


@pytest.mark.slow
def test_open_day_has_all_events_until_it_closes(
    server: RudeServer,
    account: Population,
    instance: dg.DagsterInstance,
    tmp_path: Path,
):
    start, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in compute_day_bounds(DAY, PARIS))
    clock = Clock(start)
    data = tmp_path / "data"
    deployment = Deployment(data, server, instance, clock, NP6_TIMEZONE=PARIS, NP6_CONTACT_DATA="keep")
    hour = timedelta(hours=1)
    around = select_between(account, start - 3 * hour, end + 26 * hour)
    ends: list[set[str | None]] = []
    # through the day, right after it, when it can be closed, and again when its end is old enough to be sent
    moments = (start + 12 * hour, end + hour / 2, end + hour, end + 25 * hour)
    for clock.now, share in zip(moments, (0.5, 0, 0.5, 0.5), strict=True):
        published = select_published(around, round(clock.now.timestamp() * 1000))
        server.serve(published)
        server.fail_randomly(share, seed=5, kinds=CUTS)
        before = len(server.list_requests())
        deployment.materialize(KINDS, DAY)
        requests = [request for request in server.list_requests()[before:] if request.path != "/notifications"]
        deployment.assert_stored(published, KINDS, DAY, DAY, "keep")
        assert not [request for request in requests if request.outcome == "400"]
        ends.append({request.query.get("reactivityEnd") or request.query.get("end") for request in requests})
    assert ends[:3] == [{None}] * 3
    assert None not in ends[3]
    assert deployment.fetched_until("hits", DAY) == end


# --- cut and unsorted answers --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_download_cut_beyond_its_window_makes_progress(
    sorting_server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The end is ignored, and long answers are cut: the client resumes each from the last event."""
    end = compute_day_bounds(DAY, PARIS)[1]
    population = Population(
        hits=[build_event("hits", id=f"hit {at}", timestamp=end + at * 1000) for at in range(-40, 300)]
    )
    sorting_server.serve(population)
    sorting_server.end_mode = "ignored"

    def choose_act(request: Request) -> Act | None:
        is_long = request.query.get("sort") == "asc" and len(sorting_server.select_items(request)) > 30
        return Act("cut chunked", at=0.5) if is_long else None

    monkeypatch.setattr(sorting_server, "choose_act", choose_act)
    deployment = build_deployment(tmp_path / "data", sorting_server, instance, max_retries=2, step_retries=0)
    deployment.materialize("hits", DAY)
    deployment.assert_stored(population, ["hits"], DAY, DAY, "keep")
    assert 300 <= deployment.metadata("hits", DAY)["events_outside_window"] < 310


@pytest.mark.slow
@pytest.mark.parametrize("end", ["half open", "ignored"])
def test_rejected_event_without_a_time_is_quarantined(
    sorting_server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, end: str
):  # once lost if the event before it in an unsorted answer was outside the window
    start, first, last = compute_day_bounds(DAY, PARIS)[0], DAY, DAY + timedelta(days=1)
    for seed in range(3):
        population = Population(bad_events=build_bad_events("hits", seed, start + 5000, 156, ["timestamp MISSING"]))
        population.hits = [
            build_event("hits", id=f"hit {at}", timestamp=start + at * 23 * HOUR_MS // 3) for at in range(9)
        ]
        sorting_server.seed, sorting_server.sorts, sorting_server.end_mode = seed, False, end
        sorting_server.serve(population)
        deployment = build_deployment(tmp_path / f"{seed}", sorting_server, instance)
        for day in list_days(first, last):
            deployment.materialize("hits", day)
        assert sum(len(deployment.quarantine("hits", day)) for day in list_days(first, last)) >= 1, seed
