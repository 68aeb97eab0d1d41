"""A project of somebody else's, as `dg` makes one, with accounts in its `defs` folder."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

# As `create-dagster project` writes it.
DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


def write_account(defs: Path, attributes: Mapping[str, Any], **rest: Any) -> None:
    """Write the `defs.yaml` of an account, in a folder of its name."""
    folder = defs / str(attributes["asset_key_prefix"] or "unnamed")
    folder.mkdir(parents=True)
    content = {"type": "np6_assets.NP6Account", "attributes": dict(attributes), **rest}
    (folder / "defs.yaml").write_text(yaml.safe_dump(content))


def make_project(folder: Path, *accounts: Mapping[str, Any], **rest: Any) -> str:
    """Make a package with a `defs.yaml` for each account; `rest` goes beside their attributes. Gives its name."""
    package = folder / f"host_{abs(hash(str(folder)))}"
    defs = package / "defs"
    defs.mkdir(parents=True)
    for place in (package, defs):
        (place / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    for attributes in accounts:
        write_account(defs, attributes, **rest)
    return package.name


def load_project(folder: Path, *accounts: Mapping[str, Any], **rest: Any) -> dg.Definitions:
    """What Dagster loads of such a project. Raises the error that is behind Dagster's."""
    package = make_project(folder, *accounts, **rest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's, about Dagster
        try:
            sys.path.insert(0, str(folder))
            module = importlib.import_module(f"{package}.defs")
            made = dg.ComponentTree.from_module(module, folder).build_defs()
            dg.Definitions.validate_loadable(made)
        except Exception as error:  # noqa: BLE001 - the test says which
            raise find_cause(error) from None
        finally:
            sys.path.remove(str(folder))
    return made


def find_cause(error: BaseException) -> BaseException:
    """What is behind an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
