"""Fetch activations of notifications that are hidden, deleted, refused or broken: no send is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets_tests.support.deployment import Deployment, build_resource, select_published
from np6_assets_tests.support.events import HOUR_MS, Population, build_event
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer

FIRST = date(2026, 3, 20)
IDS = (101, 102, 103)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SENDS = 8
"""Of each notification and day, three hours apart."""


def build_account(ids: tuple[int, ...] = IDS, days: int = 4) -> Population:
    population = Population(notifications=[{"id": id_, "name": f"Notification {id_}"} for id_ in ids])
    for ahead in range(days):
        start = compute_day_bounds(FIRST + ahead * DAY, "UTC")[0]
        for id_ in ids:
            population.activations += [
                build_event(
                    "activations", id=f"{id_} {ahead} {at}", timestamp=start + 3 * at * HOUR_MS, activation_id=id_
                )
                for at in range(SENDS)
            ]
    return population


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


class ClockedDeployment:
    """A deployment and a server with one clock, which tests set."""

    def __init__(self, data: Path, server: RudeServer, instance: dg.DagsterInstance, population: Population) -> None:
        self.now = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
        self.server = server
        self.population = population
        self.deployment = Deployment(data, server, instance, lambda: self.now)
        self.deployment.np6 = build_resource(server, max_retries=1, step_retries=0)

    def fetch(self, hours: float, day: date = FIRST, **options: object) -> list[str]:
        """Fetch a day's activations `hours` after its start, and return the requested paths."""
        self.now = datetime(day.year, day.month, day.day, tzinfo=UTC) + hours * HOUR
        published = select_published(self.population, round(self.now.timestamp() * 1000))
        self.server.serve(published)
        before = len(self.server.list_requests())
        self.deployment.materialize("activations", day, **options)
        return sorted({request.path for request in self.server.list_requests()[before:]} - {"/notifications"})

    def count_sends(self, day: date = FIRST) -> dict[int, int]:
        """Count the stored sends of each notification on a day."""
        rows = self.deployment.rows("activations", day)
        return {id_: sum(row["activation_id"] == id_ for row in rows) for id_ in IDS}

    def list_missing(self, day: date = FIRST) -> list[int]:
        return self.deployment.missing_ids(day)

    def refuse(self, id_: int, *statuses: str) -> None:
        """Answer the next requests for a notification with these statuses."""
        self.server.script(build_path(id_), *statuses)

    def is_closed(self, day: date = FIRST) -> bool:
        end = datetime.fromtimestamp(compute_day_bounds(day, "UTC")[1] / 1000, UTC)
        return self.deployment.fetched_until("activations", day) == end


