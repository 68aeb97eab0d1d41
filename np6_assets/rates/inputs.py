"""What a cohort's rates were computed from, recorded in their file: rates are due when the stored events differ."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from hashlib import blake2b

from np6_assets.rates.columns import Status
from np6_assets.rates.feeds import FeedDays, determine_status, find_missing_ids

INPUTS = b"np6.inputs"
"""Key in the Parquet metadata of rates: the inputs, as JSON."""

_FEEDS = ("activations", "hits", "optouts", "bounces", "impressions")


@dataclass(frozen=True)
class Inputs:
    """What a cohort's rates follow from.

    `days` has a digest of each stored event day of the window; `status` is the one that these days allow, except for
    the notifications in `missing_ids`. A day that closes without a new event changes the status of one cohort only.
    """

    status: Status
    missing_ids: Sequence[int]
    days: Mapping[str, str]

    def write(self) -> bytes:
        """Write it as the file's metadata has it."""
        return json.dumps(asdict(self)).encode()

    @property
    def digest(self) -> str:
        """A short digest of these inputs."""
        return blake2b(self.write(), digest_size=8).hexdigest()

    @classmethod
    def read(cls, text: bytes | None) -> Inputs | None:
        """Read it from a file's metadata; None where that has none, or another version's."""
        try:
            found = json.loads(text or b"")
            return cls(found["status"], list(found["missing_ids"]), dict(found["days"]))
        except (ValueError, TypeError, KeyError):
            return None


class CurrentInputs:
    """The inputs of cohorts as they are stored now. Each day's digest is computed once."""

    def __init__(self, stored: FeedDays, timezone: str, due: datetime | None) -> None:
        self._stored = stored
        self._timezone = timezone
        self._due = due
        self._version = cache(self._digest_day)

    def read(self, window: Collection[str]) -> Inputs:
        """Read the inputs of the cohort with that window."""
        versions = ((day, self._version(day)) for day in window)
        days = {day: version for day, version in versions if version is not None}
        known = self._stored, window, self._timezone, self._due
        return Inputs(determine_status(*known), sorted(find_missing_ids(*known)), days)

    def _digest_day(self, day: str) -> str | None:
        """Digest what rates use of an event day; None where no asset has it."""
        stored = [(asset, one) for asset in _FEEDS if (one := self._stored(asset, day)) is not None]
        text = repr([(asset, one.content) for asset, one in stored])
        return blake2b(text.encode(), digest_size=8).hexdigest() if stored else None
