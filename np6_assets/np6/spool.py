"""The spool: one response's array of events on disk, cut into parts at the ends of events.

What belongs here: how bytes of a JSON array become spool files, and how events are read back out of one in plain
Python. A spool file has no name (it is unlinked as it is made), so that a killed process leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from np6_assets.np6.errors import BadResponseError, CutResponseError

PART_BYTES = 32 * 2**20
"""A part is closed at the first end of an event past this many bytes: what one decoder holds in memory."""

_TAIL_BYTES = 2**16

_WHITESPACE = b" \t\r\n"
_SCALARS = bytes(sorted(set(range(256)) - set(b'"{}[]')))
_ESCAPE = re.compile(rb"\\.", re.DOTALL)


@dataclass
class Part:
    """A spool file that holds a whole JSON array: `events` objects or arrays, in `size` bytes.

    `quotes` is how many quotation marks it holds, or None where there are escapes in its strings.
    """

    file: IO[bytes]
    size: int
    events: int
    quotes: int | None

    @property
    def path(self) -> str:
        """A path under which this process, and no other, can open the file."""
        return f"/dev/fd/{self.file.fileno()}"

    def close(self) -> None:
        """Give the disk space back."""
        self.file.close()


class ArrayScanner:
    """Follows the nesting of one JSON array through chunks of bytes, without parsing the values.

    Strings are told from structure exactly; whether the text between is JSON is left to the decoder.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.in_string = False
        self.events = 0
        self.quotes = 0
        self.has_escapes = False
        self.closed = False
        self._escape = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises BadResponseError where they cannot belong to one array."""
        if self.depth == 0:
            text = chunk.lstrip(_WHITESPACE)
            if text and self.closed:
                raise BadResponseError("there is more after the end of the array")
            if text and not text.startswith(b"["):
                raise BadResponseError("the body is not a JSON array")
        brackets = self._brackets(chunk)
        if not brackets:
            return
        # '[' and '{' have bit 1 set, ']' and '}' do not
        steps = (np.frombuffer(brackets, np.int8) & 2) - 1
        depths = self.depth + np.cumsum(steps, dtype=np.int64)
        self.events += int(np.count_nonzero((depths == 1) & (steps < 0)))
        self.depth = int(depths[-1])
        if depths.min() <= 0:
            end = int(np.argmax(depths <= 0))
            tail = chunk.rstrip(_WHITESPACE)
            if end != len(depths) - 1 or not tail.endswith(b"]") or self.depth < 0:
                raise BadResponseError("there is more after the end of the array")
            self.closed = True

    def _brackets(self, chunk: bytes) -> bytes:
        """The brackets of `chunk` that stand outside strings."""
        if self._escape:
            chunk, self._escape = self._escape + chunk, b""
        if b"\\" in chunk:
            self.has_escapes = True
            chunk = _ESCAPE.sub(b"", chunk)
            if chunk.endswith(b"\\"):
                chunk, self._escape = chunk[:-1], b"\\"
        marks = chunk.translate(None, _SCALARS)
        quotes = marks.count(b'"')
        self.quotes += quotes
        if self.in_string:
            marks = b'"' + marks
            quotes += 1
        self.in_string = quotes % 2 == 1
        if self.in_string:
            marks = marks[: marks.rindex(b'"')]
            quotes -= 1
        # A string without brackets is '""' by now. Where all are, split, which takes ten times as long, is not needed.
        if 2 * marks.count(b'""') == quotes:
            return marks.translate(None, b'"')
        return b"".join(marks.split(b'"')[::2])

    def next_event_end(self, chunk: bytes) -> int | None:
        """Where in `chunk`, the bytes to be fed next, the first event ends; None where none does. Feeds nothing."""
        depth, in_string, escaped = self.depth, self.in_string, bool(self._escape)
        for place, byte in enumerate(chunk):
            if escaped:
                escaped = False
            elif in_string:
                escaped = byte == 0x5C
                in_string = byte != 0x22
            elif byte == 0x22:
                in_string = True
            elif byte in b"[{":
                depth += 1
            elif byte in b"]}":
                depth -= 1
                if depth == 1:
                    return place + 1
        return None


class Spool:
    """Takes the bytes of one response and hands over each part as soon as it is whole."""

    def __init__(self, hand_over: Callable[[Part], None], part_bytes: int = PART_BYTES) -> None:
        self._hand_over = hand_over
        self._part_bytes = part_bytes
        self._scanner = ArrayScanner()
        self._file: IO[bytes] | None = None
        self._size = 0
        self._events_before = 0
        self._quotes_before = 0
        self._between = False
        self._tail = b""
        self.parts = 0
        """How many parts were handed over."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body. Raises BadResponseError where they cannot belong to an array of events."""
        while self._size >= self._part_bytes:
            end = self._scanner.next_event_end(chunk)
            if end is None:
                break
            self._write(chunk[:end])
            self._close_part(b"]")
            self._between = True
            chunk = chunk[end:]
        self._write(chunk)

    def finish(self) -> None:
        """The body is over: hand over the last part. Raises CutResponseError where the array is not closed."""
        if not self._scanner.closed:
            raise CutResponseError("the body ends before its array is closed")
        if self._file is not None:
            self._close_part(b"")

    def salvage(self, timestamp: Callable[[Any], int | None]) -> int | None:
        """After a cut: hand over what is whole, and say from which time on the events are still to come.

        `timestamp` gives the time of an event's JSON value. None where no event with a time is whole.
        """
        if self._file is None:
            return self._last_time(timestamp)
        self._file.seek(0)
        text = self._file.read().decode(errors="surrogateescape")
        last: int | None = None
        end = events = kept_events = 0
        with contextlib.suppress(BadResponseError):  # the cut itself: all before it has been seen
            for _, stop, value in elements(text):
                events += isinstance(value, dict | list)
                time = timestamp(value)
                if time is not None:
                    last, end, kept_events = time, stop, events
        if last is None:
            return self._last_time(timestamp)
        keep = len(text[:end].encode(errors="surrogateescape"))
        self._file.truncate(keep)
        self._file.seek(keep)
        self._size = keep
        self._hand(b"]", kept_events, text.count('"', 0, end))
        return last

    def close(self) -> None:
        """Drop what was not handed over."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, chunk: bytes) -> None:
        self._scanner.feed(chunk)
        if self._between:
            chunk = self._after_comma(chunk)
        if not chunk:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="np6-")  # noqa: SIM115
        self._file.write(chunk)
        self._size += len(chunk)

    def _after_comma(self, chunk: bytes) -> bytes:
        """What opens the next part: the comma between two events becomes the next array's bracket."""
        chunk = chunk.lstrip(_WHITESPACE)
        if not chunk or chunk.startswith(b"]"):
            return b""  # after the array's end, white space alone may follow
        if not chunk.startswith(b","):
            raise BadResponseError("there is no comma between two events")
        self._between = False
        return b"[" + chunk[1:]

    def _close_part(self, bracket: bytes) -> None:
        events = self._scanner.events - self._events_before
        if not events and self._events_before and self._holds_nothing():
            raise BadResponseError("there is a comma before the end of the array")
        self._hand(bracket, events, self._scanner.quotes - self._quotes_before)
        self._events_before, self._quotes_before = self._scanner.events, self._scanner.quotes

    def _holds_nothing(self) -> bool:
        """Whether there is nothing, not even a number or a text, in the part that is being written."""
        assert self._file is not None
        self._file.seek(0)
        return not self._file.read().strip(b"[]" + _WHITESPACE)

    def _last_time(self, timestamp: Callable[[Any], int | None]) -> int | None:
        """When the last event of the last part that was handed over happened; None where it does not say."""
        text = self._tail.decode(errors="surrogateescape")
        start = text.rfind("{")
        while start >= 0:
            with contextlib.suppress(json.JSONDecodeError):  # that bracket stands in a string
                value, end = _SCAN(text, start)
                if end == len(text):
                    return timestamp(value)
            start = text.rfind("{", 0, start)
        return None

    def _hand(self, bracket: bytes, events: int, quotes: int) -> None:
        assert self._file is not None
        self._file.seek(max(self._size - _TAIL_BYTES, 0))
        self._tail = self._file.read()
        self._file.write(bracket)
        self._file.flush()
        part = Part(self._file, self._size + len(bracket), events, None if self._scanner.has_escapes else quotes)
        self._file, self._size = None, 0
        self.parts += 1
        self._hand_over(part)


_SPACE = re.compile(r"[ \t\r\n]*")
_SCAN = json.JSONDecoder(strict=False).raw_decode


def elements(text: str) -> Iterator[tuple[int, int, Any]]:
    """Each element of the JSON array in `text`: where it starts and ends, and its value, as `json` reads it.

    The slow and forgiving reader, for the parts of which something is odd. Control characters in strings and lone
    surrogates are let through. Raises CutResponseError where the array is not closed or not JSON.
    """
    place = _skip(text, 0)
    if text[place : place + 1] != "[":
        raise BadResponseError("the body is not a JSON array")
    place = _skip(text, place + 1)
    if text[place : place + 1] == "]":
        return
    while True:
        try:
            value, end = _SCAN(text, place)
        except json.JSONDecodeError as error:
            raise CutResponseError(f"the body is not JSON from character {error.pos} of a part") from None
        after = _skip(text, end)
        follows = text[after : after + 1]
        if follows not in (",", "]") and not isinstance(value, dict | list):
            raise CutResponseError("the body ends before its array is closed")  # 12 may have been going to be 12.3
        yield place, end, value
        if follows == "]":
            return
        if follows != ",":
            raise CutResponseError("the body ends before its array is closed")
        place = _skip(text, after + 1)


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place
