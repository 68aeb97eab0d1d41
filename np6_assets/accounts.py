"""Several accounts in one deployment: `attribute: brand_b` of this module, in workspace.yaml, is the account brand_b.

What belongs here: which settings an account has. Variables that begin with its name (BRAND_B_NP6_API_KEY) are its own;
the others it shares with all accounts, but for secrets and the data folder.
"""

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from np6_assets.settings import SettingsError

if TYPE_CHECKING:
    import dagster as dg

NOT_SHARED = ("NP6_API_KEY", "NP6_PSEUDONYM_KEY", "NP6_TOMBSTONE_KEY", "NP6_DATA_DIR")
"""What an account has from its own variables alone."""

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def variable_of(name: str, account: str | None) -> str:
    """The environment variable in which an account has a setting of its own."""
    return name if account is None else f"{account.upper()}_{name}"


def environment_of(environment: Mapping[str, str], account: str) -> dict[str, str]:
    """The environment of one of several accounts: its settings by the names that they have where there is one.

    Its data folder, where it names none, is one below NP6_DATA_DIR. Raises SettingsError for a name that cannot be a
    variable's or an asset's, and where another account has the same folder.
    """
    if not _NAME.fullmatch(account):
        raise SettingsError(f"account {account!r}: a name is lower-case letters, digits and single _, such as brand_b")
    shared = {name: value for name, value in environment.items() if name not in NOT_SHARED}
    prefix = variable_of("", account)
    own = {
        name.removeprefix(prefix): value
        for name, value in environment.items()
        if name.startswith(f"{prefix}NP6_") and value.strip()
    }
    common = environment.get("NP6_DATA_DIR", "").strip() or "data"
    found = {"NP6_DATA_DIR": posixpath.join(common, account), **shared, **own}
    folder = _comparable(found["NP6_DATA_DIR"])
    others = {"NP6_DATA_DIR": common} | {
        name: value
        for name, value in environment.items()
        if name.endswith("_NP6_DATA_DIR") and name != variable_of("NP6_DATA_DIR", account)
    }
    if same := sorted(name for name, value in others.items() if _comparable(value) == folder):
        raise SettingsError(f"account {account}: its data folder is that of {same[0]}; give each account its own")
    return found


def _comparable(folder: str) -> str:
    return folder.strip().rstrip("/").removeprefix("./").removeprefix("file://")


def __getattr__(name: str) -> "dg.Definitions":
    """The definitions of the account of that name."""
    if name.startswith("_"):
        raise AttributeError(name)
    from np6_assets.definitions import account

    return account(name)
