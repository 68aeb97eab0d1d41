"""Which accounts a project has: that of the environment, and those of its `defs` folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

import np6_assets.defs
from np6_assets.component import NP6Account


def select_accounts(environment: Mapping[str, str], tree: dg.ComponentTree) -> list[NP6Account]:
    """Select the accounts, that of the environment first. Raises SettingsError where its variables are wrong.

    It stands aside where it names no account (neither NP6_API_KEY nor NP6_BASE_URL is set) and there are others.
    """
    others = tree.get_all_components(NP6Account)
    if others and not any(environment.get(name, "").strip() for name in ("NP6_API_KEY", "NP6_BASE_URL")):
        return others
    return [NP6Account.from_environment(environment), *others]


def load_own_components() -> dg.ComponentTree:
    """Load the components in this package's folder `defs`."""
    folder = Path(np6_assets.defs.__path__[0])
    return dg.ComponentTree.from_module(np6_assets.defs, folder.parents[1])


def load_components() -> dg.ComponentTree:
    """Load the components of the project in the working directory, or else this package's own."""
    try:
        return dg.ComponentTree.for_project(Path.cwd())
    except dg.DagsterError:  # no project
        return load_own_components()


@contextmanager
def quiet() -> Iterator[None]:
    """Load components without Dagster's notes that a part of itself is new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield
