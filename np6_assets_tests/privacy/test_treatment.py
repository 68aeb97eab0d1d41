"""Treat stored contact data after a change of settings, without requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets.contact.policy import ContactPolicy
from np6_assets_tests.support.deployment import PSEUDONYM_KEY, Deployment, read_files
from np6_assets_tests.support.events import MISSING, BadEvent, Population, build_event
from np6_assets_tests.support.rude_server import RudeServer
from soak.compare import find_leaks

D = date(2026, 3, 1)
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
NOON = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)
ADDRESS = "canary.bird@example.com"
SECRETS = {"the unicity": ADDRESS.encode(), "the hash": hashlib.md5(ADDRESS.encode()).hexdigest().encode()}


def build_hit(id_: str, **fields: Any) -> Any:
    who = {"unicity": ADDRESS, "hash": SECRETS["the hash"].decode()}
    uri = f"https://a.example/?id=594&to={ADDRESS}"
    return build_event("hits", id=id_, timestamp=NOON, link_uri=uri, link_label=f"for {ADDRESS}", **{**who, **fields})


ACCOUNT = Population(
    notifications=[{"id": 156}],
    hits=[build_hit("one")],
    bad_events=[BadEvent("no activation.id", "hits", NOON, 156, build_hit("odd", activation_id=MISSING))],
)


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(ACCOUNT) as running:
        yield running


def build_deployment(
    server: RudeServer, instance: dg.DagsterInstance, data: Path, mode: str, **settings: str
) -> Deployment:
    key = {"NP6_PSEUDONYM_KEY": PSEUDONYM_KEY} if mode == "pseudonymize" else {}
    return Deployment(data, server, instance, lambda: NOW, NP6_CONTACT_DATA=mode, **{**key, **settings})


@pytest.mark.parametrize("mode", [pytest.param("drop", marks=pytest.mark.slow), "pseudonymize"])
def test_job_treats_stored_days_without_requests(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, mode: str
) -> None:
    build_deployment(server, instance, tmp_path / "data", "keep").materialize("hits", D)
    deployment = build_deployment(server, instance, tmp_path / "data", mode)
    found = deployment.check("hits", D)["events_as_expected", f"{D}"]
    assert not found.passed
    assert f"may hold contact data (launch treat_contact_data): {D}" in str(found.description)
    before = len(server.list_requests())

    assert deployment.run_job("treat_contact_data") == {"treated": {"hits": 1, "quarantine/hits": 1}}
    assert find_leaks([tmp_path / "data"], SECRETS) == []
    assert len(server.list_requests()) == before
    assert "contact data" not in str(deployment.check("hits", D)["events_as_expected", f"{D}"].description)
    assert deployment.run_job("treat_contact_data") == {"treated": {}}
    [row] = deployment.rows("hits", D)
    pseudonym = ContactPolicy("pseudonymize", PSEUDONYM_KEY).compute_pseudonym(ADDRESS)
    assert row["receiver_unicity"] == (pseudonym if mode == "pseudonymize" else None)
    assert (row["link_uri"], row["link_label"]) == ("https://a.example/?id=594&to=[removed]", "for [removed]")

    # equal to a fetch under the new settings
    fresh = build_deployment(server, instance, tmp_path / "fresh", mode)
    fresh.materialize("hits", D)
    assert read_files(tmp_path / "data") == read_files(tmp_path / "fresh")


def test_job_treats_links_for_fewer_url_parameters(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    build_deployment(server, instance, tmp_path / "data", "drop").materialize("hits", D)
    strict = build_deployment(server, instance, tmp_path / "data", "drop", NP6_URL_PARAMETERS="to")
    strict.run_job("treat_contact_data")
    assert strict.rows("hits", D)[0]["link_uri"] == "https://a.example/?id=[removed]&to=[removed]"
    [stored] = strict.rejected_events("hits", D)
    assert "594" not in json.dumps(stored["source"]["detail"]["link"])


def test_short_pseudonym_key_is_accepted_only_for_a_folder_of_version_0_1(
    server: RudeServer,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    short = build_deployment(server, instance, tmp_path / "data", "pseudonymize", NP6_PSEUDONYM_KEY="pepper")
    with pytest.raises(dg.Failure, match=r"^NP6_PSEUDONYM_KEY has fewer than 32 characters"):
        short.materialize("hits", D)
    assert read_files(tmp_path / "data") == {}
    with monkeypatch.context() as patch:  # as version 0.1 did
        patch.setattr(ContactPolicy, "has_short_key", False)
        patch.setattr(ContactPolicy, "fingerprint", ContactPolicy("pseudonymize", "pepper").fingerprint_of_0_1)
        short.materialize("hits", D)
    capfd.readouterr()
    short.materialize("hits", D)
    assert "NP6_PSEUDONYM_KEY has fewer than 32 characters" in "".join(capfd.readouterr())
    [row] = short.rows("hits", D)
    assert row["receiver_unicity"] == ContactPolicy("pseudonymize", "pepper").compute_pseudonym(ADDRESS)
    other = build_deployment(server, instance, tmp_path / "data", "pseudonymize", NP6_PSEUDONYM_KEY="salt")
    with pytest.raises(dg.Failure, match=r"^NP6_PSEUDONYM_KEY has fewer"):
        other.materialize("hits", D)
