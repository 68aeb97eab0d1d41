"""Tombstones: keyed digests of erased receivers, which keep them out of later fetches."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from np6_assets.contact.receiver import find_receiver_values
from np6_assets.storage.files import ANY_VERSION, ExpectedVersion, Folder, Version, retry_if_changed
from np6_assets.storage.identity import FolderError, Identity

FILE = ".erased/tombstones.json"
"""Below the data folder; hidden, so that readers skip it."""

RECEIVER_COLUMNS = ("receiver_id", "receiver_unicity", "receiver_hash")
"""The columns of an event asset that name its receiver."""

_MODE = 0o600


class TombstonesError(FolderError):
    """The tombstones cannot be read or used."""


@dataclass(frozen=True)
class Tombstones:
    """The digests of erased receivers' values. They answer whether a value is among them, and cannot be listed.

    `digests` are keyed with a secret that is stored elsewhere; `salted` ones are of version 0.1. `version` is that of
    their file.
    """

    key: bytes = field(repr=False)
    digests: frozenset[str] = frozenset()
    salt: bytes = b""
    salted: frozenset[str] = frozenset()
    version: Version | None = field(default=None, compare=False)

    @classmethod
    def read(cls, folder: Folder, secret: str) -> Tombstones:
        """Read those of a data folder; empty if nobody was erased. `secret` is NP6_TOMBSTONE_KEY.

        Raises TombstonesError if they cannot be read, or have another secret, and IdentityError.
        """
        key = hashlib.blake2b(secret.encode(), person=b"np6 tombstones").digest() if secret else b""
        try:
            with folder.open(FILE) as file:
                version = folder.get_version(file)
                found = json.load(file)
            keyed = found.get("keyed", {"check": "", "digests": []}) if "salt" in found else found["keyed"]
            check = str(keyed["check"])
            made = cls(
                key,
                frozenset(map(str, keyed["digests"])),
                bytes.fromhex(found.get("salt", "")),
                frozenset(map(str, found["digests"] if "salt" in found else ())),
                version,
            )
        except FileNotFoundError:
            _check_not_lost(folder)
            return cls(key)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TombstonesError(
                f"{folder.path(FILE)} is broken: restore it from a backup, as without it erased receivers come back"
            ) from None
        if made.digests and check != made._check:
            what = "is not the key that" if key else "is not set, and is the key that"
            raise TombstonesError(
                f"NP6_TOMBSTONE_KEY {what} the tombstones of erased receivers were written with; set it to that one, "
                "as without it erased receivers come back"
            )
        return made

    @classmethod
    def add(cls, folder: Folder, secret: str, values: Collection[str]) -> Tombstones:
        """Add values to those of a data folder, also while others add some, and return them."""

        def attempt() -> Tombstones:
            found = cls.read(folder, secret)
            found.add_values(values).write(folder, found.version)
            return cls.read(folder, secret)

        return retry_if_changed(attempt)

    def write(self, folder: Folder, before: ExpectedVersion = ANY_VERSION) -> None:
        """Write them to a data folder, readable by its owner only if that is possible."""
        found: dict[str, Any] = {"keyed": {"check": self._check, "digests": sorted(self.digests)}}
        if self.salted:
            found |= {"salt": self.salt.hex(), "digests": sorted(self.salted)}
        with folder.replace(FILE, _MODE, before) as file:
            file.write(json.dumps(found).encode())

    def add_values(self, values: Iterable[str]) -> Tombstones:
        """Return a copy with more values. Raises TombstonesError without a secret."""
        if not self.key:
            raise TombstonesError("NP6_TOMBSTONE_KEY is not set: an erasure needs a secret key for its tombstones")
        return replace(self, digests=self.digests | {_digest(value, self.key) for value in values if value})

    def match(self, value: str) -> bool:
        """Whether a value, as it is or normalized, was erased. An empty one is nobody's."""
        if not value or not (self.digests or self.salted):
            return False
        return any(
            _digest(form, self.key) in self.digests or (bool(self.salted) and _digest(form, self.salt) in self.salted)
            for form in {value, normalize(value)}
        )

    def match_event(self, event: Any) -> bool:
        """Whether the receiver of an event of any shape was erased."""
        return bool(self.digests or self.salted) and any(map(self.match, find_receiver_values(event)))

    def match_rows(self, table: pa.Table) -> pa.ChunkedArray:
        """For each row whether one of RECEIVER_COLUMNS holds one of the values."""
        found = pa.chunked_array([pa.repeat(False, table.num_rows)])
        for name in RECEIVER_COLUMNS if self.digests or self.salted else ():
            column = table.column(name)
            erased = [value for value in pc.unique(column.drop_null()).to_pylist() if self.match(value)]
            if erased:
                found = pc.or_(found, pc.is_in(column, value_set=pa.array(erased, pa.string())))
        return found

    def drop_erased(self, table: pa.Table) -> pa.Table:
        """Return the rows of all other receivers."""
        return table.filter(pc.invert(self.match_rows(table))) if self.digests or self.salted else table

    @property
    def _check(self) -> str:
        """What tells the secret from another; it is too long to be found by trying."""
        return _digest("which secret it is", self.key)


def _digest(value: str, key: bytes) -> str:
    return hashlib.blake2b(value.encode(errors="surrogatepass"), key=key, digest_size=16).hexdigest()


def normalize(value: str) -> str:
    """Normalize a value to one Unicode form, and an address to one case."""
    composed = unicodedata.normalize("NFC", value)
    return unicodedata.normalize("NFC", composed.casefold()) if "@" in composed else composed


def _check_not_lost(folder: Folder) -> None:
    identity = Identity.read(folder)
    if identity is not None and identity.has_tombstones:
        raise TombstonesError(
            f"{folder.path(FILE)} is gone, though receivers were erased: restore it from a backup, as without it "
            "erased receivers come back"
        )


class TombstonesWatcher:
    """The tombstones of a data folder during a run, in which others may add some."""

    def __init__(self, folder: Folder, secret: str) -> None:
        self._folder = folder
        self._secret = secret
        self.tombstones = Tombstones.read(folder, secret)
        self.has_grown = False
        """Whether there are more than at first."""

    def reload(self) -> bool:
        """Read the tombstones again if they changed, and return whether they did."""
        if self._folder.find_version(FILE) == self.tombstones.version:
            return False
        self.tombstones = Tombstones.read(self._folder, self._secret)
        self.has_grown = True
        return True
