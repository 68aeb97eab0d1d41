"""The receivers that a file names, line by line, and how many events each line matches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from np6_assets.contact.free_text import LEAST_LETTERS
from np6_assets.contact.policy import ContactPolicy
from np6_assets.contact.tombstones import normalize

_QUOTES = {'"': '"', "'": "'", "\N{LEFT DOUBLE QUOTATION MARK}": "\N{RIGHT DOUBLE QUOTATION MARK}", "«": "»"}


class Receivers:
    """What the lines of a file name. `matched` counts events by line number, from 1."""

    def __init__(self, lines: Iterable[str], contact: ContactPolicy) -> None:
        self._lines: dict[str, set[int]] = {}
        self.matched: Counter[int] = Counter()
        for number, line in enumerate(lines, 1):
            if found := _list_forms(line, contact):
                self.matched[number] = 0
                for form in found:
                    self._lines.setdefault(form, set()).add(number)

    @property
    def values(self) -> list[str]:
        """All values that an event may name them by."""
        return list(self._lines)

    def find_lines(self, values: Iterable[str | None]) -> set[int]:
        """Find the lines that name one of the values."""
        numbers: set[int] = set()
        for value in values:
            if value:
                numbers |= self._lines.get(value, set()) | self._lines.get(normalize(value), set())
        return numbers

    def add_id(self, id_: str, numbers: set[int]) -> None:
        """Add an id that events have together with the values of those lines."""
        self._lines.setdefault(id_, set()).update(numbers)

    def count(self, values: Iterable[str | None]) -> None:
        """Count an event for the lines that name one of its values."""
        self.matched.update(self.find_lines(values))

    def find_in_text(self, text: str) -> list[str]:
        """Find the values in the text of an event that cannot be parsed."""
        return [value for value in self._lines if len(value) >= LEAST_LETTERS and value in text]


def read_lines(file: str) -> list[str]:
    """Read the lines of a text file. Raises a Failure without retries if it cannot be read or is empty."""
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise dg.Failure(
            f"the file with the receivers to erase cannot be read ({type(error).__name__}): check `file` in the run's "
            "config; it is a UTF-8 text file where the run happens",
            allow_retries=False,
        ) from None
    lines = re.split(r"\r\n|\r|\n", text)
    if not any(map(_unquote, lines)):
        raise dg.Failure("the file with the receivers to erase names none: one on each line", allow_retries=False)
    return lines


def _list_forms(line: str, contact: ContactPolicy) -> set[str]:
    """List what a line may mean: as typed and normalized, raw and as its pseudonym."""
    forms = {line.strip(), _unquote(line)} - {""} if _unquote(line) else set()
    forms |= set(map(normalize, forms))
    return forms | (set(map(contact.compute_pseudonym, forms)) if contact.mode == "pseudonymize" else set())


def _unquote(line: str) -> str:
    text = line.strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        return text[1:-1].strip()
    return text
