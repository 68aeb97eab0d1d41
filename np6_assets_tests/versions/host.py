"""Build and run another project that uses the installed wheel, in the given folder.

Nothing of this repository is imported but the installed package: it is run by the environment's Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

TIMEOUT = 3600
"""Seconds that a command may take."""

PROJECT = """
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "host"
[tool.dg.cli]
suppress_warnings = ["project_and_activated_venv_mismatch"]
"""

ACCOUNT = """
type: np6_assets.NP6Account
attributes:
  asset_key_prefix: {name}
  base_url: sandbox://
"""

DEFINITIONS = """
import json
from pathlib import Path

import dagster as dg
import pandas as pd

HERE = Path(__file__).parents[1]
days = dg.DailyPartitionsDefinition("2026-01-01", timezone="UTC", end_offset=1)
a_day = dg.AssetIn(["brand_a", "reactivity_rates"])
every_day = dg.AssetIn(["brand_a", "reactivity_rates"], metadata={"allow_missing_partitions": True})


@dg.asset
def hits() -> int:
    return 1


@dg.asset
def twice(hits: int) -> int:
    return 2 * hits


def tell(name: str, rates: pd.DataFrame) -> None:
    assert isinstance(rates, pd.DataFrame)
    read = sorted({str(day) for day in rates["activation_date"]})
    told = {"rows": len(rates), "days": read, "pandas": pd.__version__}
    (HERE / f"{name}.json").write_text(json.dumps(told))


@dg.asset(partitions_def=days, ins={"rates": a_day})
def of_a_day(rates: pd.DataFrame) -> None:
    tell("of_a_day", rates)


@dg.asset(ins={"rates": every_day})
def of_all_days(rates: pd.DataFrame) -> None:
    tell("of_all_days", rates)


@dg.definitions
def defs() -> dg.Definitions:
    own = dg.Definitions(
        assets=[hits, twice, of_a_day, of_all_days],
        resources={"io_manager": dg.FilesystemIOManager(base_dir=str(HERE / "kept"))},
        executor=dg.multiprocess_executor.configured({"max_concurrent": 2}),
        jobs=[dg.define_asset_job("fetch_events", [hits])],
    )
    return dg.Definitions.merge(own, dg.load_from_defs_folder(path_within_project=Path(__file__).parent))
"""


def main(folder: Path) -> None:
    """Build the project with two accounts, and run its assets."""
    package = folder / "host"
    (package / "defs").mkdir(parents=True)
    for name in ("__init__.py", "defs/__init__.py"):
        (package / name).touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "home").mkdir()

    for name in ("brand_a", "brand_b"):
        place = package / "defs" / name
        place.mkdir()
        (place / "defs.yaml").write_text(ACCOUNT.format(name=name))
    run(folder, "dg", "check", "defs")

    day = str(datetime.now(UTC).date() - timedelta(days=1))
    materialize(folder, "hits,twice")
    materialize(folder, "brand_a/activations,brand_a/hits,brand_a/reactivity_rates,brand_b/hits", day)
    materialize(folder, "of_a_day", day)
    materialize(folder, "of_all_days")
    for name in ("of_a_day", "of_all_days"):
        read = json.loads((folder / f"{name}.json").read_text())
        assert read["days"] == [day], read
        assert read["rows"] > 0, read
    assert (folder / "kept" / "twice").exists()
    for name in ("brand_a", "brand_b"):
        assert (folder / "data" / name / "hits" / f"event_date={day}" / "part-0.parquet").exists()
    check_step_workers(folder / "home")
    print(f"  a host with two accounts: {read['rows']} rows of {day}, read by pandas {read['pandas']}")


def materialize(folder: Path, assets: str, day: str | None = None) -> None:
    """Materialize assets with the host's executor."""
    partition = [] if day is None else ["--partition", day]
    run(folder, "dagster", "asset", "materialize", "-m", "host.definitions", "--select", assets, *partition)


def check_step_workers(home: Path) -> None:
    """Assert that these runs are known to have step workers, which may outlive a killed process."""
    import dagster as dg

    from np6_assets.dagster_private import has_step_workers

    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert all(has_step_workers(instance, one.run_id) for one in instance.get_runs())


def run(folder: Path, command: str, *arguments: str) -> str:
    """Run a command of this environment, and return its output. Exits if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NP6_", "DAGSTER_"))}
    environment |= {"DAGSTER_HOME": str(folder / "home"), "PYTHONPATH": str(folder), "NO_COLOR": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / command), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command} {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
