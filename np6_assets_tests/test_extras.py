"""Test that a missing optional package is named, and that every imported package is declared."""

import ast
import re
import sys
import tomllib
from datetime import UTC, datetime
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.np6.resource import NP6Resource
from np6_assets.report.assets import build_report_asset
from np6_assets.sandbox import simulated_account
from np6_assets.settings import Settings
from np6_assets.storage.io_manager import ParquetStore

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_imported_packages_are_declared() -> None:
    imported = {
        name.split(".")[0]
        for path in (ROOT / "np6_assets").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [one.name for one in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    others = imported - sys.stdlib_module_names - {"np6_assets"}
    requirements = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    declared = {re.match(r"[A-Za-z0-9-]+", one)[0].lower() for one in requirements}  # type: ignore[index]
    providers = packages_distributions()
    missing = {name for name in others if not declared & {one.lower() for one in providers.get(name, [])}}
    assert missing == set()


def test_simulated_account_names_its_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "np6_assets.sandbox.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    np6 = NP6Resource(base_url="sandbox://").with_sandbox(simulated_account)
    with pytest.raises(dg.Failure) as caught, np6.open_client(print):
        pass
    assert caught.value.description == (
        "the simulated account needs uvicorn, which is not installed: pip install 'np6-assets[sandbox]'"
    )


def test_report_names_its_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "np6_assets.report.page", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    settings = Settings.from_environment({"NP6_DATA_DIR": str(tmp_path)})
    context = dg.build_asset_context(resources={"store": ParquetStore(data_dir=str(tmp_path))})
    inputs = dict.fromkeys(("reactivity_rates", "notifications", "activations", "hits", "bounces"))
    with pytest.raises(dg.Failure, match=r"the report needs jinja2, .* pip install 'np6-assets\[report\]'"):
        build_report_asset(settings, lambda: datetime.now(UTC))(context, **inputs)
