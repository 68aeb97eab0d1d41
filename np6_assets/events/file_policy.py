"""The contact policy under which the stored days were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from np6_assets.contact.policy import SHORT_KEY, ContactPolicy
from np6_assets.events.kinds import KINDS
from np6_assets.partitions import EVENT_DATE
from np6_assets.storage.files import Folder

MADE_WITH = b"np6.made_with"
"""Key in a file's Parquet metadata: time zone and contact policy."""

_FOOTERS_AT_ONCE = 8
"""Footers read in parallel: an object store takes some ten milliseconds for each."""


def get_policy(metadata: dict[bytes, bytes] | None) -> str:
    """Return the fingerprint of a file's contact policy; empty if the file does not say."""
    return (metadata or {}).get(MADE_WITH, b"").decode().partition(" ")[2]


def get_timezone(metadata: dict[bytes, bytes] | None) -> str:
    """Return the time zone of a file's days; empty if the file does not say."""
    return (metadata or {}).get(MADE_WITH, b"").decode().partition(" ")[0]


def read_policies(folder: Folder, assets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield day and policy fingerprint of each file of some event assets or quarantines."""
    from np6_assets.storage import parquet

    def read(file: str) -> str | None:
        return get_policy(parquet.read_footer(folder, file).metadata) if folder.exists(file) else None

    days = [
        (str(day), parquet.build_path(asset, EVENT_DATE, str(day)))
        for asset in assets
        for day in parquet.list_days(folder, asset, EVENT_DATE)
    ]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="np6-footers") as pool:
        for (day, _), stored_as in zip(days, pool.map(read, [file for _, file in days]), strict=True):
            if stored_as is not None:
                yield day, stored_as


def check_pseudonym_key(policy: ContactPolicy, folder: Folder, warn: Callable[[str], None]) -> None:
    """Warn of a short pseudonym key; raise a Failure unless stored files have pseudonyms of it."""
    if not policy.has_short_key:
        return
    stored = read_policies(folder, [kind.asset for kind in KINDS])
    if not any(policy.has_same_receivers(stored_as) for _, stored_as in stored):
        raise dg.Failure(f"NP6_PSEUDONYM_KEY {SHORT_KEY}", allow_retries=False)
    warn(f"NP6_PSEUDONYM_KEY {SHORT_KEY}; it is taken, as stored files have pseudonyms of it")