@pytest.fixture
def clocked(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> ClockedDeployment:
    return ClockedDeployment(tmp_path / "data", server, instance, build_account())


def build_path(id_: int) -> str:
    return f"/notifications/{id_}/events/activations"


ALL = dict.fromkeys(IDS, SENDS)
MISSING_ONLY = {"ops": {"activations": {"config": {"missing_only": True}}}}


# --- hidden and deleted --------------------------------------------------------------------------------------------


def test_unlisted_notification_is_still_requested(clocked: ClockedDeployment):
    clocked.fetch(12)
    clocked.server.unlisted = {102}
    assert build_path(102) in clocked.fetch(20)
    clocked.fetch(25)
    assert clocked.count_sends() == ALL
    assert clocked.is_closed()


def test_deleted_notification_keeps_its_rows_and_is_not_requested_again(clocked: ClockedDeployment):
    clocked.fetch(12)
    clocked.server.unlisted = {102}
    clocked.refuse(102, "410")
    assert build_path(102) in clocked.fetch(20)
    assert build_path(102) not in clocked.fetch(25)
    assert clocked.count_sends() == {101: SENDS, 102: 4, 103: SENDS}
    assert clocked.is_closed()
    assert clocked.list_missing() == [102]
    assert json.loads((clocked.deployment.data / "np6.json").read_text())["gone"] == [102]
    assert build_path(102) not in clocked.fetch(12, FIRST + DAY)


def test_day_of_deleted_notifications_closes_with_its_rows(clocked: ClockedDeployment):
    clocked.fetch(12)
    clocked.server.unlisted = set(IDS)
    for id_ in IDS:
        clocked.refuse(id_, "404")
    clocked.fetch(25)
    assert clocked.count_sends() == dict.fromkeys(IDS, 4)
    assert clocked.is_closed()


@pytest.mark.slow
def test_notification_named_by_later_reactions_is_requested_for_closed_days(clocked: ClockedDeployment):
    clocked.server.unlisted = {103}
    clocked.population.hits = [
        build_event("hits", id="late", timestamp=compute_day_bounds(FIRST, "UTC")[1] + HOUR_MS, activation_id=103)
    ]
    clocked.fetch(25)
    assert clocked.count_sends() == {101: SENDS, 102: SENDS, 103: 0}
    clocked.fetch(12, FIRST + DAY)
    clocked.deployment.materialize(["hits", "notifications"], FIRST + DAY)
    assert build_path(103) in clocked.fetch(40)
    assert clocked.count_sends() == ALL


def test_new_notification_is_fetched_from_the_days_start(clocked: ClockedDeployment):
    clocked.server.unlisted = {103}
    clocked.fetch(12)
    clocked.deployment.materialize("notifications")
    assert clocked.count_sends() == {101: 4, 102: 4, 103: 0}
    clocked.server.unlisted = set()
    clocked.fetch(20)
    assert clocked.count_sends() == dict.fromkeys(IDS, 7)
    clocked.fetch(25)
    assert clocked.count_sends() == ALL


# --- refused and broken --------------------------------------------------------------------------------------------


def test_notification_without_an_answer_stops_no_day_and_is_fetched_later(clocked: ClockedDeployment):
    clocked.refuse(102, "403", "500", "500")  # refused, then broken in both attempts
    clocked.fetch(12)
    clocked.fetch(25)
    assert clocked.count_sends() == {101: SENDS, 102: 0, 103: SENDS}
    assert clocked.is_closed()
    assert clocked.list_missing() == [102]
    assert clocked.deployment.metadata("activations", FIRST)["notifications_missing"] == [102]
    clocked.fetch(7 * 24)
    assert clocked.count_sends() == ALL  # from the day's start
    assert clocked.list_missing() == []


def test_missing_only_requests_only_missing_notifications(clocked: ClockedDeployment):
    clocked.refuse(102, *["403"] * 2)
    for day in (FIRST, FIRST + DAY):
        clocked.fetch(26, day)
        assert clocked.list_missing(day) == [102]
    clocked.refuse(102, "403")
    assert clocked.fetch(70, run_config=MISSING_ONLY) == [build_path(102)]
    assert clocked.list_missing() == [102]
    assert clocked.is_closed()
    assert clocked.deployment.metadata("activations", FIRST)["events_kept"] == 0
    assert clocked.fetch(80, run_config=MISSING_ONLY) == [build_path(102)]
    assert (clocked.count_sends(), clocked.list_missing()) == (ALL, [])
    assert clocked.list_missing(FIRST + DAY) == [102]
    assert clocked.fetch(90, run_config=MISSING_ONLY) == []
    clocked.refuse(102, *["403"] * 3)  # for both days together, and for each
    clocked.deployment.materialize("activations", FIRST, FIRST + DAY, run_config=MISSING_ONLY)
    assert [clocked.list_missing(day) for day in (FIRST, FIRST + DAY)] == [[], [102]]


def test_missing_only_fetches_all_of_an_open_day(clocked: ClockedDeployment):
    clocked.fetch(7)
    clocked.refuse(102, "403")
    clocked.fetch(12)
    assert clocked.list_missing() == [102]
    clocked.fetch(20, run_config=MISSING_ONLY)
    assert clocked.count_sends() == dict.fromkeys(IDS, 7)
    assert clocked.list_missing() == []


def test_closed_day_stays_complete_if_a_notification_fails_later(clocked: ClockedDeployment):
    clocked.fetch(26)
    before = clocked.deployment.path("activations", FIRST).read_bytes()
    clocked.refuse(102, *["500"] * 2)
    clocked.fetch(50)
    assert clocked.deployment.metadata("activations", FIRST)["events_kept"] == 0
    clocked.refuse(102, "403")
    with pytest.raises(dg.Failure, match="403"):
        clocked.fetch(50, run_config={"ops": {"activations": {"config": {"replace": True}}}})
    assert clocked.deployment.path("activations", FIRST).read_bytes() == before


@pytest.mark.parametrize("has_rows", [True, False])
def test_day_without_any_answer_fails_and_stays_open(clocked: ClockedDeployment, *, has_rows: bool):
    if has_rows:
        clocked.fetch(12)
    # each notification refused or not found; or the list
    for path, status in (("/notifications/1", "403"), ("/notifications/1", "404"), ("/notifications", "404")):
        clocked.server.script_always(path, status)
        with pytest.raises(Exception, match=status):
            clocked.fetch(25)
        clocked.server.reset_faults()
        assert clocked.deployment.path("activations", FIRST).exists() == has_rows
        if has_rows:
            assert not clocked.is_closed()
            assert clocked.count_sends() == dict.fromkeys(IDS, 4)


# --- active and silent ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_refresh_requests_active_notifications_alone(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    population = build_account(days=1)
    population.notifications += [{"id": id_} for id_ in range(200, 240)]
    restarted = compute_day_bounds(FIRST + DAY, "UTC")[0] + 10 * HOUR_MS
    population.activations += [
        build_event("activations", id=f"again {id_}", timestamp=restarted, activation_id=id_) for id_ in (*IDS, 200)
    ]
    clocked = ClockedDeployment(tmp_path / "data", server, instance, population)
    assert len(clocked.fetch(12)) == 43  # nothing is known
    assert len(clocked.fetch(13)) == 3  # also where `notifications` was never materialized
    clocked.deployment.materialize("notifications")
    assert len(clocked.fetch(25)) == 43
    assert len(clocked.fetch(30, run_config={"ops": {"activations": {"config": {"full_refresh": True}}}})) == 3
    assert clocked.count_sends() == ALL
    second = FIRST + DAY
    assert len(clocked.fetch(4, second)) == 3
    asked = clocked.deployment.metadata("activations", second)["notifications_asked"]
    assert asked == {"sent in the week before": 3}
    assert len(clocked.fetch(12, second)) == 3
    # one that was silent sends again: it is seen when the day closes, at the latest
    assert len(clocked.deployment.rows("activations", second)) == 3
    assert len(clocked.fetch(25, second)) == 43
    assert len(clocked.deployment.rows("activations", second)) == 4
    # and by every refresh from then on
    assert len(clocked.fetch(8, FIRST + 2 * DAY)) == 4
    # days that close together share the requests
    before = len(server.list_requests())
    clocked.now += 3 * DAY
    clocked.deployment.materialize("activations", FIRST + 2 * DAY, FIRST + 3 * DAY)
    assert len(server.list_requests()) - before == 1 + 43
