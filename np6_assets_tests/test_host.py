"""Load two accounts in other Definitions, which have their own executor, IO manager and asset `hits`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from np6_assets.component import NP6Account
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity
from np6_assets_tests.support.deployment import read_failure, read_files
from np6_assets_tests.support.events import KINDS, Population, build_population, set_one_agency
from np6_assets_tests.support.oracle import compute_day_bounds, expect_rows
from np6_assets_tests.support.project import load_project
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import canonicalize, read_rows

DAY = date(2026, 3, 1)
NAMES = ("brand_a", "brand_b")
DOCUMENT = (Path(__file__).parents[1] / "docs" / "embedding.md").read_text()
[DOWNSTREAM] = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def build_events(seed: int) -> Population:
    return set_one_agency(build_population(seed, DAY, 1, sends_per_day=6))


@pytest.fixture
def servers() -> Iterator[dict[str, RudeServer]]:
    with RudeServer(build_events(1), key="key-of-a") as one, RudeServer(build_events(2), key="key-of-b") as other:
        yield dict(zip(NAMES, (one, other), strict=True))


@dg.asset
def hits() -> int:
    return 1


@dg.asset
def twice(hits: int) -> int:
    return 2 * hits


@pytest.fixture
def accounts(servers: dict[str, RudeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    monkeypatch.delenv("NP6_DATA_DIR", raising=False)
    attributes = []
    for name, server in servers.items():
        monkeypatch.setenv(f"KEY_OF_{name.upper()}", server.key)
        attributes.append(
            {
                "asset_key_prefix": name,
                "base_url": server.url,
                "api_key_variable": f"KEY_OF_{name.upper()}",
                "data_dir": str(tmp_path / "data" / name),
                "start_date": "2026-02-27",
                "window_days": 1,
            }
        )
    return load_project(tmp_path / "project", *attributes)


@pytest.fixture
def host(accounts: dg.Definitions, tmp_path: Path) -> tuple[dg.Definitions, dict[str, pd.DataFrame]]:
    """The host's Definitions, and the inputs of its assets downstream of an account."""
    inputs: dict[str, pd.DataFrame] = {}
    documented: dict[str, Any] = {}
    exec(compile(DOWNSTREAM, "docs/embedding.md", "exec"), documented)
    a_day = dg.AssetIn(["brand_a", "reactivity_rates"])

    @dg.asset(partitions_def=documented["days"], ins={"rates": a_day})
    def daily(rates: pd.DataFrame) -> None:
        inputs["of a day"] = rates

    @dg.asset(ins={"rates": documented["every_day"]})
    def whole(rates: pd.DataFrame) -> None:
        inputs["of all days"] = rates

    own = dg.Definitions(
        assets=[hits, twice, daily, whole, documented["rates_of_a_day"], documented["rates_so_far"]],
        resources={"io_manager": dg.FilesystemIOManager(base_dir=str(tmp_path / "host"))},
        executor=dg.multiprocess_executor,
        jobs=[dg.define_asset_job("fetch_events", [hits])],
    )
    return dg.Definitions.merge(own, accounts), inputs


def read_stored(folder: Path, kind: str) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    path = folder / kind / f"event_date={DAY}" / "part-0.parquet"
    return canonicalize(read_rows(pq.read_table(path, partitioning=None)))


@pytest.mark.slow
def test_accounts_run_beside_the_assets_of_a_host(
    host: tuple[dg.Definitions, dict[str, pd.DataFrame]],
    servers: dict[str, RudeServer],
    tmp_path: Path,
    instance: dg.DagsterInstance,
) -> None:
    definitions, inputs = host
    dg.Definitions.validate_loadable(definitions)
    assert definitions.executor is dg.multiprocess_executor
    job = definitions.resolve_implicit_global_asset_job_def()

    def run(*keys: Any, partition: str | None = None) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey(key) for key in keys], partition_key=partition
        )

    assert run("hits", "twice").output_for_node("twice") == 2
    assert (tmp_path / "host" / "hits").exists()
    assert run(*(["brand_a", kind] for kind in KINDS), ["brand_a", "reactivity_rates"], partition=f"{DAY}").success
    assert run(["brand_b", "hits"], partition=f"{DAY}").success
    assert run("daily", "rates_of_a_day", partition=f"{DAY}").success
    assert run("whole", "rates_so_far").success

    assert len(inputs["of a day"]) == len(inputs["of all days"]) > 0
    assert set(inputs["of a day"]["activation_date"].astype(str)) == {f"{DAY}"}
    for name, server in servers.items():
        assert {request.headers["x-key"] for request in server.requests} == {server.key}
        expected = expect_rows(
            "hits", build_events(NAMES.index(name) + 1).feed("hits"), *compute_day_bounds(DAY, "UTC")
        )
        assert read_stored(tmp_path / "data" / name, "hits") == canonicalize(expected)
    assert {Path(name).parts[0] for name in read_files(tmp_path / "data")} == set(NAMES)
    assert instance.get_materialized_partitions(dg.AssetKey(["brand_b", "hits"])) == {f"{DAY}"}


def test_accounts_keep_to_their_own(
    accounts: dg.Definitions, servers: dict[str, RudeServer], tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    # a run refuses the folder of another account
    folder = tmp_path / "data" / "brand_b"
    folder.mkdir(parents=True)
    Identity("api", "UTC", "brand_c").write(Folder(str(folder)))
    result = accounts.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(["brand_b", "hits"])],
        partition_key=f"{DAY}",
        raise_on_error=False,
    )
    assert "belongs to account brand_c, and this is account brand_b" in read_failure(result)
    # a sensor probes its own account
    repository = accounts.get_repository_def()
    sensor = repository.get_sensor_def("brand_a_np6_refresh")
    assert sensor.job_name == "brand_a_fetch_events"
    with dg.build_sensor_context(instance=instance, repository_def=repository, resources=accounts.resources) as context:
        sensor.evaluate_tick(context)
    assert servers["brand_a"].requests
    assert not servers["brand_b"].requests
    # the account of the environment can be added
    own = NP6Account.from_environment({"NP6_BASE_URL": "sandbox://", "NP6_DATA_DIR": str(tmp_path / "own")})
    dg.Definitions.validate_loadable(dg.Definitions.merge(accounts, dg.build_defs_for_component(own)))
