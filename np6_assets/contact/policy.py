"""What becomes of contact data: the setting NP6_CONTACT_DATA, applied to columns and to quarantined events alike."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from np6_assets.contact.free_text import FreeText
from np6_assets.contact.receiver import CONTACT_FIELDS, RECEIVER_OBJECTS, contact_values, is_id

ContactMode = Literal["drop", "pseudonymize", "keep"]

LEAST_KEY = 32
"""Characters of a secret key."""

SHORT = f"has fewer than {LEAST_KEY} characters, and could be guessed: make one with openssl rand -hex 32"
"""What is said of a shorter one."""

_TEXTS = "texts:1"
"""How free text is treated; a later way has another number."""


@dataclass(frozen=True)
class ContactPolicy:
    """`drop`: contact data is null; `pseudonymize`: HMAC-SHA-256 (hex) under `key`; `keep`: as received.

    `parameters` are the URL parameters that keep their values; None: all but those that hold contact data.
    """

    mode: ContactMode = "drop"
    key: str = field(default="", repr=False)
    parameters: frozenset[str] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """What tells policies apart that give other columns, of receivers and then of texts; does not show the key."""
        if self.mode == "keep":
            return self.mode
        strict = "" if self.parameters is None else f":{_digest(chr(10).join(sorted(self.parameters)))}"
        return f"{self._of_receivers} {_TEXTS}{strict}"

    @property
    def fingerprint_of_0_1(self) -> str:
        """How version 0.1 told policies apart."""
        return f"{self.mode}:{self.pseudonym(self.mode)[:16]}" if self.mode == "pseudonymize" else self.mode

    @property
    def has_short_key(self) -> bool:
        """Whether the key could be guessed."""
        return self.mode == "pseudonymize" and len(self.key) < LEAST_KEY

    @cached_property
    def free_text(self) -> FreeText:
        """What free text passes, but under `keep`."""
        return FreeText(self.parameters)

    def pseudonym(self, value: str) -> str:
        """The pseudonym of one value: 64 hexadecimal digits. Same value and key, same pseudonym."""
        return hmac.digest(self.key.encode(), value.encode(errors="surrogatepass"), "sha256").hex()

    def wrote_receivers(self, stored_as: str) -> bool:
        """Whether a file whose policy has that fingerprint holds the same receivers' columns."""
        return stored_as.partition(" ")[0] in (self._of_receivers, self.fingerprint_of_0_1)

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
        if self.wrote_receivers(stored_as):
            return values
        if stored_as == ContactPolicy("keep").fingerprint:
            return self.treated(values)
        return pa.chunked_array([pa.nulls(len(values), pa.string())])

    def treated_texts(
        self, texts: pa.ChunkedArray, own: list[pa.ChunkedArray], stored_as: str | None = None
    ) -> pa.ChunkedArray:
        """A column of free text; `own` are the receivers' columns as they were received, or as they are stored."""
        is_treated = stored_as is not None and stored_as.partition(" ")[2] == self.fingerprint.partition(" ")[2]
        return texts if self.mode == "keep" or is_treated else self.free_text.column(texts, own)

    def redact(self, event: Any, raw: bytes) -> str | None:
        """The JSON text of a rejected event, its contact data treated as the policy says.

        The receiver is treated as its columns are, and every other text, and the name of every field, as free text.
        An event that cannot be parsed is kept as received under `keep`, and else null.
        """
        return self._redacted(event, raw, self._hidden)

    def redact_again(self, event: Any, text: str | None, stored_as: str) -> str | None:
        """The text of a stored rejected event, treated as one that is received now; see `treated_again`."""
        if stored_as == self.fingerprint or text is None:
            return text
        if self.wrote_receivers(stored_as):
            return self._redacted(event, b"", lambda value: value)
        policy = self if stored_as == ContactPolicy("keep").fingerprint else ContactPolicy("drop")
        return policy.redact(event, b"")

    def _redacted(self, event: Any, raw: bytes, hidden: Callable[[Any], Any]) -> str | None:
        try:
            treated = event if self.mode == "keep" else self._treat(event, list(contact_values(event)), hidden)
            text = json.dumps(treated, ensure_ascii=False, separators=(",", ":")) if treated is not None else None
        except RecursionError:
            text = None
        if text is None:
            text = raw.decode(errors="backslashreplace") if self.mode == "keep" or raw == b"null" else ""
        return text.encode(errors="backslashreplace").decode() or None

    @cached_property
    def _of_receivers(self) -> str:
        if self.mode != "pseudonymize":
            return self.mode
        # slow to compute, as it stands on disk: a short key of version 0.1 could be found by trying
        slow = hashlib.scrypt(
            self.key.encode(), salt=b"np6-assets pseudonyms", n=2**15, r=8, p=1, maxmem=2**26, dklen=8
        )
        return f"{self.mode}:scrypt:{slow.hex()}"

    def _treat(self, value: Any, own: list[str], hidden: Callable[[Any], Any]) -> Any:
        if isinstance(value, dict):
            return {
                self.free_text.treated(name, own): self._treat_field(name, value, own, hidden) for name in list(value)
            }
        if isinstance(value, list):
            return [self._treat(inner, own, hidden) for inner in value]
        return self.free_text.treated(value, own) if isinstance(value, str) else value

    def _treat_field(self, name: str, parent: dict[str, Any], own: list[str], hidden: Callable[[Any], Any]) -> Any:
        value = parent[name]
        if name in CONTACT_FIELDS or (name in RECEIVER_OBJECTS and isinstance(value, str) and not is_id(name, parent)):
            return hidden(value)
        return self._treat(value, own, hidden)

    def _hidden(self, value: Any) -> str | None:
        if self.mode == "drop" or value is None:
            return None
        return self.pseudonym(value if isinstance(value, str) else json.dumps(value))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
