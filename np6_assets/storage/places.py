"""Which data folder is which, however it is written; and that no two accounts of a process have the same."""

from __future__ import annotations

import os
import posixpath
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import dagster as dg

from np6_assets.settings import Settings, SettingsError

_SAME_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}

_taken: WeakValueDictionary[tuple[str, str], dg.ResourceDefinition] = WeakValueDictionary()
"""The folders of the accounts that are loaded, by place and prefix; each until its definitions are gone."""


def place_of(data_dir: str) -> str:
    """A data folder as what it is: `data`, `./data/` and a link to it are one, and so are `s3://b//p/` and `s3a://b/p`."""
    scheme, separator, rest = data_dir.partition("://")
    if not separator or scheme in ("file", "local"):
        return os.path.realpath(rest if separator else data_dir.removeprefix("file:"))
    parts = urlsplit(f"//{rest}")
    path = posixpath.normpath(posixpath.join("/", parts.path.lstrip("/"))).strip("/")
    return f"{_SAME_SCHEMES.get(scheme.lower(), scheme.lower())}://{parts.netloc}/{path}".rstrip("/")


def take(settings: Settings, store: dg.ResourceDefinition) -> None:
    """Note that an account has a folder, as long as `store` lives. Raises SettingsError where another has it.

    Two processes cannot know of each other: there a run finds in `np6.json` whose the folder is.
    """
    place, account = place_of(settings.data_dir), settings.account or ""
    others = [other for taken, other in list(_taken) if taken == place and other != account]
    if others:
        of = f"account {others[0]}" if others[0] else "the account without a prefix"
        raise SettingsError(f"NP6_DATA_DIR={settings.data_dir!r} is the folder of {of}; give each account its own")
    _taken[place, account] = store
