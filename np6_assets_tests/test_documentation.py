"""Run every command and query of the documentation, and find every file and setting that it names.

The commands of a block run in one shell, in a folder like a clone with two days of the simulated account. Of `make`
only the targets are looked up: the demo, this suite, the benchmarks and the endurance suite have their own tests.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import chain
from pathlib import Path

import dagster as dg
import pytest
import yaml

from np6_assets.definitions import defs
from np6_assets.settings import Settings
from np6_assets_tests.support.dagster_processes import build_environment
from np6_assets_tests.support.project import create_project, load_project

ROOT = Path(__file__).parents[1]
PAGES = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))
DEPLOY = sorted(f"deploy/{page.parent.name}/README.md" for page in (ROOT / "deploy").glob("*/README.md"))
OTHERS = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "soak/README.md")
DOCUMENTS = ("README.md", *OTHERS, *DEPLOY, *PAGES)

SETTINGS = ROOT / "docs/settings.md"

# Commands that the test replaces.
REPLACED = {
    "--watch 300": "--watch 1",  # not five minutes
    "2026-03-20...2026-04-12": "2026-03-20...2026-03-21",  # fewer days
    "2026-03-20...2026-04-05": "2026-03-20...2026-03-21",
}
# Spark needs Java; DuckDB has the same interface.
PYSPARK = """
from duckdb.experimental.spark.sql import *
from duckdb.experimental.spark.sql import functions
"""

# The project in which the commands of docs/embedding.md are run.
PROJECT = """
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "host"
"""

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def list_blocks() -> Iterator[tuple[str, str, str]]:
    """Yield document, language and text of each block of code."""
    for document in DOCUMENTS:
        for language, text in FENCED.findall((ROOT / document).read_text()):
            yield document, language, text


SHELL = [(document, text) for document, language, text in list_blocks() if language == "sh"]
RUN = [(document, text) for document, text in SHELL if not text.startswith("make ")]


def test_blocks_are_in_tested_languages() -> None:
    assert {language for _, language, _ in list_blocks()} == {"sh", "mermaid", "yaml", "python", ""}


def test_make_knows_the_targets() -> None:
    lines = {line for _, text in SHELL if text.startswith("make ") for line in text.strip().splitlines()}
    words = [shlex.split(line, comments=True) for line in lines]
    assert {make for make, *_ in words} == {"make"}
    done = subprocess.run(["make", "--dry-run", *chain(*(line[1:] for line in words))], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_accounts_in_yaml_load(tmp_path: Path) -> None:
    [account] = [text for _, language, text in list_blocks() if text.startswith("type: np6_assets.NP6Account")]
    [processing] = [text for _, language, text in list_blocks() if text.startswith("post_processing:")]
    definitions = load_project(tmp_path, yaml.safe_load(account)["attributes"], **yaml.safe_load(processing))
    [report] = [
        one for one in definitions.resolve_all_asset_specs() if one.key.path == ["brand_a", "reactivity_report"]
    ]
    assert (report.tags["tier"], report.automation_condition) == ("gold", dg.AutomationCondition.eager())


def test_run_config_is_valid() -> None:
    [config] = [text for _, language, text in list_blocks() if language == "yaml" and text.startswith("ops:")]
    assert dg.validate_run_config(defs.resolve_job_def("erase_receiver"), yaml.safe_load(config))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a clone of the repository after `make demo`."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("np6_assets", "np6_assets_tests", "pyproject.toml", "workspace.yaml", "dagster.yaml", ".env.example"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    pyspark = folder / "stubs" / "pyspark" / "sql"
    pyspark.mkdir(parents=True)
    (pyspark.parent / "__init__.py").touch()
    (pyspark / "__init__.py").write_text(PYSPARK)
    run(folder, ".venv/bin/np6-assets demo --days 2")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder like another project that uses the package."""
    create_project(tmp_path)
    [package] = tmp_path.glob("host_*")
    package.rename(tmp_path / "host")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def run(folder: Path, text: str) -> str:
    """Run a block, assert that it succeeds, and return its output."""
    environment = build_environment(
        NP6_BASE_URL="sandbox://",
        PATH=f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        PYTHONPATH=f"{folder / 'stubs'}:{folder}" if (folder / "stubs").exists() else str(folder),
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("document", "text"), RUN, ids=[text.splitlines()[0] for _, text in RUN])
def test_commands_and_queries_run(document: str, text: str, request: pytest.FixtureRequest) -> None:
    assert all(any(written in one for _, one in RUN) for written in REPLACED)
    folder: Path = request.getfixturevalue("project" if document == "docs/embedding.md" else "clone")
    for written, instead in REPLACED.items():
        text = text.replace(written, instead)
    printed = run(folder, text)
    if "<<'END'" in text:  # a query: it prints a table of numbers
        assert len(re.findall(r"^.*\d.*$", printed, re.MULTILINE)) >= 2, printed


def test_settings_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    command = "install -m 600 .env.example .env"
    assert command in (ROOT / "README.md").read_text()
    assert command in (ROOT / ".env.example").read_text()
    (tmp_path / ".env.example").symlink_to(ROOT / ".env.example")
    run(tmp_path, f"umask 000; {command}")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_links_lead_to_existing_files_and_headings() -> None:
    broken = []
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text()):
            path, _, heading = link.partition("#")
            file = (ROOT / document).parent / path if path else ROOT / document
            if "://" not in link and not (file.exists() and (not heading or heading in list_anchors(file.read_text()))):
                broken.append((document, link))
    assert broken == []


def list_anchors(text: str) -> set[str]:
    """List the anchors that GitHub gives the headings of a page."""
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_pages_are_linked_and_short_and_name_their_readers() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    for page in PAGES:
        text = (ROOT / page).read_text()
        assert f"({page})" in readme
        assert re.match(r"# .+\n\nFor ", text), page
        assert len(re.sub(FENCED, "", text).split()) <= 1250, page  # words, at 250 a minute


def test_settings_table_and_example_have_every_default() -> None:
    table = dict(re.findall(r"^\| `(NP6_\w+)` \| (none|`[^`]*`) \|", SETTINGS.read_text(), re.MULTILINE))
    example = dict(re.findall(r"^#(NP6_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {name: default.strip("`") for name, default in table.items()} == {
        name: default or "none" for name, default in example.items()
    }
    # contact data, its key and the URL parameters are one field; these two are no variables
    settings = {field.name for field in fields(Settings)} - {"account", "key_variable"}
    assert len(table) == len(settings) + 2
    assert Settings.from_environment({}) == Settings.from_environment({k: v for k, v in example.items() if v})


def test_documents_name_known_settings() -> None:
    table = set(re.findall(r"^\| `(NP6_\w+)` \|", SETTINGS.read_text(), re.MULTILINE))
    named = {name for one in DOCUMENTS for name in re.findall(r"\bNP6_[A-Z_]+\b", (ROOT / one).read_text())}
    assert named - table == {"NP6_UPDATE_SNAPSHOT"}  # of the tests
