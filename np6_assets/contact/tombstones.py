"""Tombstones: which receivers were erased, as salted digests, so that no later fetch brings them back."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from np6_assets.storage.files import Folder

FILE = ".erased/tombstones.json"
"""Below the data folder; hidden, so that readers pass over it."""

RECEIVER_COLUMNS = ("receiver_id", "receiver_unicity", "receiver_hash")
"""The columns of an event asset that name its receiver."""


class TombstonesError(Exception):
    """The tombstones are there and cannot be read."""


@dataclass(frozen=True)
class Tombstones:
    """The digests of what names erased receivers. Says of a value whether it is one of them, and not which they are."""

    salt: bytes
    digests: frozenset[str] = frozenset()

    @classmethod
    def read(cls, folder: Folder) -> Tombstones:
        """Those of a data folder; none where nobody was ever erased. Raises TombstonesError."""
        if not folder.exists(FILE):
            return cls(secrets.token_bytes(32))
        try:
            with folder.open(FILE) as file:
                said = json.load(file)
            return cls(bytes.fromhex(said["salt"]), frozenset(map(str, said["digests"])))
        except (ValueError, KeyError, TypeError):
            raise TombstonesError(
                f"{folder.path(FILE)} is broken: restore it from a backup, as without it erased receivers come back"
            ) from None

    def write(self, folder: Folder) -> None:
        """Put them into a data folder, for its owner's eyes alone where that can be said."""
        with folder.replacing(FILE) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(json.dumps({"salt": self.salt.hex(), "digests": sorted(self.digests)}).encode())

    def covering(self, values: Iterable[str]) -> Tombstones:
        """These, and those of more values."""
        return replace(self, digests=self.digests | set(map(self._digest, values)))

    def name(self, event: Any) -> bool:
        """Whether a text or a number anywhere in an event of any shape is one of the values."""
        if not self.digests:
            return False
        if isinstance(event, dict):
            return any(map(self.name, event.values()))
        if isinstance(event, list):
            return any(map(self.name, event))
        return event is not None and self._digest(str(event)) in self.digests

    def named(self, table: pa.Table) -> pa.ChunkedArray:
        """For each row whether one of RECEIVER_COLUMNS holds one of the values."""
        found = pa.chunked_array([pa.repeat(False, table.num_rows)])
        for name in RECEIVER_COLUMNS if self.digests else ():
            column = table.column(name)
            erased = [value for value in pc.unique(column.drop_null()).to_pylist() if self.name(value)]
            if erased:
                found = pc.or_(found, pc.is_in(column, value_set=pa.array(erased, pa.string())))
        return found

    def without(self, table: pa.Table) -> pa.Table:
        """The rows of all others."""
        return table.filter(pc.invert(self.named(table))) if self.digests else table

    def _digest(self, value: str) -> str:
        return hashlib.blake2b(value.encode(errors="surrogatepass"), key=self.salt, digest_size=16).hexdigest()


def tombstones_of(folder: Folder) -> Tombstones:
    """The tombstones of a data folder. Raises a Failure that nobody retries where they cannot be read."""
    from np6_assets.contact.tombstones import Tombstones, TombstonesError

    try:
        return Tombstones.read(folder)
    except TombstonesError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
