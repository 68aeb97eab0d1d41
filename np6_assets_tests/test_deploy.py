"""Test the files in deploy/: Dagster accepts each dagster.yaml, and the files that they name exist."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
import yaml

from np6_assets_tests.support.deployment import read_files
from np6_assets_tests.support.units import INSTALLED, Unit, UnitProcesses

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
contexts: [{name: here, context: {cluster: here, user: nobody}}]
"""


def to_snake_case(value: Any) -> Any:
    """Convert the keys of the chart's values to Dagster's."""
    if isinstance(value, dict):
        return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): to_snake_case(one) for key, one in value.items()}
    return value


def read_kubernetes(folder: Path) -> dict[str, Any]:
    """Build the instance's config as Dagster's chart does. A pod's specification keeps its names."""
    values = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
    (folder / "kubeconfig").write_text(KUBECONFIG)
    launcher = values["runLauncher"]
    pod = launcher["config"]["k8sRunLauncher"].pop("runK8sConfig")
    logs = values["computeLogManager"]
    config = {
        **to_snake_case(launcher["config"]["k8sRunLauncher"]),
        "run_k8s_config": {re.sub(r"([A-Z])", r"_\1", key).lower(): one for key, one in pod.items()},
        # what the chart adds, and the test has no cluster for
        "instance_config_map": "dagster-instance",
        "service_account_name": "dagster",
        "load_incluster_config": False,
        "kubeconfig_file": str(folder / "kubeconfig"),
    }
    database = values["postgresql"]
    return {
        "storage": {"postgres": {"postgres_db": {"scheme": database["postgresqlScheme"]}}},
        "run_launcher": {"module": "dagster_k8s", "class": launcher["type"], "config": config},
        "compute_logs": {
            "module": "dagster_aws.s3",
            "class": logs["type"],
            "config": to_snake_case(logs["config"]["s3ComputeLogManager"]),
        },
        "run_monitoring": to_snake_case(values["dagsterDaemon"]["runMonitoring"]),
        "run_retries": to_snake_case(values["dagsterDaemon"]["runRetries"]),
        "retention": {kind: one for kind, one in to_snake_case(values["retention"]).items() if kind != "enabled"},
        "telemetry": values["telemetry"],
        **values["additionalInstanceConfig"],
    }


def read_yaml(*files: str) -> dict[str, Any]:
    return {name: one for file in files for name, one in yaml.safe_load((ROOT / file).read_text()).items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "launcher", "logs"),
    [
        ("one-machine", "DefaultRunLauncher", "LocalComputeLogManager"),
        ("workers", "CeleryRunLauncher", "S3ComputeLogManager"),
        ("kubernetes", "K8sRunLauncher", "S3ComputeLogManager"),
    ],
)
def test_dagster_loads_the_instance_with_monitoring_and_retries(
    way: str, launcher: str, logs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "one-machine": lambda: read_yaml("dagster.yaml", "deploy/one-machine/storage-postgres.yaml"),
        "workers": lambda: read_yaml("deploy/workers/dagster.yaml"),
        "kubernetes": lambda: read_kubernetes(tmp_path),
    }[way]()
    storage = config.pop("storage")["postgres"]["postgres_db"]
    # make test-cluster has a database; this is what SQLAlchemy takes for it
    assert sqlalchemy.create_engine(f"{storage['scheme']}://").driver == "psycopg2"
    for name in {"DAGSTER_LOGS_BUCKET", "AWS_REGION", "AWS_DEFAULT_REGION"}:
        monkeypatch.setenv(name, "eu-west-3")
    monkeypatch.setenv("DAGSTER_CELERY_URL", "redis://127.0.0.1:1/0")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher).__name__ == launcher
        assert type(instance.compute_log_manager).__name__ == logs
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.telemetry_enabled
    shared = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    differs = {name for name in shared if config.get(name) != shared[name]}
    assert differs <= {"run_monitoring", "retention"}  # how long a start may take; kinds of ticks that are 0
    assert {**config["run_monitoring"], **shared["run_monitoring"]} == config["run_monitoring"]


def test_environment_examples_have_known_variables() -> None:
    settings = set(re.findall(r"^#(NP6_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for example in DEPLOY.glob("*/np6.env.example"):
        named = set(re.findall(r"^#?([A-Z]\w+)=", example.read_text(), re.MULTILINE))
        text = "".join(path.read_text() for path in example.parent.glob("*.yaml"))
        assert set(re.findall(r"\{env: (\w+)\}", text)) <= named, example
        assert {name for name in named if name.startswith("NP6_")} <= settings, example


def test_units_name_existing_files() -> None:
    for unit in map(Unit.read, DEPLOY.glob("*/*.service")):
        moved = zip(unit.command, unit.move({}), strict=True)
        named = [there for word, there in moved if word.startswith(INSTALLED) or word == unit.command[0]]
        assert [there for there in named if not Path(there).exists()] == [], unit.name


def make_backup(data: Path, home: Path, to: Path, keep: int = 30) -> Path:
    """Make a backup as the unit does."""
    unit = Unit.read(DEPLOY / "one-machine" / "np6-backup.service")
    moved = {"/var/lib/np6/data": str(data), "/var/lib/np6/dagster": str(home), "/var/backups/np6": str(to)}
    command = [*unit.move(moved), "--keep", str(keep)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_backup_restores_files_and_records(tmp_path: Path) -> None:
    data, home, to = (tmp_path / name for name in ("data", "home", "to"))
    for day in ("2026-03-20", "2026-03-21"):
        (data / f"hits/event_date={day}").mkdir(parents=True)
        (data / f"hits/event_date={day}/part-0.parquet").write_text(day)
    (data / "hits/event_date=2026-03-21/.part-0.parquet.1.tmp").write_text("unfinished")
    home.mkdir()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("days", ["2026-03-20"])
        first = make_backup(data, home, to)
        (data / "hits/event_date=2026-03-21/part-0.parquet").write_text("more")
        second = make_backup(data, home, to, keep=1)
    assert not first.exists()
    assert [path.name for path in to.iterdir()] == [second.name]
    unfinished = "hits/event_date=2026-03-21/.part-0.parquet.1.tmp"
    assert read_files(second / "data") == {name: text for name, text in read_files(data).items() if name != unfinished}
    with dg.DagsterInstance.from_config(str(second / "dagster")) as restored:
        assert restored.get_dynamic_partitions("days") == ["2026-03-20"]


@pytest.mark.slow
def test_units_run_and_back_up_one_machine(tmp_path: Path) -> None:
    day = date(2026, 3, 20)
    with UnitProcesses(tmp_path, NP6_BASE_URL="sandbox://", NP6_START_DATE=f"{day}") as deployed:
        [run] = deployed.wait_for_runs(deployed.launch(["hits"], day))
        assert run.status == "SUCCESS", deployed.read_logs()
        backup = make_backup(deployed.data, deployed.home, tmp_path / "backups")
        assert read_files(backup / "data") == read_files(deployed.data)
    with dg.DagsterInstance.from_config(str(backup / "dagster")) as restored:
        assert restored.get_run_by_id(run.id)
