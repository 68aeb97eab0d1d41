"""Cut one response, a JSON array, at event ends into parts on disk.

This module follows the structure of the array; whether an event is valid JSON is decided by the decoder. A part's file
has no name (it is unlinked at once), so that a killed process leaves nothing behind.
"""

from __future__ import annotations

import json
import re
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import IO

import numpy as np

from np6_assets.np6.errors import BadResponseError, CutResponseError, WrongBodyError

PART_BYTES = 32 * 2**20
"""A part ends with the first event past this many bytes."""

_WHITESPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_SCALARS = bytes(sorted(set(range(256)) - set(b'"{}[]')))
_ESCAPED = re.compile(rb'\\["\\]')
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},]', re.DOTALL)


@dataclass
class Part:
    """A piece of an answer on disk: a JSON array of `size` bytes with `events` objects and arrays.

    Small answers share a part: `answers` has, for each, the number of its first event and the place of its first byte
    among the elements.
    """

    file: IO[bytes]
    size: int
    events: int
    answers: tuple[tuple[int, int], ...] = ((0, 0),)

    @classmethod
    def from_elements(cls, elements: bytes, events: int, answers: tuple[tuple[int, int], ...] = ((0, 0),)) -> Part:
        """Write a part from the text of its elements, with the commas between them."""
        file = tempfile.TemporaryFile(prefix="np6-")  # noqa: SIM115
        size = file.write(b"[%b]" % elements)
        file.flush()
        return cls(file, size, events, answers)

    @property
    def path(self) -> str:
        """A path by which only this process can open the file."""
        return f"/dev/fd/{self.file.fileno()}"

    def read(self) -> bytes:
        """Read the elements, without the brackets around them."""
        self.file.seek(0)
        return self.file.read()[1:-1]

    def close(self) -> None:
        """Free the disk space."""
        self.file.close()


class ArrayScanner:
    """Follows the nesting of one JSON array through chunks of bytes, without parsing values.

    `events` counts the objects and arrays in the array; `opened` and `closed` say whether its brackets were seen.
    """

    def __init__(self) -> None:
        self.events = 0
        self.opened = False
        self.closed = False
        self._depth = 0
        self._in_string = False
        self._escape = b""

    def feed(self, chunk: bytes) -> None:
        """Scan the next bytes. Raises BadResponseError if they cannot belong to one array."""
        if self._depth == 0 and (text := chunk.strip(_WHITESPACE if self.closed else _WHITESPACE + _BOM)):
            if self.closed:
                raise BadResponseError("the body goes on after the end of its array")
            if not text.startswith(b"["):
                raise WrongBodyError(f"the body is {_describe_body(text)}, not a JSON array")
            self.opened = True
        brackets = self._brackets(chunk)
        if not brackets:
            return
        # '[' and '{' have bit 1 set, ']' and '}' do not
        steps = (np.frombuffer(brackets, np.int8) & 2) - 1
        depths = self._depth + np.cumsum(steps, dtype=np.int64)
        self.events += int(np.count_nonzero((depths == 1) & (steps < 0)))
        self._depth = int(depths[-1])
        if depths.min() <= 0:
            end = int(np.argmax(depths <= 0))
            is_end = end == len(depths) - 1 and self._depth == 0 and not self._in_string
            if not is_end or not chunk.rstrip(_WHITESPACE).endswith(b"]"):
                raise BadResponseError("the body goes on after the end of its array")
            self.closed = True

    def finish(self) -> None:
        """End the bytes. Raises BadResponseError if the array is not complete."""
        if not self.opened:
            raise WrongBodyError("the body is empty")
        if not self.closed:
            raise CutResponseError("the body ends before its array is closed")

    def next_event_end(self, chunk: bytes) -> int | None:
        """Find where in the next chunk the first event ends; None if none does. Does not feed the chunk."""

        def has_event(length: int) -> bool:
            scanner = copy(self)
            with suppress(BadResponseError):  # of what follows the event
                scanner.feed(chunk[:length])
            return scanner.events > self.events

        end = bisect_left(range(len(chunk) + 1), True, key=has_event)
        return end if end <= len(chunk) else None

    def _brackets(self, chunk: bytes) -> bytes:
        """Extract the brackets outside strings."""
        if self._escape:
            chunk, self._escape = self._escape + chunk, b""
        if b"\\" in chunk:
            chunk = _ESCAPED.sub(b"", chunk)
            if chunk.endswith(b"\\"):
                chunk, self._escape = chunk[:-1], b"\\"
        marks = chunk.translate(None, _SCALARS)
        quotes = marks.count(b'"')
        if self._in_string:
            marks = b'"' + marks
            quotes += 1
        self._in_string = quotes % 2 == 1
        if self._in_string:
            marks = marks[: marks.rindex(b'"')]
            quotes -= 1
        # a string without brackets is '""' by now; splitting, for the others, takes ten times as long
        if 2 * marks.count(b'""') == quotes:
            return marks.translate(None, b'"')
        return b"".join(marks.split(b'"')[::2])


