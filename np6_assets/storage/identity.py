"""What a data folder is: `np6.json`, written with its first file and compared by every run that writes there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from np6_assets.storage.files import ANYTHING, Before, Folder, Version, until_unchanged

FILE = "np6.json"
"""Below the data folder. An agency, or another prefix, is admitted by hand in it."""

SOURCES = {"api": "the API's events", "sandbox": "the simulated account's events"}

Pairs = Iterable[tuple[str | None, str | None]]
"""Agency and customer of events."""


class IdentityError(Exception):
    """The folder belongs to something else, or does not say what it is. The text is one line that names both sides."""


@dataclass(frozen=True)
class Identity:
    """What a folder holds.

    Attributes:
        source: a key of SOURCES.
        timezone: the IANA name of the zone whose days its files are.
        asset_key_prefix: the account's; None for the one that has none.
        address: of the API; recorded, never compared.
        agencies: the customers of each agency that was seen. Empty until the first event: then every one is admitted.
        gone: ids of notifications that the API did not know (404) when it was asked last.
        has_tombstones: whether receivers were erased.
        contact: fingerprint of the contact policy of all files; empty where they have several, or nobody knows.
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
        """That of a folder; None where it has none. Raises IdentityError."""
        return cls._read(folder)[0]

    @classmethod
    def update(cls, folder: Folder, change: Callable[[Identity | None], Identity | None]) -> Identity | None:
        """Change that of a folder, whoever else does at the time: `change` is given what is there. None stays none."""

        def attempt() -> Identity | None:
            found, version = cls._read(folder)
            changed = change(found)
            if changed is not None and changed != found:
                changed.write(folder, version)
            return changed

        return until_unchanged(attempt)

    @classmethod
    def _read(cls, folder: Folder) -> tuple[Identity | None, Version | None]:
        try:
            with folder.open(FILE) as file:
                version = folder.version(file)
                found = cls(**json.load(file))
            if found.source not in SOURCES or not all(isinstance(one, list) for one in found.agencies.values()):
                raise ValueError
        except FileNotFoundError:
            return None, None
        except (ValueError, TypeError, AttributeError):
            path = folder.path(FILE)
            raise IdentityError(f"{path} is broken: restore it, or remove it and it is made anew") from None
        return found, version

    def write(self, folder: Folder, before: Before = ANYTHING) -> None:
        """Put it into a folder, in place of what was there `before`."""
        with folder.replacing(FILE, before=before) as file:
            file.write(json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n")

    def check(self, folder: Folder, run: Identity) -> None:
        """Raise IdentityError where a run that is `run` may not write into a folder that is this."""
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
                f"{where} that it belongs to {_account(self.asset_key_prefix)}, and this is "
                f"{_account(run.asset_key_prefix)}: set NP6_DATA_DIR to another folder"
            )

    def with_seen(self, pairs: Pairs) -> Identity:
        """The same, with the agencies and customers of some events."""
        found = {agency: set(customers) for agency, customers in self.agencies.items()}
        for agency, customer in pairs:
            if agency is not None:
                found.setdefault(agency, set()).update([] if customer is None else [customer])
        return replace(self, agencies={agency: sorted(found[agency]) for agency in sorted(found)})

    def new_customers(self, before: Identity) -> list[str]:
        """The customers, as agency/customer, of agencies that were known before."""
        return [
            f"{agency}/{customer}"
            for agency, customers in self.agencies.items()
            if agency in before.agencies
            for customer in customers
            if customer not in before.agencies[agency]
        ]


def _account(prefix: str | None) -> str:
    return "the account without a prefix" if prefix is None else f"account {prefix}"
