"""Every command and query of the documentation is run, every file and setting in it is there.

Commands of one block run one after the other in one shell, as they are written, in a folder that has what a clone has,
with two days of the simulated account. `make` is asked whether it knows its target: what the targets do (the demo,
this suite, the benchmarks, the endurance suite) has tests of its own.
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
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "soak/README.md")
DOCUMENTS = ("README.md", *BESIDE, *DEPLOY, *PAGES)

SETTINGS = ROOT / "docs/settings.md"

# What is written for a person, and how the test does it.
INSTEAD = {
    "--watch 300": "--watch 1",  # five minutes of looking
    "2026-03-20...2026-04-12": "2026-03-20...2026-03-21",  # as many commands, fewer days
    "2026-03-20...2026-04-05": "2026-03-20...2026-03-21",
}
# Spark needs Java; DuckDB has its interface.
PYSPARK = """
from duckdb.experimental.spark.sql import *
from duckdb.experimental.spark.sql import functions
"""

# The project in which the commands of docs/embedding.md are run: what they make is not for this one.
PROJECT = """
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "host"
"""

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str, str]]:
    """Document, language and text of each block of code."""
    for document in DOCUMENTS:
        for language, text in FENCED.findall((ROOT / document).read_text()):
            yield document, language, text


SHELL = [(document, text) for document, language, text in blocks() if language == "sh"]
RUN = [(document, text) for document, text in SHELL if not text.startswith("make ")]


def test_blocks_are_in_languages_that_are_looked_at() -> None:
    assert {language for _, language, _ in blocks()} == {"sh", "mermaid", "yaml", "python", ""}


def test_make_knows_the_targets() -> None:
    lines = {line for _, text in SHELL if text.startswith("make ") for line in text.strip().splitlines()}
    words = [shlex.split(line, comments=True) for line in lines]
    assert {make for make, *_ in words} == {"make"}
    done = subprocess.run(["make", "--dry-run", *chain(*(line[1:] for line in words))], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_accounts_in_yaml_load(tmp_path: Path) -> None:
    [account] = [text for _, language, text in blocks() if text.startswith("type: np6_assets.NP6Account")]
    [processing] = [text for _, language, text in blocks() if text.startswith("post_processing:")]
    made = load_project(tmp_path, yaml.safe_load(account)["attributes"], **yaml.safe_load(processing))
    [report] = [one for one in made.resolve_all_asset_specs() if one.key.path == ["brand_a", "reactivity_report"]]
    assert (report.tags["tier"], report.automation_condition) == ("gold", dg.AutomationCondition.eager())


def test_a_run_s_config_is_one() -> None:
    [config] = [text for _, language, text in blocks() if language == "yaml" and text.startswith("ops:")]
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
    (pyspark / "__init__.py").write_text(PYSPARK)
    run(folder, ".venv/bin/np6-assets demo --days 2")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder like a project of somebody else's, in whose environment the package is."""
    create_project(tmp_path)
    [package] = tmp_path.glob("host_*")
    package.rename(tmp_path / "host")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def run(folder: Path, text: str) -> str:
    """What a block prints. It has to end well."""
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
def test_commands_and_queries_do_what_they_say(document: str, text: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue("project" if document == "docs/embedding.md" else "clone")
    for written, instead in INSTEAD.items():
        text = text.replace(written, instead)
    printed = run(folder, text)
    if "<<'END'" in text:  # a query: it prints a table of numbers
        assert len(re.findall(r"^.*\d.*$", printed, re.MULTILINE)) >= 2, printed


@pytest.mark.parametrize("written", INSTEAD)
def test_what_is_done_otherwise_is_still_written(written: str) -> None:
    assert any(written in text for _, text in RUN)


def test_settings_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    command = "install -m 600 .env.example .env"
    assert command in (ROOT / "README.md").read_text()
    assert command in (ROOT / ".env.example").read_text()
    (tmp_path / ".env.example").symlink_to(ROOT / ".env.example")
    run(tmp_path, f"umask 000; {command}")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings_that_are_there(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    broken = []
    for link in links:
        path, _, heading = link.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        if not file.exists() or (heading and heading not in headings(file.read_text())):
            broken.append(link)
    assert broken == []


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES)
def test_page_begins_with_who_it_is_for_and_is_read_in_five_minutes(page: str) -> None:
    text = (ROOT / page).read_text()
    assert re.match(r"# .+\n\nFor ", text)
    assert len(re.sub(FENCED, "", text).split()) <= 1250  # words, at 250 a minute


def test_each_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page for page in PAGES if f"({page})" not in readme] == []
    assert len(readme.splitlines()) <= 150


def test_every_setting_is_in_the_table_and_in_the_example_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(NP6_\w+)` \| (none|`[^`]*`) \|", SETTINGS.read_text(), re.MULTILINE))
    example = dict(re.findall(r"^#(NP6_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {name: default.strip("`") for name, default in table.items()} == {
        name: default or "none" for name, default in example.items()
    }
    # contact data, its key and the URL parameters are one field; these two are no variables
    settings = {field.name for field in fields(Settings)} - {"account", "key_variable"}
    assert len(table) == len(settings) + 2
    assert Settings.from_environment({}) == Settings.from_environment({k: v for k, v in example.items() if v})


def test_every_setting_that_is_named_is_one() -> None:
    table = set(re.findall(r"^\| `(NP6_\w+)` \|", SETTINGS.read_text(), re.MULTILINE))
    named = {name for one in DOCUMENTS for name in re.findall(r"\bNP6_[A-Z_]+\b", (ROOT / one).read_text())}
    assert named - table == {"NP6_UPDATE_SNAPSHOT"}  # of the tests
