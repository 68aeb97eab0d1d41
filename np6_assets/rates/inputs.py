"""What a cohort's rates were computed from, recorded in their file: rates are due when the stored events differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b

from np6_assets.rates.columns import Status

INPUTS = b"np6.inputs"
"""Key in the Parquet metadata of rates: the inputs, as JSON."""


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
        return compute_digest(self.write())

    @classmethod
    def read(cls, text: bytes | None) -> Inputs | None:
        """Read it from a file's metadata; None where that has none, or another version's."""
        try:
            found = json.loads(text or b"")
            return cls(found["status"], list(found["missing_ids"]), dict(found["days"]))
        except (ValueError, TypeError, KeyError):
            return None


def compute_digest(content: bytes) -> str:
    """Compute a short digest, in hexadecimal."""
    return blake2b(content, digest_size=8).hexdigest()
