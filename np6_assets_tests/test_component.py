"""Test `NP6Account` from YAML: its attributes, their checks, and the names in a deployment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets import accounts, cli
from np6_assets.component import NP6Account
from np6_assets.settings import Settings, SettingsError
from np6_assets_tests.support.project import create_project, load_project
from np6_assets_tests.support.rude_server import RudeServer

BRAND_A = {"asset_key_prefix": "brand_a", "base_url": "sandbox://"}
BRAND_B = {"asset_key_prefix": "brand_b", "base_url": "sandbox://"}
LONG = "a key that nobody finds by trying"


def list_names(definitions: dg.Definitions) -> set[str]:
    """List all names that must be unique in a deployment or code location."""
    repository = definitions.get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    nodes = [node for job in repository.get_all_jobs() for node in job.all_node_defs]
    return {
        *(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()),
        *(spec.group_name or "default" for spec in definitions.resolve_all_asset_specs()),
        *(job.name for job in jobs),
        *(node.name for node in nodes),
        *(node.pool for node in nodes if isinstance(node, dg.OpDefinition) and node.pool),
        *(sensor.name for sensor in repository.sensor_defs),
        *(schedule.name for schedule in repository.schedule_defs),
        *(definitions.resources or {}),
    }


def test_names_of_an_account_begin_with_its_prefix(tmp_path: Path) -> None:
    definitions = load_project(tmp_path, BRAND_A, BRAND_B)
    found = list_names(definitions)
    assert {name.startswith(("brand_a", "brand_b")) for name in found - {"io_manager"}} == {True}  # Dagster's own
    assert {name for name in found if name.startswith("brand_a")} == {
        name.replace("brand_b", "brand_a") for name in found if name.startswith("brand_b")
    }
    assert {
        "brand_a/hits",
        "brand_a_np6_api",
        "brand_a_np6_refresh",
        "brand_a_old_records",
        "brand_a_io_manager",
    } < found
    assert definitions.executor is None
    jobs = [job for job in definitions.get_repository_def().get_all_jobs() if not job.name.startswith("__")]
    assert {job.executor_def.name for job in jobs} == {"in_process"}


def test_names_of_an_environment_account_have_no_prefix() -> None:
    found = list_names(dg.build_defs_for_component(NP6Account.from_environment({})))
    assert {"hits", "np6_api", "np6_refresh", "old_records", "io_manager", "np6", "store", "fetch_events"} < found


def test_attributes_set_the_settings() -> None:
    attributes = {
        "asset_key_prefix": "brand_a",
        "api_key_variable": "KEY_OF_A",
        "base_url": "http://127.0.0.1:8001/np6/",
        "data_dir": "memory://bucket/prefix",
        "start_date": "2025-06-30",
        "timezone": "Europe/Paris",
        "window_days": 0,
        "contact_data": "pseudonymize",
        "pseudonym_key_variable": "PEPPER_OF_A",
        "tombstone_key_variable": "STONES_OF_A",
        "url_parameters": ["id", "utm_source"],
        "max_concurrent_requests": 64,
        "lookback_minutes": 90,
        "backfill_days_per_run": 31,
        "probe_seconds": 300,
        "refresh_minutes": 0,
        "trailing_days": 0,
        "fresh_by_hour": 0,
        "retention_days": 2,
    }
    environment = {
        f"NP6_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
        for name, value in attributes.items()
    }
    environment |= {"NP6_API_KEY": "k", "NP6_PSEUDONYM_KEY": "pepper", "NP6_TOMBSTONE_KEY": LONG}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("KEY_OF_A", "k"), ("PEPPER_OF_A", "pepper"), ("STONES_OF_A", LONG)):
            patch.setenv(name, value)
        found = NP6Account.resolve_from_dict(attributes).settings()
    assert found == Settings.from_environment(environment, "brand_a", "KEY_OF_A")
    in_environment = NP6Account.from_environment(environment)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        assert in_environment.settings() == Settings.from_environment(environment)


def test_attributes_have_the_settings_defaults() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("NP6_")]:
            patch.delenv(name)
        assert NP6Account.from_environment({}).settings() == Settings.from_environment({})
        found = NP6Account.resolve_from_dict({"asset_key_prefix": "brand_a"}).settings()
    assert found == Settings.from_environment({"NP6_DATA_DIR": "data/brand_a"}, "brand_a", "")
    assert "account brand_a: api_key_variable is not given" in (found.missing or "")


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({"window_days": 400}, "account brand_a: window_days='400' is not a whole number from 0 to 365"),
        ({"timezone": "Mars"}, "account brand_a: timezone='Mars' is not an IANA time zone such as Europe/Paris"),
        (
            {"retention_days": 3},
            "account brand_a: retention_days='3' is too short: window_days and trailing_days need 9, and 0 keeps all",
        ),
        (
            {"contact_data": "pseudonymize"},
            "account brand_a: pseudonym_key_variable is not set: contact_data=pseudonymize needs a secret key",
        ),
        (
            {"contact_data": "pseudonymize", "pseudonym_key_variable": "PEPPER_OF_A"},
            "account brand_a: PEPPER_OF_A is not set: contact_data=pseudonymize needs a secret key",
        ),
        (
            {"api_key_variable": "the key itself, pasted"},
            "account brand_a: api_key_variable is not the name of an environment variable; write the name, not the key",
        ),
    ],
)
def test_wrong_attribute_is_refused_in_one_line(attributes: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_project(tmp_path, {**BRAND_A, **attributes})
    assert str(caught.value) == line


def test_yaml_needs_a_valid_prefix() -> None:
    for prefix in ("", None, "Brand", "brand-b", "brand__b", "b b", "é", "1b", "brand_"):
        with pytest.raises(Exception, match="asset_key_prefix"):
            NP6Account.resolve_from_dict({**BRAND_A, "asset_key_prefix": prefix})
    with pytest.raises(Exception, match="asset_key_prefix"):
        NP6Account.resolve_from_dict({"base_url": "sandbox://"})


def test_missing_key_is_named_and_other_accounts_load(tmp_path: Path) -> None:
    account = {"asset_key_prefix": "brand_b", "api_key_variable": "KEY_OF_B"}
    definitions = load_project(tmp_path, BRAND_A, account)
    [spec] = [one for one in definitions.resolve_all_asset_specs() if one.key == dg.AssetKey(["brand_b", "hits"])]
    assert "account brand_b: KEY_OF_B is not set" in (spec.description or "")


# --- labels, and Dagster's post-processing ------------------------------------------------------------------------


def build_post_processing(target: str, operation: str = "merge", **attributes: Any) -> dict[str, Any]:
    return {"target": target, "operation": operation, "attributes": attributes}


def test_labels_and_post_processing_are_on_the_assets(tmp_path: Path) -> None:
    labels = {"owners": ["team:crm"], "tags": {"domain": "push"}, "group_name": "push"}
    eager = "{{ automation_condition.eager() }}"
    processing = [
        build_post_processing("key:brand_a/reactivity_report", tags={"tier": "1"}, automation_condition=eager),
        build_post_processing("key:brand_a/hits", "replace", metadata={"team": "crm"}),
    ]
    definitions = load_project(tmp_path, {**BRAND_A, **labels}, post_processing={"assets": processing})
    specs = {spec.key.path[-1]: spec for spec in definitions.resolve_all_asset_specs()}
    for spec in specs.values():
        assert (spec.owners, spec.group_name, spec.tags["domain"]) == (["team:crm"], "push", "push")
        assert spec.kinds
        assert ("tier" in spec.tags) == (spec.key.path[-1] == "reactivity_report")
    assert specs["reactivity_report"].automation_condition == dg.AutomationCondition.eager()
    assert {"team", "dagster/column_schema", "partition_expr"} <= set(specs["hits"].metadata)


@pytest.mark.parametrize(
    ("asset", "attributes", "error"),
    [
        ("hits", {"partitions_def": {"type": "weekly", "start_date": "2026-01-01"}}, r"artitions.definition"),
        ("reactivity_rates", {"deps": []}, "Attempted to remove argument-backed dependency"),
    ],
)
def test_post_processing_cannot_break_the_account(
    asset: str, attributes: dict[str, Any], error: str, tmp_path: Path
) -> None:
    processing = build_post_processing(f"key:brand_a/{asset}", **attributes)
    with pytest.raises(Exception, match=error):
        load_project(tmp_path, BRAND_A, post_processing={"assets": [processing]})


# --- the old way --------------------------------------------------------------------------------------------------


def test_accounts_by_variables_are_refused_with_their_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if "NP6_" in name]:
        monkeypatch.delenv(name)
    for name, value in {
        "NP6_TIMEZONE": "Europe/Paris",
        "NP6_WINDOW_DAYS": "3",
        "NP6_API_KEY": "common",
        "NP6_DATA_DIR": "s3://bucket/np6",
        "BRAND_B_NP6_API_KEY": "s3cret-of-b",
        "BRAND_B_NP6_WINDOW_DAYS": "14",
        "BRAND_C_NP6_WINDOW_DAYS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        _ = accounts.brand_b
    first, *rest = str(caught.value).splitlines()
    assert "dg scaffold defs np6_assets.NP6Account brand_b" in first
    assert rest == [
        "data_dir: s3://bucket/np6/brand_b",
        "api_key_variable: BRAND_B_NP6_API_KEY",
        "timezone: Europe/Paris",
        "window_days: 14",
    ]


# --- the doctor ---------------------------------------------------------------------------------------------------

PYPROJECT = """
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "{0}"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in the working directory, without settings in the environment."""
    for name in [name for name in os.environ if "NP6_" in name or name.startswith("DAGSTER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_project(project: Path, monkeypatch: pytest.MonkeyPatch, *accounts: dict[str, Any]) -> None:
    package = create_project(project, *accounts)
    (project / "pyproject.toml").write_text(PYPROJECT.format(package))
    monkeypatch.syspath_prepend(str(project))


def test_doctor_examines_an_account_of_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with RudeServer(key="key-of-b") as server:
        monkeypatch.setenv("KEY_OF_B", server.key)
        brand_b = {"asset_key_prefix": "brand_b", "base_url": server.url, "api_key_variable": "KEY_OF_B"}
        write_project(project, monkeypatch, BRAND_A, brand_b)
        assert cli.main(["doctor"]) == 1
        assert "several accounts: name one with --account; those of this project: brand_a, brand_b" in (
            capsys.readouterr().err
        )
        cli.main(["doctor", "--account", "brand_b"])
        printed = re.sub(r"\s+", " ", capsys.readouterr().out)
        assert server.requests
        assert {request.headers["x-key"] for request in server.requests} == {server.key}
    assert "those of 2 accounts load: brand_a, brand_b" in printed
    assert "neither brand_b_np6_refresh nor brand_b_daily_ingest is on" in printed
    assert server.key not in printed


def test_doctor_reports_why_dagster_cannot_load(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(project, monkeypatch, BRAND_A, {**BRAND_B, "data_dir": "./data/brand_a/"})
    assert cli.main(["doctor", "--account", "brand_a", "--json"]) == 1
    assert "data_dir='./data/brand_a/' is the folder of account brand_a" in capsys.readouterr().out
