"""Test the structure of the source: imports between packages, lengths of files, and names of classes."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "np6_assets").rglob("*.py"))
MOST_LINES = 350

# each package, and the packages that it may import beside the modules directly in np6_assets
PACKAGES = {
    "np6": set(),
    "storage": set(),
    "contact": {"storage"},
    "events": {"np6", "storage", "contact"},
    "rates": {"storage", "contact", "events"},
    "queries": {"storage", "events", "rates"},
    "report": {"storage", "events", "rates"},
    "privacy": {"storage", "contact", "events"},
    "refresh": {"np6", "storage", "contact", "events", "rates"},
    "runs": {"contact", "refresh"},
    "sandbox": {"np6"},
    "doctor": {"np6", "storage", "contact", "events", "refresh", "runs"},
    "defs": set(),
}

# the modules directly in np6_assets that wire the packages; no package may import them, but for the doctor those that
# find the accounts
TOP = {"accounts", "cli", "component", "definitions", "demo", "demo_report", "loading", "wiring"}
ACCOUNTS = {"component", "loading"}


def get_module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {get_module(path): path for path in SOURCES}


def list_imports(path: Path) -> Iterator[str]:
    """Yield the modules of the project that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            source = ".".join((*package, *filter(None, [node.module])))
            names = [f"{source}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else source for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def get_package(module: str) -> str:
    """Return the package of a module in np6_assets; a module directly in np6_assets is its own."""
    return module.split(".")[1] if "." in module else "np6_assets"


IMPORTS = {module: {name for name in list_imports(path) if name in MODULES} for module, path in MODULES.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_packages_below_it(package: str):
    imported = {
        get_package(name) for module, names in IMPORTS.items() if get_package(module) == package for name in names
    }
    assert imported & PACKAGES.keys() <= PACKAGES[package] | {package}
    assert imported & TOP <= (ACCOUNTS if package == "doctor" else set())


def test_packages_have_an_order():
    assert PACKAGES.keys() == {path.parent.name for path in SOURCES if path.parent.parent.name == "np6_assets"}
    order = list(TopologicalSorter(PACKAGES).static_order())
    assert order.index("contact") < order.index("events") < order.index("rates") < order.index("refresh")


@pytest.mark.parametrize("folder", ["np6_assets", "benchmarks", "soak"])
def test_files_are_short(folder: str):
    lines = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lines
    assert {path: number for path, number in lines.items() if number > MOST_LINES} == {}


def test_class_names_are_unique():
    places: dict[str, list[str]] = defaultdict(list)
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}
