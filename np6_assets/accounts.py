"""Where workspace.yaml used to name accounts (`attribute: brand_b`): says what to write instead."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NoReturn

from np6_assets.component import SECRETS, NP6Account
from np6_assets.settings import SettingsError


def instead(environment: Mapping[str, str], name: str) -> Iterator[str]:
    """List what to write in place of an account's variables, a line each."""
    prefix = f"{name.upper()}_NP6_"
    yield (
        f"account {name}: np6_assets.accounts is gone; run `dg scaffold defs np6_assets.NP6Account {name}`, remove the "
        f"entry from workspace.yaml, and write below attributes in {name}/defs.yaml:"
    )
    shared = {variable: value for variable, value in environment.items() if variable.startswith("NP6_")}
    own = {
        variable.removeprefix(f"{name.upper()}_"): variable for variable in environment if variable.startswith(prefix)
    }
    secrets = {variable: attribute for attribute, variable in SECRETS.items()}
    if "NP6_DATA_DIR" not in own:
        yield f"data_dir: {environment.get('NP6_DATA_DIR', '').strip() or 'data'}/{name}"
    for variable in sorted({*shared, *own} - ({"NP6_DATA_DIR"} - own.keys())):
        attribute = variable.removeprefix("NP6_").lower()
        if variable in secrets:
            if variable in own:
                yield f"{secrets[variable]}: {own[variable]}"
        elif attribute in NP6Account.model_fields:
            yield f"{attribute}: {environment[own.get(variable, variable)].strip()}"


def __getattr__(name: str) -> NoReturn:
    if name.startswith("_"):
        raise AttributeError(name)
    raise SettingsError("\n".join(instead(os.environ, name)))
