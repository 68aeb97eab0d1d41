"""Activations of notifications that the API hides, deletes, refuses or breaks on: no send is lost, none stops a day."""

from __future__ import annotations

import json
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


def account(ids: tuple[int, ...] = IDS, days: int = 4) -> Population:
    made = Population(notifications=[{"id": id_, "name": f"Notification {id_}"} for id_ in ids])
    for ahead in range(days):
        start = compute_day_bounds(FIRST + ahead * DAY, "UTC")[0]
        for id_ in ids:
            made.activations += [
                build_event(
                    "activations", id=f"{id_} {ahead} {at}", timestamp=start + 3 * at * HOUR_MS, activation_id=id_
                )
                for at in range(SENDS)
            ]
    return made


class Time:
    """A deployment whose clock, and the API's, is moved by hand."""

    def __init__(self, data: Path, server: RudeServer, instance: dg.DagsterInstance, made: Population) -> None:
        self.now = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
        self.server = server
        self.made = made
        self.deployment = Deployment(data, server, instance, lambda: self.now)
        self.deployment.np6 = build_resource(server, max_retries=1, step_retries=0)

    def fetch(self, hours: float, day: date = FIRST, **options: object) -> list[str]:
        """Fetch a day's activations so many hours after its start; the paths that were asked."""
        self.now = datetime(day.year, day.month, day.day, tzinfo=UTC) + hours * HOUR
        there = select_published(self.made, round(self.now.timestamp() * 1000))
        self.server.serve(there)
        before = len(self.server.list_requests())
        self.deployment.materialize("activations", day, **options)
        return sorted({request.path for request in self.server.list_requests()[before:]} - {"/notifications"})

    def ids(self, day: date = FIRST) -> dict[int, int]:
        """How many sends of each notification a day has."""
        rows = self.deployment.rows("activations", day)
        return {id_: sum(row["activation_id"] == id_ for row in rows) for id_ in IDS}

    def missing(self, day: date = FIRST) -> list[int]:
        return self.deployment.missing_ids(day)

    def is_closed(self, day: date = FIRST) -> bool:
        end = datetime.fromtimestamp(compute_day_bounds(day, "UTC")[1] / 1000, UTC)
        return self.deployment.fetched_until("activations", day) == end


