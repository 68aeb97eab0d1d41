"""What becomes of contact data: the setting NP6_CONTACT_DATA, applied to columns and to quarantined events alike."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

ContactMode = Literal["drop", "pseudonymize", "keep"]

_CONTACT_FIELDS = ("unicity", "hash")
_CONTACT_OBJECTS = ("receiver", "value")


@dataclass(frozen=True)
class ContactPolicy:
    """`drop`: contact data is null; `pseudonymize`: HMAC-SHA-256 (hex) under `key`; `keep`: as received."""

    mode: ContactMode = "drop"
    key: str = field(default="", repr=False)

    @property
    def fingerprint(self) -> str:
        """What tells policies apart that give other columns; does not show the key."""
        return f"{self.mode}:{self.pseudonym(self.mode)[:16]}" if self.mode == "pseudonymize" else self.mode

    def pseudonym(self, value: str) -> str:
        """The pseudonym of one value: 64 hexadecimal digits. Same value and key, same pseudonym."""
        return hmac.digest(self.key.encode(), value.encode(errors="surrogatepass"), "sha256").hex()

    def treated(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """A column of strings, treated as the policy says; null stays null."""
        if self.mode == "keep":
            return values
        if self.mode == "drop":
            return pa.chunked_array([pa.nulls(len(values), pa.string())])
        encoded = values.combine_chunks().dictionary_encode()
        names = [self.pseudonym(value) for value in encoded.dictionary.to_pylist()]
        return pa.chunked_array([pa.array(names, pa.string()).take(encoded.indices)], pa.string())

    def treated_again(self, values: pa.ChunkedArray, stored_as: str) -> pa.ChunkedArray:
        """A stored column, treated as one that is received now; `stored_as` is the fingerprint of its policy.

        What that policy took away stays null, and a pseudonym under another key, or none, becomes null.
        """
        if stored_as == self.fingerprint:
            return values
        if stored_as == ContactPolicy("keep").fingerprint:
            return self.treated(values)
        return pa.chunked_array([pa.nulls(len(values), pa.string())])

    def treated_event(self, event: Any) -> Any:
        """The JSON value of an event of any shape, its contact data treated as the policy says."""
        return event if self.mode == "keep" else self._treat(event)

    def redact(self, event: Any, raw: bytes) -> str | None:
        """The JSON text of a rejected event, its contact data treated as the policy says.

        Where the shape is not the documented one, contact data is what may be it: text in the place of the receiver,
        and text with an @ anywhere. An event that cannot be parsed is kept as received under `keep`, and else null.
        """
        try:
            treated = self.treated_event(event)
            text = json.dumps(treated, ensure_ascii=False, separators=(",", ":")) if treated is not None else None
        except RecursionError:
            text = None
        if text is None:
            text = raw.decode(errors="backslashreplace") if self.mode == "keep" or raw == b"null" else ""
        return text.encode(errors="backslashreplace").decode() or None

    def redact_again(self, event: Any, text: str | None, stored_as: str) -> str | None:
        """The text of a stored rejected event, treated as one that is received now; see `treated_again`."""
        if stored_as == self.fingerprint or text is None:
            return text
        policy = self if stored_as == ContactPolicy("keep").fingerprint else ContactPolicy("drop")
        return policy.redact(event, b"")

    def _treat(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._treat_field(name, inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._treat(inner) for inner in value]
        return self._hidden(value) if isinstance(value, str) and "@" in value else value

    def _treat_field(self, name: str, value: Any) -> Any:
        if name in _CONTACT_FIELDS or (name in _CONTACT_OBJECTS and isinstance(value, str)):
            return self._hidden(value)
        return self._treat(value)

    def _hidden(self, value: Any) -> str | None:
        if self.mode == "drop" or value is None:
            return None
        return self.pseudonym(value if isinstance(value, str) else json.dumps(value))
