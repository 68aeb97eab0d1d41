"""Test which runs may write into a data folder, and the identity that np6.json records."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets_tests.support.deployment import Deployment
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer

PARIS = "Europe/Paris"
DAY = date(2026, 3, 20)


def build_hits(agency: str | None, count: int, *, customer: str = "028", first: int = 0) -> list[dict[str, Any]]:
    start = compute_day_bounds(DAY, PARIS)[0]
    events = [
        build_event("hits", id=f"{agency} {at}", timestamp=start + at * 1000) for at in range(first, first + count)
    ]
    for one in events:
        one["identity"]["agency"] = agency
        one["identity"]["customer"] = customer
    return events


def build_deployment(data: Path, server: RudeServer, instance: dg.DagsterInstance, **environment: str) -> Deployment:
    return Deployment(data, server, instance, NP6_TIMEZONE=PARIS, NP6_CONTACT_DATA="keep", **environment)


def read_identity(deployment: Deployment) -> dict[str, Any]:
    return json.loads((deployment.data / "np6.json").read_text())


def read_refusal(deployment: Deployment, asset: str = "hits", day: date | None = DAY) -> str:
    with pytest.raises(dg.Failure) as refused:
        deployment.materialize(asset, day)
    return str(refused.value.description)


def test_first_run_writes_the_identity(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path):
    server.serve(
        Population(hits=[*build_hits("DEMO", 3), *build_hits("DEMO", 2, customer="029", first=3), *build_hits(None, 1)])
    )
    deployment = build_deployment(tmp_path / "data", server, instance)
    deployment.materialize("hits", DAY)
    assert read_identity(deployment) == {
        "source": "api",
        "timezone": PARIS,
        "asset_key_prefix": None,
        "address": server.url,
        "agencies": {"DEMO": ["028", "029"]},
        "gone": [],
        "has_tombstones": False,
        "contact": "keep",
    }
    assert len(deployment.rows("hits", DAY)) == 6


def test_one_of_two_first_runs_owns_the_folder(server: RudeServer, tmp_path: Path):
    server.serve(Population(hits=build_hits("DEMO", 3)))

    def try_first_run(zone: str) -> str:
        """Run, and return the zone or the refusal."""
        with dg.DagsterInstance.ephemeral() as instance:
            deployment = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=zone)
            try:
                deployment.materialize("hits", DAY)
            except dg.Failure as refused:
                return str(refused.description)
        return zone

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(try_first_run, (PARIS, "UTC")))
    [winner] = {PARIS, "UTC"} & set(found)
    [read_refusal] = set(found) - {winner}
    assert "set NP6_DATA_DIR to another folder" in read_refusal
    assert json.loads((tmp_path / "data" / "np6.json").read_text())["timezone"] == winner
    assert len(list((tmp_path / "data").rglob("*.parquet"))) == 1


def test_other_source_or_time_zone_is_refused_in_one_line(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    server.serve(Population(hits=build_hits("DEMO", 3)))
    deployment = build_deployment(tmp_path / "data", server, instance)
    deployment.materialize("hits", DAY)
    request_count = len(server.list_requests())
    for environment, sides, asset, day in (
        ({"NP6_BASE_URL": "sandbox://"}, ("the API's events", "the simulated account's"), "hits", DAY),
        ({"NP6_TIMEZONE": "UTC"}, (PARIS, "UTC"), "notifications", None),
    ):
        other = Deployment(deployment.data, server, instance, **{"NP6_TIMEZONE": PARIS, **environment})
        line = read_refusal(other, asset, day)
        assert all(text in line for text in ("np6.json", *sides))
        assert "\n" not in line
    assert len(server.list_requests()) == request_count


def test_events_of_another_agency_are_refused_or_go_to_quarantine(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    server.serve(Population(hits=build_hits("DEMO", 3)))
    deployment = build_deployment(tmp_path / "data", server, instance)
    deployment.materialize("hits", DAY)
    before = deployment.rows("hits", DAY)
    # an answer of eleven such events and nothing else is that of another account, one of ten may be a mistake
    server.serve(Population(hits=build_hits("OTHER", 11)))
    line = read_refusal(deployment)
    assert "OTHER" in line
    assert "NP6_API_KEY" in line
    assert deployment.quarantine("hits", DAY) == []
    for hits, rejected in ((build_hits("OTHER", 10), 10), ([*build_hits("DEMO", 3), *build_hits("OTHER", 30)], 30)):
        server.serve(Population(hits=hits))
        deployment.materialize("hits", DAY)
        assert deployment.rows("hits", DAY) == before
        reasons = [row["reason"] for row in deployment.quarantine("hits", DAY)]
        assert reasons == ["identity.agency is not one of those in np6.json"] * rejected

    identity = read_identity(deployment)
    identity["agencies"]["OTHER"] = []
    (deployment.data / "np6.json").write_text(json.dumps(identity))
    deployment.materialize("hits", DAY)
    assert len(deployment.rows("hits", DAY)) == 33
    assert deployment.quarantine("hits", DAY) == []
    assert read_identity(deployment)["agencies"] == {"DEMO": ["028"], "OTHER": ["028"]}


def test_folder_of_version_0_1_gets_the_identity_of_its_files(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    server.serve(Population(hits=build_hits("DEMO", 3)))
    deployment = build_deployment(tmp_path / "data", server, instance)
    deployment.materialize("hits", DAY)
    (deployment.data / "np6.json").unlink()
    server.serve(Population())
    deployment.materialize("optouts", DAY)
    assert read_identity(deployment)["agencies"] == {"DEMO": ["028"]}

    (deployment.data / "np6.json").unlink()
    line = read_refusal(Deployment(deployment.data, server, instance, NP6_TIMEZONE="UTC"))
    assert PARIS in line
    assert read_identity(deployment)["timezone"] == PARIS


def test_replace_removes_events_that_the_api_no_longer_serves(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    kept = build_hits("DEMO", 2)
    server.serve(
        Population(hits=[*kept, *build_hits("DEMO", 3, first=2)], notifications=[{"id": 156, "name": "Spring"}])
    )
    deployment = build_deployment(tmp_path / "data", server, instance)
    deployment.materialize(["hits", "notifications"], DAY)
    server.serve(Population(hits=kept, notifications=[{"id": 157, "name": "Summer"}]))

    deployment.materialize(["hits", "notifications"], DAY)
    assert len(deployment.rows("hits", DAY)) == 5
    table = pq.read_table(deployment.data / "notifications" / "part-0.parquet").to_pylist()
    assert [(row["activation_id"], row["name"], row["unlisted_since"] is None) for row in table] == [
        (156, "Spring", False),
        (157, "Summer", True),
    ]

    config = {"ops": {name: {"config": {"replace": True}} for name in ("hits", "notifications")}}
    deployment.materialize(["hits", "notifications"], DAY, run_config=config)
    assert [row["event_id"] for row in deployment.rows("hits", DAY)] == ["DEMO 0", "DEMO 1"]
    table = pq.read_table(deployment.data / "notifications" / "part-0.parquet").to_pylist()
    assert [row["activation_id"] for row in table] == [157]
