"""Create a user's project, as `dg` does, with accounts in its `defs` folder."""

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
    """Write an account's `defs.yaml`, in a folder of its name."""
    folder = defs / str(attributes["asset_key_prefix"] or "unnamed")
    folder.mkdir(parents=True)
    content = {"type": "np6_assets.NP6Account", "attributes": dict(attributes), **rest}
    (folder / "defs.yaml").write_text(yaml.safe_dump(content))


def create_project(folder: Path, *accounts: Mapping[str, Any], **rest: Any) -> str:
    """Create a package with a `defs.yaml` for each account (`rest`: beside the attributes); return its name."""
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
    """Create a project and load its definitions. Raises the cause of Dagster's error."""
    package = create_project(folder, *accounts, **rest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's, about Dagster
        try:
            sys.path.insert(0, str(folder))
            module = importlib.import_module(f"{package}.defs")
            definitions = dg.ComponentTree.from_module(module, folder).build_defs()
            dg.Definitions.validate_loadable(definitions)
        except Exception as error:  # noqa: BLE001 -- of any class
            raise find_cause(error) from None
        finally:
            sys.path.remove(str(folder))
    return definitions


def find_cause(error: BaseException) -> BaseException:
    """Return the first cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
