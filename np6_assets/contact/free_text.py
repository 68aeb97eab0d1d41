"""Redact contact data in free text: links, labels, bounce texts and quarantined events.

Repeats in the patterns are bounded: the time is proportional to the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

REMOVED = "[removed]"

LEAST_LETTERS = 6
"""A shorter value of a receiver occurs in too many texts by chance."""

_AT, _DOT = "(?:@|%(?:25)*40)", "(?:[.]|%(?:25)*2E)"
_LETTER = r"\w.+~!$*'^`{|}\-"
# what is encoded and cannot stand in an address: / : = ? & # space , ; < > "
_DELIMITER = "(?:2F|3A|3D|3F|26|23|20|2C|3B|3C|3E|22)"
_BEGIN = rf"(?:(?<![{_LETTER}%])|(?<=%{_DELIMITER})|(?<=%25{_DELIMITER})|(?<=%2525{_DELIMITER}))"
_EMAIL = (
    # possessive, and from the beginning of a run of letters: no backtracking
    rf"{_BEGIN}(?:[{_LETTER}]|%(?!(?:25)*(?:40|{_DELIMITER}))[0-9A-F]{{2}}){{1,500}}+"
    rf"{_AT}(?:[\w-]{{1,63}}{_DOT}){{1,8}}[^\W\d_][\w-]{{1,62}}"
)
_NO_DIGIT_BEFORE = r"(?:(?<!\d)|(?<=%[0-9A-F]{2}))"
_GAP = r"[ .-]|%20"
_PHONE = (
    rf"(?:[+]|%(?:25)*2B)\d(?:(?:{_GAP})?\d){{7,14}}(?!\d)"
    rf"|{_NO_DIGIT_BEFORE}(?:00\d{{8,15}}|0\d(?P<gap>{_GAP}|)\d\d(?:(?P=gap)\d\d){{3}})(?!\d)"
)
_HASH = r"(?<![0-9A-F])[0-9A-F]{24,}"
_CONTACT_DATA = re.compile(f"{_EMAIL}|{_PHONE}|{_HASH}", re.IGNORECASE)

_NAMES = (
    "mail|phone|msisdn|name|mobile|adress|address|contact|recipient|receiver|unicity|birth|"
    "(?<![a-z])(?:tel|gsm|sms|cell|nom|prenom)(?![a-z])"
)
_BETWEEN = "%(?:25)*(?:3F|26|3B|23)"
_OF_NAME = r"(?:[^\s?&;#=%\"<>]|%(?!(?:25)*(?:3F|26|3B|23|3D)))"
_CONTACT_PARAMETER = re.compile(
    rf"((?:^|[?&;#\s\"]|{_BETWEEN}){_OF_NAME}{{0,64}}?(?:{_NAMES}){_OF_NAME}{{0,64}}?)"
    # a value ends at its own level of encoding
    rf"(?:(=)[^&#\s\"<>]+|(%(?:25)*3D)(?:[^&#\s\"<>%]|%(?!(?:25)*(?:26|23)))+)",
    re.IGNORECASE,
)
_PARAMETERS = re.compile(r"(?<=[?&;#])[^?&;#\s\"<>]+")

# What `_CONTACT_DATA` removes wherever it stands, encoded or not, for Arrow's engine.
_COVERED = r"^([A-Za-z0-9._+-]{1,64}@([A-Za-z0-9-]{1,63}[.]){1,8}[A-Za-z]{2,60}|[+][0-9]{8,15}|[0-9A-Fa-f]{24,})$"


@dataclass(frozen=True)
class TextRedactor:
    """Redacts free text. Of URL parameters only `parameters` keep their values; None: all but contact data."""

    parameters: frozenset[str] | None = None

    def redact(self, text: str, own: Iterable[str] = ()) -> str:
        """Redact a text; `own` are the unicity and the hash of its event."""
        for value in own:
            text = _remove_value(text, value)
        if self.parameters is not None and any(sign in text for sign in "/:="):
            text = _PARAMETERS.sub(self._redact_parameter, text)
        if "=" in text or "3d" in text.lower():
            text = _CONTACT_PARAMETER.sub(rf"\1\2\3{REMOVED}", text)
        return _CONTACT_DATA.sub(REMOVED, text)

    def redact_columns(self, texts: Sequence[pa.ChunkedArray], own: Sequence[pa.ChunkedArray]) -> list[pa.ChunkedArray]:
        """Redact columns, each distinct text once; `own` are the columns of unicities and hashes."""
        if not texts:
            return []
        columns = [column.combine_chunks() for column in own]
        is_uncovered = _find_uncovered_rows(columns)
        return [self._redact_column(column.combine_chunks(), columns, is_uncovered) for column in texts]

    def _redact_column(
        self, texts: pa.StringArray, own: Sequence[pa.Array], is_uncovered: npt.NDArray[np.bool_]
    ) -> pa.ChunkedArray:
        encoded = texts.dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        found = pa.array([self.redact(text) for text in distinct], pa.string()).take(encoded.indices)
        rows = np.flatnonzero(is_uncovered & texts.is_valid().to_numpy(zero_copy_only=False))
        if rows.size:
            places = pa.array(rows)
            triples = list(zip(*(column.take(places).to_pylist() for column in (texts, *own)), strict=True))
            known = {triple: self.redact(triple[0], filter(None, triple[1:])) for triple in set(triples)}
            values = found.to_pylist()
            for row, triple in zip(rows.tolist(), triples, strict=True):
                values[row] = known[triple]
            found = pa.array(values, pa.string())
        return pa.chunked_array([found], pa.string())

    def _redact_parameter(self, found: re.Match[str]) -> str:
        name, equals, _ = found[0].partition("=")
        assert self.parameters is not None
        if unquote(name) in self.parameters or found[0] == REMOVED:
            return found[0]
        return f"{name}={REMOVED}" if equals else REMOVED


def _remove_value(text: str, own: str) -> str:
    """Remove a value from a text, as it is and URL-encoded, in any case."""
    if len(own) < LEAST_LETTERS:
        return text
    for form in _list_encodings(own):
        if form.lower() in text.lower():
            text = re.sub(re.escape(form), REMOVED, text, flags=re.IGNORECASE)
    return text


@lru_cache(maxsize=8)  # an event in quarantine has dozens of texts
def _list_encodings(own: str) -> tuple[str, ...]:
    """List a value as it is and URL-encoded, the longest first."""
    raw = own.encode(errors="surrogatepass")
    return tuple(sorted({own, quote(raw, safe=""), quote(raw), quote_plus(raw)}, key=len, reverse=True))


def _find_uncovered_rows(columns: Sequence[pa.Array]) -> npt.NDArray[np.bool_]:
    """Find the rows with a receiver's value that no pattern would remove from a text."""
    found = np.zeros(len(columns[0]), bool)
    for column in columns:
        covered = pc.or_(pc.match_substring_regex(column, _COVERED), pc.less(pc.utf8_length(column), LEAST_LETTERS))
        found |= ~pc.fill_null(covered, True).to_numpy(zero_copy_only=False)
    return found
