"""Compare the definitions with a snapshot, which shows changes of graph, columns and settings in review."""

import ast
import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._annotations import is_public
from dagster._core.test_utils import create_run_for_test

from np6_assets import dagster_private
from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions

SNAPSHOT = Path(__file__).with_name("definitions.json")
ROOT = Path(__file__).parents[1]
UPDATE = "NP6_UPDATE_SNAPSHOT"

ENVIRONMENT = {"NP6_START_DATE": "2026-03-20", "NP6_TIMEZONE": "Europe/Paris", "NP6_WINDOW_DAYS": "7"}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(Settings.from_environment(ENVIRONMENT))


def list_assets(definitions: dg.Definitions) -> list[dg.AssetsDefinition]:
    return [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]


def describe(definitions: dg.Definitions) -> dict[str, Any]:
    return {
        "assets": {
            spec.key.to_user_string(): describe_asset(asset, spec)
            for asset in list_assets(definitions)
            for spec in asset.specs
        },
        "checks": describe_checks(definitions),
        "jobs": {
            one.job.name: str(one.job.selection)
            for one in (*(definitions.sensors or ()), *(definitions.schedules or ()))
            if one.name in ("np6_refresh", "rates_follow", "daily_ingest")
        },
        "jobs of their own": sorted(job.name for job in definitions.jobs or ()),
        "sensors": {
            sensor.name: {
                "runs": [target.job_name for target in sensor.targets],
                "seconds": sensor.minimum_interval_seconds,
                "default": sensor.default_status.value,
            }
            for sensor in definitions.sensors or ()
        },
        "schedules": {
            schedule.name: {
                "runs": schedule.job_name,
                "cron": f"{schedule.cron_schedule} {schedule.execution_timezone}",
                "default": schedule.default_status.value,
            }
            for schedule in definitions.schedules or ()
        },
        "resources": {
            name: sorted(list_fields(resource)) for name, resource in sorted((definitions.resources or {}).items())
        },
    }


def list_fields(resource: dg.ResourceDefinition) -> dict[str, dg.Field]:
    """Return the fields of a resource that a run's config may set."""
    return dict(resource.config_schema.as_field().config_type.fields)


def describe_checks(definitions: dg.Definitions) -> dict[str, Any]:
    """Describe each check: its description, whether it blocks, and its partitions."""
    found: dict[str, dict[str, Any]] = {}
    for checks in definitions.asset_checks or ():
        for spec in checks.check_specs:
            found.setdefault(spec.key.asset_key.to_user_string(), {})[spec.name] = {
                "blocking": spec.blocking,
                "partitions": str(spec.partitions_def) if spec.partitions_def else None,
                "description": spec.description,
            }
    return found


def describe_asset(asset: dg.AssetsDefinition, spec: dg.AssetSpec) -> dict[str, Any]:
    return {
        "group": spec.group_name,
        "kinds": ", ".join(sorted(spec.kinds)),
        "owners": list(spec.owners),
        "pool": asset.op.pool,
        "backfill": str(asset.backfill_policy) if asset.backfill_policy else None,
        "partitions": str(spec.partitions_def) if spec.partitions_def else None,
        "deps": dict(
            sorted((dep.asset_key.to_user_string(), describe_mapping(dep.partition_mapping)) for dep in spec.deps)
        ),
        "columns": {column.name: describe_column(column) for column in list_columns(spec)},
    }


def describe_mapping(mapping: dg.PartitionMapping | None) -> str | None:
    if not isinstance(mapping, dg.TimeWindowPartitionMapping):
        return None if mapping is None else str(mapping)
    absent = ", absent days are fine" if mapping.allow_nonexistent_upstream_partitions else ""
    return f"days {mapping.start_offset} to {mapping.end_offset}{absent}"


def describe_column(column: dg.TableColumn) -> str:
    return column.type if column.constraints.nullable else f"{column.type}, never null"


def list_columns(spec: dg.AssetSpec) -> list[dg.TableColumn]:
    """List the columns of a table; none for other assets."""
    schema = spec.metadata.get("dagster/column_schema")
    return list(schema.columns) if schema else []


def test_definitions_match_the_snapshot(definitions: dg.Definitions):
    found = json.dumps(describe(definitions), indent=2) + "\n"
    if os.environ.get(UPDATE):
        SNAPSHOT.write_text(found)
    snapshot = SNAPSHOT.read_text()
    difference = "\n".join(
        difflib.unified_diff(snapshot.splitlines(), found.splitlines(), "snapshot", "now", lineterm="")
    )
    assert not difference, (
        f"the definitions have changed:\n{difference}\n"
        f"If that is meant, run `{UPDATE}=1 pytest np6_assets_tests/test_definitions.py` and commit {SNAPSHOT.name}."
    )


