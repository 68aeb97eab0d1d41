"""Every command and query of the documentation is run, every file and setting in it is there.

Commands of one block run one after the other in one shell, as they are written, in a folder that has what a clone has,
with two days of the simulated account. `make` is asked whether it knows its target: what the targets do (the demo,
this suite, the benchmarks, the endurance suite) has tests of its own.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import dagster as dg
import pytest
import yaml

from np6_assets.definitions import defs
from np6_assets.settings import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "docs/operating.md",
    "docs/troubleshooting.md",
    "soak/README.md",
)

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


@pytest.mark.parametrize(
    "line", sorted({line for _, text in SHELL if text.startswith("make ") for line in text.strip().splitlines()})
)
def test_make_knows_the_target(line: str) -> None:
    assert line.startswith("make ")
    done = subprocess.run(["bash", "-c", line.replace("make", "make --dry-run", 1)], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


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


def run(folder: Path, text: str) -> str:
    """What a block prints. It has to end well."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NP6_", "DAGSTER_"))}
    environment |= {
        "NP6_BASE_URL": "sandbox://",
        "PATH": f"{Path(sys.prefix) / 'bin'}:{environment['PATH']}",
        "PYTHONPATH": str(folder / "stubs"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("document", "text"), RUN, ids=[text.splitlines()[0] for _, text in RUN])
def test_commands_and_queries_do_what_they_say(document: str, text: str, clone: Path) -> None:
    for written, instead in INSTEAD.items():
        text = text.replace(written, instead)
    printed = run(clone, text)
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
def test_files_that_are_linked_are_there(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


def test_every_setting_is_in_the_table_and_in_the_example_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(NP6_\w+)` \| (none|`[^`]*`) \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    example = dict(re.findall(r"^#(NP6_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {name: default.strip("`") for name, default in table.items()} == {
        name: default or "none" for name, default in example.items()
    }
    # contact data, its key and the URL parameters are one field, and the account's name is no variable
    settings = {field.name for field in fields(Settings)} - {"account"}
    assert len(table) == len(settings) + 2
    assert Settings.from_environment({}) == Settings.from_environment({k: v for k, v in example.items() if v})


def test_every_setting_that_is_named_is_one() -> None:
    table = set(re.findall(r"^\| `(NP6_\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    named = {name for one in DOCUMENTS for name in re.findall(r"\bNP6_[A-Z_]+\b", (ROOT / one).read_text())}
    assert named - table == {"NP6_UPDATE_SNAPSHOT"}  # of the tests
