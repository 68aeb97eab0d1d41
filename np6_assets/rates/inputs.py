"""What a cohort's rates were computed from, as their file records it: rates are due where that is not what is there."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from hashlib import blake2b

from np6_assets.rates.columns import Status
from np6_assets.rates.feeds import StoredDays, missing_of, status_of

INPUTS = b"np6.inputs"
"""Key in the Parquet metadata of rates: the inputs, as JSON."""

_FEEDS = ("activations", "hits", "optouts", "bounces", "impressions")


@dataclass(frozen=True)
class Inputs:
    """What a cohort's rates follow from.

    `days` has the version of each event day of the window that is there; `status` is what these days allow the rates
    to be, but those of the notifications in `missing_ids`. A day that closes without another event changes the status
    alone, and of one cohort.
    """

    status: Status
    missing_ids: Sequence[int]
    days: Mapping[str, str]

    def write(self) -> bytes:
        """As the file has it."""
        return json.dumps(asdict(self)).encode()

    @property
    def digest(self) -> str:
        """What tells these inputs from others, in short."""
        return blake2b(self.write(), digest_size=8).hexdigest()

    @classmethod
    def read(cls, text: bytes | None) -> Inputs | None:
        """From a file; None where it has none, or none of this version."""
        try:
            found = json.loads(text or b"")
            return cls(found["status"], list(found["missing_ids"]), dict(found["days"]))
        except (ValueError, TypeError, KeyError):
            return None


class CurrentInputs:
    """The inputs of cohorts as they are stored now. Each day's version is found once."""

    def __init__(self, stored: StoredDays, timezone: str, due: datetime | None) -> None:
        self._stored = stored
        self._timezone = timezone
        self._due = due
        self._version = cache(self._version_of)

    def of(self, window: Collection[str]) -> Inputs:
        """The inputs of the cohort with that window."""
        versions = ((day, self._version(day)) for day in window)
        days = {day: version for day, version in versions if version is not None}
        known = self._stored, window, self._timezone, self._due
        return Inputs(status_of(*known), sorted(missing_of(*known)), days)

    def _version_of(self, day: str) -> str | None:
        """What tells what rates use of an event day from anything else; None where no asset is there for it."""
        stored = [(asset, one) for asset in _FEEDS if (one := self._stored(asset, day)) is not None]
        text = repr([(asset, one.content) for asset, one in stored])
        return blake2b(text.encode(), digest_size=8).hexdigest() if stored else None