def test_definitions_have_descriptions(definitions: dg.Definitions):
    for asset in list_assets(definitions):
        for spec in asset.specs:
            assert spec.description, spec.key
            assert spec.owners, spec.key
            assert spec.kinds, spec.key
            [code] = spec.metadata["dagster/code_references"].code_references
            assert Path(code.file_path).is_relative_to(ROOT / "np6_assets"), spec.key
            for column in list_columns(spec):
                assert column.description, (spec.key, column.name)
    for checks in definitions.asset_checks or ():
        for check in checks.check_specs:
            assert check.description, check.key
    for one in (*(definitions.jobs or ()), *(definitions.sensors or ()), *(definitions.schedules or ())):
        assert one.description, one.name
    for name, resource in (definitions.resources or {}).items():
        for field, info in list_fields(resource).items():
            assert info.description, (name, field)


PRIVATE = re.compile(r"\bdagster\._|\bdg\._|\bstep_context\b|\b(?:context|instance|definitions|result)\._\w")


def find_private_methods(path: Path) -> set[str]:
    """Find the undocumented methods of an instance that a module uses."""
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("instance")
    }
    members = {name: getattr(dg.DagsterInstance, name) for name in used if hasattr(dg.DagsterInstance, name)}
    return {name for name, one in members.items() if not is_public(one.fget if isinstance(one, property) else one)}


def test_private_names_of_dagster_are_used_in_one_module():
    modules = list((ROOT / "np6_assets").rglob("*.py"))
    only = ROOT / "np6_assets" / "dagster_private.py"
    assert {path for path in modules if PRIVATE.search(path.read_text())} == {only}
    assert {path for path in modules if find_private_methods(path)} == {only}


def test_private_names_of_dagster_exist(kept_instance: dg.DagsterInstance, home: Path):
    key, run = dg.AssetKey("hits"), dagster_private.end_run

    @dg.asset(key=key, partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
    def asset() -> None: ...

    result = dg.materialize([asset], partition_key="a", instance=kept_instance)
    assert dagster_private.get_home(kept_instance) == home
    assert dagster_private.get_materialized_partitions(kept_instance, key) == {"a"}
    assert dagster_private.list_backfill_days(kept_instance, [key], 5) == set()
    assert dagster_private.list_running_instigators(kept_instance, ["np6_refresh"]) == set()
    assert dagster_private.list_event_files(kept_instance, result.run_id)[0].exists()
    dagster_private.remove_logs(kept_instance, result.run_id)
    dagster_private.tag_run(kept_instance, result.run_id, "np6/why", "to try")
    tagged = kept_instance.get_run_by_id(result.run_id)
    assert tagged is not None
    assert tagged.tags["np6/why"] == "to try"

    assert not dagster_private.has_step_workers(kept_instance, result.run_id)
    for status, ended in ((dg.DagsterRunStatus.STARTED, "FAILURE"), (dg.DagsterRunStatus.CANCELING, "CANCELED")):
        active = create_run_for_test(kept_instance, status=status)
        run(kept_instance, active, "its process is gone")
        found = kept_instance.get_run_by_id(active.run_id)
        assert found is not None
        assert found.status.value == ended


# What `dg` does in every project with the package; then what Dagster does here. Python's audit events record what an
# import must not do.
QUIET_IMPORTS = """
import os, sys, threading, warnings
import pyarrow as pa

pool, filters = pa.default_memory_pool().backend_name, list(warnings.filters)
import np6_assets
assert not {"dagster", "duckdb", "httpx"} & set(sys.modules), "to import the package imports Dagster"
np6_assets.NP6Account.model().model_json_schema()
assert pa.default_memory_pool().backend_name == pool and warnings.filters == filters
heavy = {"pandas", "duckdb", "httpx", "matplotlib", "starlette", "np6_assets.wiring"} & set(sys.modules)
assert not heavy, heavy

del os.environ["NP6_TIMEZONE"]
done = []
# not socket.bind: urllib3, which Dagster imports, sees by it whether this machine has IPv6
watched = ("socket.connect", "socket.getaddrinfo", "os.fork", "os.mkdir")
sys.addaudithook(lambda event, args: done.append(event) if event in watched else None)

from np6_assets.definitions import defs

assert len(defs.resolve_all_asset_keys()) == 8, defs.resolve_all_asset_keys()
heavy = {"pandas", "duckdb", "httpx", "pyarrow.dataset", "pyarrow.parquet", "jinja2.ext", "matplotlib", "dagster_aws"}
assert not heavy & set(sys.modules), f"what only runs need is imported where it is used: {heavy & set(sys.modules)}"
print(done, [thread.name for thread in threading.enumerate()])
"""


def test_imports_have_no_side_effects_and_are_light(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NP6_")}
    result = subprocess.run(
        [sys.executable, "-B", "-c", QUIET_IMPORTS],
        cwd=ROOT,
        env={**environment, "NP6_DATA_DIR": str(tmp_path / "data"), "NP6_TIMEZONE": "Mars/Base"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[] ['MainThread']"
    assert not (tmp_path / "data").exists()
