"""Whose events a data folder holds: a run checks `np6.json` before its first request and updates it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace

import pyarrow.parquet as pq

from np6_assets.events.file_policy import get_timezone
from np6_assets.events.kinds import KINDS
from np6_assets.partitions import EVENT_DATE
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import FILE, CustomerPairs, Identity, IdentityError


class FolderIdentity:
    """The identity of the folder that a run writes to. `warn` takes one line."""

    def __init__(self, folder: Folder, settings: Settings, warn: Callable[[str], None]) -> None:
        """Read or adopt the identity. Raises IdentityError if the folder belongs to something else."""
        self._folder = folder
        self._warn = warn
        self._run = run = build_identity(settings)
        stored = Identity.read(folder) or _adopt_folder(folder, run, warn)
        if stored is not None:
            stored.check_run(folder, run)
        self._is_written = stored is not None
        self.identity = stored or run

    @property
    def agencies(self) -> frozenset[str]:
        """The known agencies; empty if every one is admitted."""
        return frozenset(self.identity.agencies)

    def record_events(self, pairs: CustomerPairs, gone: Collection[int] | None = None) -> None:
        """Record the agencies and customers of events about to be written, and unknown notifications if given."""
        pairs = list(pairs)

        def add_pairs(found: Identity | None) -> Identity:
            if found is not None:
                found.check_run(self._folder, self._run)
            seen = (found or self.identity).add_customers(pairs)
            seen = seen if gone is None else replace(seen, gone=sorted(gone))
            return seen if seen.contact == self._run.contact else replace(seen, contact="")

        seen = add_pairs(None)
        if self._is_written and seen == self.identity:
            return
        for customer in seen.find_new_customers(self.identity):
            self._warn(f"customer {customer} is new: it is in {FILE} now")
        self.identity, self._is_written = Identity.update(self._folder, add_pairs) or seen, True


def has_answered(folder: Folder, address: str) -> bool:
    """Whether the folder's identity says that this address has answered before."""
    with suppress(IdentityError):  # reported by its next reader
        return (stored := Identity.read(folder)) is not None and stored.address == address
    return False


def build_identity(settings: Settings) -> Identity:
    """Build the identity of a new folder from the settings."""
    source = "sandbox" if settings.is_sandbox else "api"
    return Identity(
        source, settings.timezone, settings.account, settings.base_url, contact=settings.contact.fingerprint
    )


def _adopt_folder(folder: Folder, run: Identity, warn: Callable[[str], None]) -> Identity | None:
    """Build and write the identity of a folder of version 0.1 from its files; None if it is empty."""
    found, zone = run, None
    for file in _list_event_files(folder):
        with folder.open(file) as opened:
            rows = pq.read_table(opened, columns=["agency", "customer"])
        pairs = rows.group_by(rows.column_names).aggregate([])
        found = found.add_customers(zip(*(column.to_pylist() for column in pairs.columns), strict=True))
        zone = zone or get_timezone(rows.schema.metadata) or run.timezone
    if zone is None:
        return None
    found = replace(found, timezone=zone, contact="")
    found.write(folder)
    agencies = ", ".join(found.agencies) or "no agency"
    warn(f"{folder.path(FILE)} is new: the files that were there are days of {zone}, with events of {agencies}")
    return found


def _list_event_files(folder: Folder) -> Iterator[str]:
    for kind in KINDS:
        for day in parquet.list_days(folder, kind.asset, EVENT_DATE):
            file = parquet.build_path(kind.asset, EVENT_DATE, str(day))
            if folder.exists(file):
                yield file
