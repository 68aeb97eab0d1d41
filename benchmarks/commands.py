"""Build the commands of contenders, and the environment of this project's."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT_BIN = ROOT / ".venv" / "bin"
PEERS_BIN = ROOT / ".venv-bench" / "bin"


def build_project_script(program: str, *arguments: str | Path) -> list[str]:
    """Build the command of a program in `contenders` that uses this project."""
    return [str(PROJECT_BIN / "python"), "-m", f"benchmarks.contenders.{program}", *map(str, arguments)]


def build_peer_script(program: str, *arguments: str | Path) -> list[str]:
    """Build the command of a program in `contenders` that uses other libraries."""
    return [str(PEERS_BIN / "python"), "-m", f"benchmarks.contenders.{program}", *map(str, arguments)]


def build_materialize(selection: str, partitions: str, module: str = "np6_assets.definitions") -> list[str]:
    """Build the command that materializes assets for a day, or for a range of days (`first...last`)."""
    days = ["--partition-range" if "..." in partitions else "--partition", partitions]
    return [str(PROJECT_BIN / "dagster"), "asset", "materialize", "-m", module, "--select", selection, *days]


def prepare_deployment(folder: Path, url: str, **settings: str) -> dict[str, str]:
    """Make a DAGSTER_HOME in a folder and return the environment of this project's commands."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    return {
        "NP6_BASE_URL": url,
        "NP6_API_KEY": "any",
        "NP6_DATA_DIR": str(folder / "data"),
        "DAGSTER_HOME": str(home),
        **settings,
    }
