"""Several accounts in one deployment: each has its key, prefix, folder and pool, and none sees another's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from np6_assets import accounts, cli
from np6_assets.accounts import environment_of
from np6_assets.settings import SettingsError
from np6_assets_tests.support.deployment import files
from np6_assets_tests.support.events import KINDS, Population, of_one_agency, population
from np6_assets_tests.support.oracle import day_bounds, expected_rows
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import canonical, rows_of

DAY = date(2026, 3, 1)
NAMES = ("brand_a", "brand_b")
README = Path(__file__).parents[1] / "docs/embedding.md"
[WORKSPACE] = re.findall(r"^```yaml\n(load_from:.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def events(seed: int) -> Population:
    return of_one_agency(population(seed, DAY, 1, sends_per_day=6))


@pytest.fixture
def servers() -> Iterator[dict[str, RudeServer]]:
    with RudeServer(events(1), key="key-of-a") as one, RudeServer(events(2), key="key-of-b") as other:
        yield dict(zip(NAMES, (one, other), strict=True))


@pytest.fixture
def deployed(
    servers: dict[str, RudeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dg.Definitions]:
    monkeypatch.setenv("NP6_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NP6_START_DATE", "2026-02-01")
    for name, server in servers.items():
        monkeypatch.setenv(f"{name.upper()}_NP6_BASE_URL", server.url)
        monkeypatch.setenv(f"{name.upper()}_NP6_API_KEY", server.key)
    return {name: getattr(accounts, name) for name in NAMES}


def stored(data: Path, account: str, kind: str) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    path = data / account / kind / f"event_date={DAY}" / "part-0.parquet"
    return canonical(rows_of(pq.read_table(path, partitioning=None)))


def test_each_has_its_own_events_rates_and_records(
    deployed: dict[str, dg.Definitions], servers: dict[str, RudeServer], tmp_path: Path
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for name, definitions in deployed.items():
            everything = [*(definitions.assets or ()), *(definitions.asset_checks or ())]
            daily = dg.AssetSelection.assets(*([name, kind] for kind in KINDS), [name, "reactivity_rates"])
            selection = daily | dg.AssetSelection.checks_for_assets([name, "hits"], [name, "reactivity_rates"])
            result = dg.materialize(
                everything,
                selection=selection,
                resources=definitions.resources,
                instance=instance,
                partition_key=f"{DAY}",
                run_config={"ops": {f"{name}__hits": {"config": {"full_refresh": True}}}},
            )
            assert result.success
            assert {one.asset_key.path[0] for one in result.get_asset_check_evaluations()} == {name}
        assert {key.path[0] for key in instance.all_asset_keys()} == set(NAMES)
        assert instance.get_materialized_partitions(dg.AssetKey(["brand_b", "hits"])) == {f"{DAY}"}
        rest = {
            name: dg.materialize(
                definitions.assets or (),
                selection=dg.AssetSelection.assets([name, "notifications"], [name, "reactivity_report"]),
                resources=definitions.resources,
                instance=instance,
            )
            for name, definitions in deployed.items()
        }
    assert all(result.success for result in rest.values())
    for name, server in servers.items():
        assert {request.headers["x-key"] for request in server.requests} == {server.key}
        for kind in KINDS:
            feed = events(NAMES.index(name) + 1).feed(kind)
            assert stored(tmp_path / "data", name, kind) == canonical(
                expected_rows(kind, feed, *day_bounds(DAY, "UTC"))
            )
    assert {Path(name).parts[0] for name in files(tmp_path / "data")} == set(NAMES)


def test_each_has_a_pool_jobs_and_groups_of_its_own(deployed: dict[str, dg.Definitions]) -> None:
    pools, jobs = {}, {}
    for name, definitions in deployed.items():
        repository = definitions.get_repository_def()
        nodes = [node for job in repository.get_all_jobs() for node in job.all_node_defs]
        pools[name] = {node.pool for node in nodes if isinstance(node, dg.OpDefinition) and node.pool}
        jobs[name] = {name for name in repository.job_names if not name.startswith("__")}
    assert pools == {name: {f"{name}_np6_api"} for name in NAMES}
    assert not jobs["brand_a"] & jobs["brand_b"]
    groups = {name: {spec.group_name for spec in one.resolve_all_asset_specs()} for name, one in deployed.items()}
    assert groups == {name: {f"{name}_events", f"{name}_rates"} for name in NAMES}


def test_the_sensor_asks_for_the_days_of_its_account(
    deployed: dict[str, dg.Definitions], servers: dict[str, RudeServer]
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for name, definitions in deployed.items():
            repository = definitions.get_repository_def()
            sensor = repository.get_sensor_def("np6_refresh")
            assert sensor.job_name == f"{name}_fetch_events"
            with dg.build_sensor_context(
                instance=instance, repository_def=repository, resources=definitions.resources
            ) as context:
                sensor(context)
            assert servers[name].requests
            assert all(other == name or not servers[other].requests for other in NAMES[NAMES.index(name) :])


def test_the_doctor_looks_at_one(
    deployed: dict[str, dg.Definitions],
    servers: dict[str, RudeServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "--account", "brand_b"]) == 0
    printed = capsys.readouterr().out
    assert servers["brand_b"].url in printed
    assert f"{tmp_path}/data/brand_b" in printed.replace("\n", "").replace(" ", "")
    assert servers["brand_b"].key not in printed
    assert not servers["brand_a"].requests
    assert cli.main(["doctor", "--account", "Brand"]) == 1
    assert "a name is lower-case" in capsys.readouterr().err


def test_dagster_loads_them_from_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "NP6_BASE_URL": "sandbox://", "NO_COLOR": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dagster"), "definitions", "validate", "-w", "workspace.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for location in NAMES:
        assert f"Validation successful for code location {location}." in done.stdout + done.stderr


def test_what_is_its_own_and_what_it_shares() -> None:
    environment = {
        "NP6_API_KEY": "common",
        "NP6_PSEUDONYM_KEY": "common",
        "NP6_TOMBSTONE_KEY": "common",
        "NP6_DATA_DIR": "s3://bucket/np6",
        "NP6_TIMEZONE": "Europe/Paris",
        "NP6_WINDOW_DAYS": "3",
        "BRAND_B_NP6_WINDOW_DAYS": "14",
        "BRAND_B_NP6_TIMEZONE": " ",
        "BRAND_NP6_WINDOW_DAYS": "1",
    }
    found = environment_of(environment, "brand_b")
    assert {name: value for name, value in found.items() if name.startswith("NP6_")} == {
        "NP6_DATA_DIR": "s3://bucket/np6/brand_b",
        "NP6_TIMEZONE": "Europe/Paris",
        "NP6_WINDOW_DAYS": "14",
    }
    own = environment_of({**environment, "BRAND_B_NP6_API_KEY": "b", "BRAND_B_NP6_DATA_DIR": "/b"}, "brand_b")
    assert (own["NP6_API_KEY"], own["NP6_DATA_DIR"]) == ("b", "/b")


@pytest.mark.parametrize(
    ("environment", "other"),
    [
        ({"BRAND_B_NP6_DATA_DIR": "data"}, "NP6_DATA_DIR"),
        ({"NP6_DATA_DIR": "/x", "BRAND_B_NP6_DATA_DIR": "/x/"}, "NP6_DATA_DIR"),
        ({"NP6_DATA_DIR": "/x", "BRAND_C_NP6_DATA_DIR": "/x/brand_b"}, "BRAND_C_NP6_DATA_DIR"),
    ],
)
def test_two_accounts_in_one_folder_are_refused(environment: dict[str, str], other: str) -> None:
    with pytest.raises(SettingsError, match=f"^account brand_b: its data folder is that of {other};"):
        environment_of(environment, "brand_b")


@pytest.mark.parametrize("name", ["Brand", "brand-b", "brand__b", "b b", "é", "1b", "brand_"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="a name is lower-case letters, digits and single _"):
        environment_of({}, name)


def test_what_is_wrong_names_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAND_B_NP6_TIMEZONE", "Mars/Base")
    with pytest.raises(SettingsError, match=r"^account brand_b: NP6_TIMEZONE='Mars/Base' .*begin with BRAND_B_NP6_\)$"):
        _ = accounts.brand_b


def test_a_missing_key_names_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NP6_API_KEY", "common")  # a key is nobody else's
    definitions = accounts.brand_b
    [spec] = [one for one in definitions.resolve_all_asset_specs() if one.key == dg.AssetKey(["brand_b", "hits"])]
    assert "account brand_b: NP6_API_KEY is not set" in (spec.description or "")