class PartWriter:
    """Writes one response's elements to parts and hands over each as soon as it is complete."""

    def __init__(self, hand_over: Callable[[Part], None], part_bytes: int = PART_BYTES) -> None:
        self._hand_over = hand_over
        self._part_bytes = part_bytes
        self._scanner = ArrayScanner()
        self._file: IO[bytes] | None = None
        self._size = 0
        self._events_before = 0
        self._expects_comma = False
        self._last_byte = b""

    @property
    def events(self) -> int:
        """The number of complete events so far."""
        return self._scanner.events

    def feed(self, chunk: bytes) -> None:
        """Write the next bytes of the body. Raises BadResponseError if they cannot belong to an array of events."""
        while self._size >= self._part_bytes and (end := self._scanner.next_event_end(chunk)) is not None:
            self._write(chunk[:end])
            self._hand_over_part()
            self._expects_comma = True
            chunk = chunk[end:]
        self._write(chunk)

    def finish(self) -> None:
        """Hand over the last part. Raises BadResponseError if the array is not complete."""
        self._scanner.finish()
        if self._last_byte == b",":
            raise BadResponseError("there is a comma before the end of the array")
        if self._file is not None:
            self._hand_over_part()

    def hand_over_whole_events(self) -> None:
        """Hand over the complete events before a cut."""
        if self._file is not None:
            self._file.seek(1)
            text = self._file.read()
            if whole := list(find_elements(text))[:-1]:
                events = sum(text[start:end].lstrip(_WHITESPACE)[:1] in (b"{", b"[") for start, end in whole)
                self._hand_over(Part.from_elements(text[: whole[-1][1]], events))
            self.close()

    def close(self) -> None:
        """Drop what was not handed over."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, chunk: bytes) -> None:
        was_opened, was_closed = self._scanner.opened, self._scanner.closed
        self._scanner.feed(chunk)
        if was_closed:
            return  # white space
        if not was_opened:
            chunk = chunk.lstrip(_WHITESPACE + _BOM)[1:]
        if self._expects_comma:
            chunk = self._after_comma(chunk)
        if self._scanner.closed:
            chunk = chunk.rstrip(_WHITESPACE)[:-1]
        if text := chunk.rstrip(_WHITESPACE):
            self._last_byte = text[-1:]
        elif self._file is None:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="np6-")  # noqa: SIM115
            self._size = self._file.write(b"[")
        self._size += self._file.write(chunk)

    def _after_comma(self, chunk: bytes) -> bytes:
        """Return what follows the comma between two events; or the end of the array."""
        text = chunk.lstrip(_WHITESPACE)
        if not text or text.startswith(b"]"):
            return text
        if not text.startswith(b","):
            raise BadResponseError("there is no comma between two events")
        self._expects_comma = False
        self._last_byte = b","
        return text[1:]

    def _hand_over_part(self) -> None:
        assert self._file is not None
        self._size += self._file.write(b"]")
        self._file.flush()
        part = Part(self._file, self._size, self._scanner.events - self._events_before)
        self._file, self._size = None, 0
        self._events_before = self._scanner.events
        self._hand_over(part)


def find_elements(text: bytes) -> Iterator[tuple[int, int]]:
    """Find start and end of each element in the text of an array, a cut one included.

    Slow: for parts that DuckDB refuses, and for cuts.
    """
    depth = start = 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in (b"[", b"{"):
            depth += 1
        elif mark in (b"]", b"}"):
            depth -= 1
        elif mark == b"," and depth == 0:
            yield start, token.start()
            start = token.end()
        elif mark == b'"':
            break  # a string that does not end: the cut is in it
    if start or text.strip(_WHITESPACE):
        yield start, len(text)


def _describe_body(text: bytes) -> str:
    """Describe a body that is no array by its beginning, without quoting it."""
    if text.startswith(b"<"):
        return "an HTML or XML page"
    if not text.startswith(b"{"):
        return "text"
    with suppress(ValueError, RecursionError):
        decoded = text.decode()
        _, end = json.JSONDecoder().raw_decode(decoded)
        if decoded[end:].lstrip().startswith("{"):
            return "one JSON object after another (NDJSON)"
    return "a JSON object"