@pytest.fixture
def time(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Time:
    return Time(tmp_path / "data", server, instance, account())


def path(id_: int) -> str:
    return f"/notifications/{id_}/events/activations"


ALL = dict.fromkeys(IDS, SENDS)
MISSING_ONLY = {"ops": {"activations": {"config": {"missing_only": True}}}}


def test_unlisted_notification_is_still_requested(time: Time):
    time.fetch(12)
    time.server.unlisted = {102}
    assert path(102) in time.fetch(20)
    time.fetch(25)
    assert time.ids() == ALL
    assert time.is_closed()


@pytest.mark.parametrize("status", ["404", pytest.param("410", marks=pytest.mark.slow)])
def test_deleted_notification_keeps_its_rows_and_is_not_requested_again(time: Time, status: str):
    time.fetch(12)
    time.server.unlisted = {102}
    time.server.script(path(102), *[status] * 9)
    assert path(102) in time.fetch(20)
    assert path(102) not in time.fetch(25)
    assert time.ids() == {101: SENDS, 102: 4, 103: SENDS}
    assert time.is_closed()
    assert time.missing() == [102]
    assert json.loads((time.deployment.data / "np6.json").read_text())["gone"] == [102]
    assert path(102) not in time.fetch(12, FIRST + DAY)


@pytest.mark.slow
def test_notification_named_by_later_reactions_is_requested_for_closed_days(time: Time):
    time.server.unlisted = {103}
    time.made.hits = [
        build_event("hits", id="late", timestamp=compute_day_bounds(FIRST, "UTC")[1] + HOUR_MS, activation_id=103)
    ]
    time.fetch(25)
    assert time.ids() == {101: SENDS, 102: SENDS, 103: 0}
    time.fetch(12, FIRST + DAY)
    time.deployment.materialize(["hits", "notifications"], FIRST + DAY)
    assert path(103) in time.fetch(40)
    assert time.ids() == ALL


def test_notification_refused_for_a_week_is_requested_again_from_the_days_start(time: Time):
    time.server.script(path(102), *["403"] * 2)
    time.fetch(12)
    time.fetch(25)
    assert time.ids() == {101: SENDS, 102: 0, 103: SENDS}
    assert time.is_closed()
    assert time.missing() == [102]
    time.fetch(7 * 24)
    assert time.ids() == ALL
    assert time.missing() == []


@pytest.mark.slow
def test_notification_refused_once_is_requested_again_from_the_days_start(time: Time):
    time.fetch(7)
    time.server.script(path(102), "403")
    time.fetch(13)
    assert time.missing() == [102]
    time.fetch(20)
    assert time.ids() == dict.fromkeys(IDS, 7)
    assert time.missing() == []


def test_missing_only_requests_only_missing_notifications(time: Time):
    time.server.script(path(102), *["403"] * 2)
    for day in (FIRST, FIRST + DAY):
        time.fetch(26, day)
    assert [time.missing(day) for day in (FIRST, FIRST + DAY)] == [[102], [102]]
    time.server.script(path(102), "403")
    assert time.fetch(70, run_config=MISSING_ONLY) == [path(102)]
    assert time.missing() == [102]
    assert time.is_closed()
    assert time.deployment.metadata("activations", FIRST)["events_kept"] == 0
    assert time.fetch(80, run_config=MISSING_ONLY) == [path(102)]
    assert (time.ids(), time.missing()) == (ALL, [])
    assert time.missing(FIRST + DAY) == [102]
    assert time.fetch(90, run_config=MISSING_ONLY) == []
    time.server.script(path(102), *["403"] * 3)  # for both days together, and for each
    time.deployment.materialize("activations", FIRST, FIRST + DAY, run_config=MISSING_ONLY)
    assert [time.missing(day) for day in (FIRST, FIRST + DAY)] == [[], [102]]


def test_missing_only_fetches_all_of_an_open_day(time: Time):
    time.server.script(path(102), "403")
    time.fetch(12)
    time.fetch(20, run_config=MISSING_ONLY)
    assert time.ids() == dict.fromkeys(IDS, 7)


def test_closed_day_stays_complete_where_a_notification_fails_later(time: Time):
    time.fetch(26)
    before = time.deployment.path("activations", FIRST).read_bytes()
    time.server.script(path(102), *["500"] * 9)
    time.fetch(50)
    assert time.deployment.path("activations", FIRST).read_bytes() == before
    assert time.deployment.metadata("activations", FIRST)["events_kept"] == 0


def test_replacing_a_day_fails_where_a_notification_does_not_answer(time: Time):
    time.fetch(26)
    time.server.script(path(102), "403")
    with pytest.raises(dg.Failure, match="403"):
        time.fetch(50, run_config={"ops": {"activations": {"config": {"replace": True}}}})
    assert time.ids() == ALL


def test_notification_that_breaks_for_ever_stops_no_day(time: Time):
    time.server.script(path(102), *["500"] * 99)
    for day in (FIRST, FIRST + DAY):
        time.fetch(12, day)
        time.fetch(25, day)
        assert time.ids(day) == {101: SENDS, 102: 0, 103: SENDS}
        assert time.is_closed(day)
        assert time.missing(day) == [102]
    assert time.deployment.metadata("activations", FIRST)["notifications_missing"] == [102]


@pytest.mark.parametrize("status", ["403", pytest.param("500", marks=pytest.mark.slow), "404"])
@pytest.mark.parametrize("has_rows", [True, False])
def test_day_of_which_no_notification_answers_fails_and_does_not_close(time: Time, status: str, *, has_rows: bool):
    if has_rows:
        time.fetch(12)
    for id_ in IDS:
        time.server.script(path(id_), *[status] * 9)
    with pytest.raises(Exception, match=status):
        time.fetch(25)
    assert time.deployment.path("activations", FIRST).exists() == has_rows
    if has_rows:
        assert not time.is_closed()
        assert time.ids() == dict.fromkeys(IDS, 4)


def test_address_that_answers_404_to_everything_closes_no_day(time: Time):
    time.fetch(12)
    time.server.script("/notifications", *["404"] * 9)
    with pytest.raises(dg.Failure, match="404"):
        time.fetch(25)
    assert not time.is_closed()


def test_day_whose_notifications_are_all_deleted_closes_with_its_rows(time: Time):
    time.fetch(12)
    time.server.unlisted = set(IDS)
    for id_ in IDS:
        time.server.script(path(id_), *["404"] * 9)
    time.fetch(25)
    assert time.ids() == dict.fromkeys(IDS, 4)
    assert time.is_closed()


def test_new_notification_is_fetched_from_the_days_start(time: Time):
    time.server.unlisted = {103}
    time.fetch(12)
    time.deployment.materialize("notifications")
    assert time.ids() == {101: 4, 102: 4, 103: 0}
    time.server.unlisted = set()
    time.fetch(20)
    assert time.ids() == dict.fromkeys(IDS, 7)
    time.fetch(25)
    assert time.ids() == ALL


@pytest.mark.slow
def test_refresh_requests_active_notifications_and_closing_requests_all_once(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    made = account()
    made.notifications += [{"id": id_} for id_ in range(200, 240)]
    time = Time(tmp_path / "data", server, instance, made)
    assert len(time.fetch(12)) == 43  # nothing is known
    assert len(time.fetch(13)) == 3  # also where `notifications` was never materialized
    time.deployment.materialize("notifications")
    assert len(time.fetch(25)) == 43
    assert len(time.fetch(10, FIRST + DAY)) == 3
    assert time.deployment.metadata("activations", FIRST + DAY)["notifications_asked"] == {"sent in the week before": 3}
    assert len(time.fetch(30, run_config={"ops": {"activations": {"config": {"full_refresh": True}}}})) == 3
    assert time.ids() == ALL


@pytest.mark.slow
def test_account_of_5000_notifications_costs_5000_requests_when_a_day_closes_and_30_a_refresh(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    active = tuple(range(101, 131))
    made = account(active, days=1)
    made.notifications += [{"id": id_} for id_ in range(1000, 5970)]
    restarted = compute_day_bounds(FIRST + DAY, "UTC")[0] + 10 * HOUR_MS
    for id_ in active:
        made.activations.append(build_event("activations", id=f"{id_}", timestamp=restarted, activation_id=id_))
    made.activations.append(build_event("activations", id="again", timestamp=restarted, activation_id=1000))
    time = Time(tmp_path / "data", server, instance, made)
    assert len(time.fetch(25)) == 5000
    time.deployment.materialize("notifications")
    before = len(server.list_requests())
    for hour in range(4, 25, 4):
        time.fetch(hour, FIRST + DAY)
    assert len(server.list_requests()) - before == 6 * (30 + 1)  # and the list of notifications
    # one that was silent sends again: it is seen when the day closes, at the latest
    assert len(time.deployment.rows("activations", FIRST + DAY)) == 30
    assert len(time.fetch(25, FIRST + DAY)) == 5000
    assert len(time.deployment.rows("activations", FIRST + DAY)) == 31
    assert len(server.list_requests()) - before == 6 * 31 + 5001
    # and by every refresh from then on
    assert len(time.fetch(8, FIRST + 2 * DAY)) == 31
    # days that close together share the requests
    before = len(server.list_requests())
    time.now += 3 * DAY
    time.deployment.materialize("activations", FIRST + 2 * DAY, FIRST + 3 * DAY)
    assert len(server.list_requests()) - before == 5001
