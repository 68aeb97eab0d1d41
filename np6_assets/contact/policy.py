"""The contact policy: NP6_CONTACT_DATA, applied to columns and to quarantined events."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from np6_assets.contact.free_text import TextRedactor
from np6_assets.contact.receiver import find_contact_values, holds_contact_data

ContactMode = Literal["drop", "pseudonymize", "keep"]

LEAST_KEY = 32
"""The fewest characters of a secret key."""

SHORT_KEY = f"has fewer than {LEAST_KEY} characters, and could be guessed: make one with openssl rand -hex 32"
"""The message about a shorter key."""

_TEXTS = "texts:1"
"""The version of the treatment of free text, in fingerprints."""


@dataclass(frozen=True)
class ContactPolicy:
    """`drop`: contact data is null; `pseudonymize`: HMAC-SHA-256 (hex) with `key`; `keep`: as received.

    `parameters` are the URL parameters that keep their values; None: all but those with contact data.
    """

    mode: ContactMode = "drop"
    key: str = field(default="", repr=False)
    parameters: frozenset[str] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """A text for receivers and one for free texts, equal for equal treatment; does not show the key."""
        if self.mode == "keep":
            return self.mode
        names = None if self.parameters is None else "\n".join(sorted(self.parameters)).encode()
        strict = "" if names is None else f":{hashlib.blake2b(names, digest_size=8).hexdigest()}"
        return f"{self._receivers_fingerprint} {_TEXTS}{strict}"

    @property
    def fingerprint_of_0_1(self) -> str:
        """The fingerprint of version 0.1."""
        return f"{self.mode}:{self.compute_pseudonym(self.mode)[:16]}" if self.mode == "pseudonymize" else self.mode

    @property
    def has_short_key(self) -> bool:
        """Whether the key could be guessed."""
        return self.mode == "pseudonymize" and len(self.key) < LEAST_KEY

    @cached_property
    def text_redactor(self) -> TextRedactor:
        """The redactor of free text; not used under `keep`."""
        return TextRedactor(self.parameters)

    def compute_pseudonym(self, value: str) -> str:
        """Compute the pseudonym of a value: 64 hexadecimal digits, the same for the same key."""
        return hmac.digest(self.key.encode(), value.encode(errors="surrogatepass"), "sha256").hex()

    def has_same_receivers(self, stored_as: str) -> bool:
        """Whether a file with that fingerprint holds the same receivers' columns."""
        return stored_as.partition(" ")[0] in (self._receivers_fingerprint, self.fingerprint_of_0_1)

    def treat_column(self, values: pa.ChunkedArray, stored_as: str | None = None) -> pa.ChunkedArray:
        """Treat a column of receivers' values, as received, or as stored under the policy with that fingerprint.

        Null and dropped values stay null, and a pseudonym of another key becomes null.
        """
        if stored_as is not None and self.has_same_receivers(stored_as):
            return values
        if self.mode == "drop" or stored_as not in (None, ContactPolicy("keep").fingerprint):
            return pa.chunked_array([pa.nulls(len(values), pa.string())])
        if self.mode == "keep":
            return values
        encoded = values.combine_chunks().dictionary_encode()
        names = [self.compute_pseudonym(value) for value in encoded.dictionary.to_pylist()]
        return pa.chunked_array([pa.array(names, pa.string()).take(encoded.indices)], pa.string())

    def treat_texts(
        self, texts: list[pa.ChunkedArray], own: list[pa.ChunkedArray], stored_as: str | None = None
    ) -> list[pa.ChunkedArray]:
        """Treat columns of free text; `own` are the receivers' columns, as received or as stored."""
        is_treated = stored_as is not None and stored_as.partition(" ")[2] == self.fingerprint.partition(" ")[2]
        return texts if self.mode == "keep" or is_treated else self.text_redactor.redact_columns(texts, own)

    def treat_event(self, event: Any, raw: bytes) -> str | None:
        """Return the JSON text of a rejected event with its contact data treated.

        The receiver is treated like its columns; every other text, and the name of every field, like free text. An
        event that cannot be parsed is kept as received under `keep`, else null.
        """
        return self._treat_to_text(event, raw, self._treat_value)

    def treat_stored_event(self, event: Any, text: str | None, stored_as: str) -> str | None:
        """Treat the text of a stored rejected event; see `treat_column`."""
        if stored_as == self.fingerprint or text is None:
            return text
        if self.has_same_receivers(stored_as):
            return self._treat_to_text(event, b"", lambda value: value)
        policy = self if stored_as == ContactPolicy("keep").fingerprint else ContactPolicy("drop")
        return policy.treat_event(event, b"")

    def _treat_to_text(self, event: Any, raw: bytes, hidden: Callable[[Any], Any]) -> str | None:
        try:
            treated = event if self.mode == "keep" else self._treat(event, list(find_contact_values(event)), hidden)
            text = json.dumps(treated, ensure_ascii=False, separators=(",", ":")) if treated is not None else None
        except RecursionError:
            text = None
        if text is None:
            text = raw.decode(errors="backslashreplace") if self.mode == "keep" or raw == b"null" else ""
        return text.encode(errors="backslashreplace").decode() or None

    @cached_property
    def _receivers_fingerprint(self) -> str:
        if self.mode != "pseudonymize":
            return self.mode
        # slow by intention: it is stored, and a short key of version 0.1 could be guessed from it
        slow = hashlib.scrypt(
            self.key.encode(), salt=b"np6-assets pseudonyms", n=2**15, r=8, p=1, maxmem=2**26, dklen=8
        )
        return f"{self.mode}:scrypt:{slow.hex()}"

    def _treat(self, value: Any, own: list[str], hidden: Callable[[Any], Any]) -> Any:
        if isinstance(value, dict):
            return {
                self.text_redactor.redact(name, own): hidden(inner)
                if holds_contact_data(name, value)
                else self._treat(inner, own, hidden)
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self._treat(inner, own, hidden) for inner in value]
        return self.text_redactor.redact(value, own) if isinstance(value, str) else value

    def _treat_value(self, value: Any) -> str | None:
        if self.mode == "drop" or value is None:
            return None
        return self.compute_pseudonym(value if isinstance(value, str) else json.dumps(value))
