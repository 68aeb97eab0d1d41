"""Under which contact policy the stored days were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from np6_assets.contact.policy import SHORT, ContactPolicy
from np6_assets.events.kinds import KINDS
from np6_assets.partitions import EVENT_DATE
from np6_assets.storage.files import Folder

MADE_WITH = b"np6.made_with"
"""Key in a file's Parquet metadata: time zone and contact policy."""

_FOOTERS_AT_ONCE = 8
"""In an object store each takes some ten milliseconds."""


def policy_of(metadata: dict[bytes, bytes] | None) -> str:
    """The fingerprint of the policy under which a file was written; empty where the file does not say."""
    return (metadata or {}).get(MADE_WITH, b"").decode().partition(" ")[2]


def zone_of(metadata: dict[bytes, bytes] | None) -> str:
    """The time zone whose days a file holds; empty where the file does not say."""
    return (metadata or {}).get(MADE_WITH, b"").decode().partition(" ")[0]


def policies(folder: Folder, assets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Day and fingerprint of each file of some event assets, or of their quarantine."""
    from np6_assets.storage import parquet

    def read(file: str) -> str | None:
        return policy_of(parquet.footer(folder, file).metadata) if folder.exists(file) else None

    days = [
        (str(day), parquet.file_of(asset, EVENT_DATE, str(day)))
        for asset in assets
        for day in parquet.days_stored(folder, asset, EVENT_DATE)
    ]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="np6-footers") as pool:
        for (day, _), stored_as in zip(days, pool.map(read, [file for _, file in days]), strict=True):
            if stored_as is not None:
                yield day, stored_as


def check_pseudonym_key(policy: ContactPolicy, folder: Folder, warn: Callable[[str], None]) -> None:
    """Warn of a key that could be guessed; raise a Failure where no stored file has pseudonyms of it."""
    if not policy.has_short_key:
        return
    stored = policies(folder, [kind.asset for kind in KINDS])
    if not any(policy.wrote_receivers(stored_as) for _, stored_as in stored):
        raise dg.Failure(f"NP6_PSEUDONYM_KEY {SHORT}", allow_retries=False)
    warn(f"NP6_PSEUDONYM_KEY {SHORT}; it is taken, as stored files have pseudonyms of it")
