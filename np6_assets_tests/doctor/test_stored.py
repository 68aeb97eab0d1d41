"""Run the doctor on the files of a data folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.doctor.examination import Examination
from np6_assets.doctor.judgements import examine
from np6_assets.doctor.stored import judge_files
from np6_assets.settings import Settings
from np6_assets_tests.support.deployment import Deployment, build_resource
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer

DAY = date(2026, 3, 20)
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[RudeServer]:
    start = compute_day_bounds(DAY, "UTC")[0]
    population = Population(
        notifications=[{"id": 101}, {"id": 102}],
        hits=[build_event("hits", id="h", timestamp=start)],
        activations=[build_event("activations", id="a", timestamp=start, activation_id=101)],
    )
    with RudeServer(population, seed=1) as running:
        yield running


@pytest.fixture
def deployment(tmp_path: Path, server: RudeServer) -> Iterator[Deployment]:
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(tmp_path / "data", server, instance, lambda: NOON)
        deployment.np6 = build_resource(server, max_retries=0, step_retries=0)
        yield deployment


def run_doctor(deployment: Deployment, now: datetime, **environment: str) -> dict[str, Diagnosis]:
    settings = Settings.from_environment(
        {"NP6_DATA_DIR": str(deployment.data), "NP6_BASE_URL": "https://api.example.com", **environment}
    )
    return {one.subject: one for one in judge_files(settings, now)}


def test_missing_folder_is_ok(deployment: Deployment):
    assert {one.verdict for one in run_doctor(deployment, NOON).values()} == {"ok"}


def test_stored_days_names_a_day_that_can_be_closed(deployment: Deployment):
    deployment.materialize("hits", DAY)
    assert run_doctor(deployment, NOON)["stored days"].verdict == "ok"
    found = run_doctor(deployment, NOON + timedelta(days=3))["stored days"]
    assert found.verdict == "warning"
    assert found.values == {"open": {"hits": [str(DAY)]}}
    assert "Materialize" in found.advice


def test_missing_sends_names_the_notification_and_day(deployment: Deployment, server: RudeServer):
    server.script("/notifications/102/events/activations", "403")
    deployment.materialize("activations", DAY)
    found = run_doctor(deployment, NOON)["missing sends"]
    assert found.verdict == "warning"
    assert found.values == {"missing": {f"activations {DAY}": [102]}}


def test_deleted_sends_names_the_notification_and_day(deployment: Deployment, server: RudeServer):
    deployment.materialize("activations", DAY)
    server.unlisted = {101}
    server.script("/notifications/101/events/activations", "404")
    deployment.materialize("activations", DAY)
    found = run_doctor(deployment, NOON)
    assert found["deleted sends"].values == {"deleted": {f"activations {DAY}": [101]}}
    assert "missing sends" not in found


@pytest.mark.slow
def test_kept_events_are_named_with_advice(server: RudeServer, tmp_path: Path):
    home = tmp_path / "dagster"
    home.mkdir()
    environment = {"NP6_DATA_DIR": str(tmp_path / "data"), "DAGSTER_HOME": str(home)}

    def examine_kept_events() -> list[Diagnosis]:
        found = examine(Examination(environment, now=lambda: NOON + timedelta(days=1)))
        return [one for one in found if one.subject == "kept events"]

    assert examine_kept_events() == []
    assert list(home.iterdir()) == []
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        deployed = Deployment(tmp_path / "data", server, instance, lambda: NOON)
        deployed.materialize("hits", DAY)
        assert [one.verdict for one in examine_kept_events()] == ["ok"]
        server.serve(Population(notifications=[{"id": 101}]))
        deployed.materialize("hits", DAY, run_config={"ops": {"hits": {"config": {"full_refresh": True}}}})
    [found] = examine_kept_events()
    assert found.verdict == "warning"
    assert found.values == {"kept": {f"hits {DAY}": 1}}
    assert "Materialize these days again" in found.advice
    assert "replace: true" in found.advice


def test_identity_of_another_time_zone_is_wrong(deployment: Deployment):
    deployment.materialize("hits", DAY)
    assert json.loads((deployment.data / "np6.json").read_text())["timezone"] == "UTC"
    found = run_doctor(deployment, NOON, NP6_TIMEZONE="Europe/Paris")["np6.json"]
    assert found.verdict == "wrong"
    assert "UTC" in found.text
    assert "Europe/Paris" in found.text
