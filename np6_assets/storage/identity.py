"""The identity of a data folder: `np6.json`, written with its first file and checked by every run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

import dagster as dg

from np6_assets.storage.files import ANY_VERSION, ExpectedVersion, Folder, Version, retry_if_changed

FILE = "np6.json"
"""Below the data folder. An agency, or another prefix, is admitted by editing it."""

SOURCES = {"api": "the API's events", "sandbox": "the simulated account's events"}

CustomerPairs = Iterable[tuple[str | None, str | None]]
"""Agencies and customers of events."""


class FolderError(dg.Failure):
    """The data folder cannot be used as it is: a run fails, and is not retried."""

    def __init__(self, text: str) -> None:
        super().__init__(text, allow_retries=False)


class IdentityError(FolderError):
    """The folder belongs to another source, zone or account, or its identity is broken."""


@dataclass(frozen=True)
class Identity:
    """What a folder holds.

    Attributes:
        source: a key of SOURCES.
        timezone: the IANA name of the zone of its days.
        asset_key_prefix: the account's; None if it has none.
        address: of the API; recorded, never compared.
        agencies: the customers of each agency seen. Empty until the first event: then every one is admitted.
        gone: ids of notifications that the API did not know (404) at the last request.
        has_tombstones: whether receivers were erased.
        contact: fingerprint of the contact policy of all files; empty if they have several, or it is not known.
    """

    source: str
    timezone: str
    asset_key_prefix: str | None = None
    address: str = ""
    agencies: Mapping[str, list[str]] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    has_tombstones: bool = False
    contact: str = ""

    @classmethod
    def read(cls, folder: Folder) -> Identity | None:
        """Read a folder's identity; None if it has none. Raises IdentityError."""
        return cls._read(folder)[0]

    @classmethod
    def update(cls, folder: Folder, change: Callable[[Identity | None], Identity | None]) -> Identity | None:
        """Replace a folder's identity by what `change` makes of it, also while others write it."""

        def attempt() -> Identity | None:
            found, version = cls._read(folder)
            changed = change(found)
            if changed is not None and changed != found:
                changed.write(folder, version)
            return changed

        return retry_if_changed(attempt)

    @classmethod
    def _read(cls, folder: Folder) -> tuple[Identity | None, Version | None]:
        try:
            with folder.open(FILE) as file:
                version = folder.get_version(file)
                found = cls(**json.load(file))
            if found.source not in SOURCES or not all(isinstance(one, list) for one in found.agencies.values()):
                raise ValueError
        except FileNotFoundError:
            return None, None
        except (ValueError, TypeError, AttributeError):
            path = folder.path(FILE)
            raise IdentityError(f"{path} is broken: restore it, or remove it and it is made anew") from None
        return found, version

    def write(self, folder: Folder, before: ExpectedVersion = ANY_VERSION) -> None:
        """Write it to a folder, in place of the version expected `before`."""
        with folder.replace(FILE, before=before) as file:
            file.write(json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n")

    def check_run(self, folder: Folder, run: Identity) -> None:
        """Raise IdentityError if a run with the identity `run` may not write into this folder."""
        where = f"{folder.path(FILE)} says"
        if self.source != run.source:
            raise IdentityError(
                f"{where} that the folder holds {SOURCES[self.source]}, and NP6_BASE_URL stands for "
                f"{SOURCES[run.source]}: set NP6_DATA_DIR to another folder"
            )
        if self.timezone != run.timezone:
            raise IdentityError(
                f"{where} that its days are days of {self.timezone}, and NP6_TIMEZONE is {run.timezone}: "
                "set it back, or set NP6_DATA_DIR to another folder"
            )
        if self.asset_key_prefix != run.asset_key_prefix:
            raise IdentityError(
                f"{where} that it belongs to {_name_account(self.asset_key_prefix)}, and this is "
                f"{_name_account(run.asset_key_prefix)}: set NP6_DATA_DIR to another folder"
            )

    def add_customers(self, pairs: CustomerPairs) -> Identity:
        """Return a copy with the agencies and customers of some events."""
        found = {agency: set(customers) for agency, customers in self.agencies.items()}
        for agency, customer in pairs:
            if agency is not None:
                found.setdefault(agency, set()).update([] if customer is None else [customer])
        return replace(self, agencies={agency: sorted(found[agency]) for agency in sorted(found)})

    def find_new_customers(self, before: Identity) -> list[str]:
        """Find the customers, as agency/customer, that are new in agencies known before."""
        return [
            f"{agency}/{customer}"
            for agency, customers in self.agencies.items()
            if agency in before.agencies
            for customer in customers
            if customer not in before.agencies[agency]
        ]


def _name_account(prefix: str | None) -> str:
    return "the account without a prefix" if prefix is None else f"account {prefix}"
