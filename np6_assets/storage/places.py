"""The location of a data folder, however it is written; no two accounts of a process share one."""

from __future__ import annotations

import os
import posixpath
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import dagster as dg

from np6_assets.settings import Settings, SettingsError

_SAME_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}

_claimed: WeakValueDictionary[tuple[str, str], dg.ResourceDefinition] = WeakValueDictionary()
"""The folders of the loaded accounts, by location and prefix, until their definitions are deleted."""


def normalize_location(data_dir: str) -> str:
    """Normalize a data folder: `data`, `./data/` and a link to it are one, as are `s3://b//p/` and `s3a://b/p`."""
    scheme, separator, rest = data_dir.partition("://")
    if not separator or scheme in ("file", "local"):
        return os.path.realpath(rest if separator else data_dir.removeprefix("file:"))
    parts = urlsplit(f"//{rest}")
    path = posixpath.normpath(posixpath.join("/", parts.path.lstrip("/"))).strip("/")
    return f"{_SAME_SCHEMES.get(scheme.lower(), scheme.lower())}://{parts.netloc}/{path}".rstrip("/")


def claim_folder(settings: Settings, store: dg.ResourceDefinition) -> None:
    """Claim a folder for an account, as long as `store` lives. Raises SettingsError if another has it.

    Across processes, a run checks `np6.json` instead.
    """
    place, account = normalize_location(settings.data_dir), settings.account or ""
    others = [other for taken, other in list(_claimed) if taken == place and other != account]
    if others:
        of = f"account {others[0]}" if others[0] else "the account without a prefix"
        raise SettingsError(f"NP6_DATA_DIR={settings.data_dir!r} is the folder of {of}; give each account its own")
    _claimed[place, account] = store
