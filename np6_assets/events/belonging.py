"""Whose events a data folder holds: `np6.json` of a run's folder, read before the first request, kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace

import dagster as dg
import pyarrow.parquet as pq

from np6_assets.events.kinds import KINDS
from np6_assets.events.written import zone_of
from np6_assets.partitions import EVENT_DATE
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import FILE, Identity, IdentityError, Pairs


class Belonging:
    """What a run may write into a folder, and what it adds to the folder's identity. `warn` takes one line."""

    def __init__(self, folder: Folder, settings: Settings, warn: Callable[[str], None]) -> None:
        """Raises a Failure that nobody retries where the folder belongs to something else."""
        self._folder = folder
        self._warn = warn
        self._run = run = identity_of(settings)
        try:
            stored = Identity.read(folder) or _adopted(folder, run, warn)
            if stored is not None:
                stored.check(folder, run)
        except IdentityError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        self._is_written = stored is not None
        self.identity = stored or run

    @property
    def agencies(self) -> frozenset[str]:
        """The known agencies; none where every one is admitted."""
        return frozenset(self.identity.agencies)

    def add(self, pairs: Pairs, gone: Collection[int] | None = None) -> None:
        """Events of these are about to be written, and the API does not know these notifications; None says nothing."""
        pairs = list(pairs)

        def merged(found: Identity | None) -> Identity:
            """What is there, and what is about to be written."""
            if found is not None:
                found.check(self._folder, self._run)
            seen = (found or self.identity).with_seen(pairs)
            seen = seen if gone is None else replace(seen, gone=sorted(gone))
            return seen if seen.contact == self._run.contact else replace(seen, contact="")

        seen = merged(None)
        if self._is_written and seen == self.identity:
            return
        for customer in seen.new_customers(self.identity):
            self._warn(f"customer {customer} is new: it is in {FILE} now")
        try:
            self.identity, self._is_written = Identity.update(self._folder, merged) or seen, True
        except IdentityError as error:  # another run was the first
            raise dg.Failure(str(error), allow_retries=False) from None


def has_answered(folder: Folder, address: str) -> bool:
    """Whether the folder holds what this address has answered, as far as it says so."""
    with suppress(IdentityError):  # told by what reads it next
        return (stored := Identity.read(folder)) is not None and stored.address == address
    return False


def identity_of(settings: Settings) -> Identity:
    """What a folder is that a run with these settings writes into first."""
    source = "sandbox" if settings.is_sandbox else "api"
    return Identity(
        source, settings.timezone, settings.account, settings.base_url, contact=settings.contact.fingerprint
    )


def _adopted(folder: Folder, run: Identity, warn: Callable[[str], None]) -> Identity | None:
    """That of a folder that version 0.1 wrote, from its files; None of an empty one."""
    found, zone = run, None
    for file in _files(folder):
        with folder.open(file) as opened:
            rows = pq.read_table(opened, columns=["agency", "customer"])
        pairs = rows.group_by(rows.column_names).aggregate([])
        found = found.with_seen(zip(*(column.to_pylist() for column in pairs.columns), strict=True))
        zone = zone or zone_of(rows.schema.metadata) or run.timezone
    if zone is None:
        return None
    found = replace(found, timezone=zone, contact="")
    found.write(folder)
    agencies = ", ".join(found.agencies) or "no agency"
    warn(f"{folder.path(FILE)} is new: the files that were there are days of {zone}, with events of {agencies}")
    return found


def _files(folder: Folder) -> Iterator[str]:
    for kind in KINDS:
        for day in parquet.days_stored(folder, kind.asset, EVENT_DATE):
            file = parquet.file_of(kind.asset, EVENT_DATE, str(day))
            if folder.exists(file):
                yield file
