"""Response bodies: decompression within bounds, and the end of responses that make no progress."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator

from np6_assets.np6.errors import CutResponseError, WrongBodyError

MOST_EXPANSION, EXPANSION_FROM = 200, 64 * 2**20
"""From EXPANSION_FROM bytes on, a body of more than MOST_EXPANSION times the received bytes is refused."""

_PIECE_BYTES = 2**18
_LONGEST_DELAY = 1.0
"""Seconds that a piece waits for more."""


class StallTimer:
    """Ends a response in which no complete event arrives for some seconds, however many bytes do."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since = clock()
        self._events = 0

    def record_events(self, events: int) -> None:
        """Record how many complete events have arrived so far."""
        if events > self._events:
            self._events, self._since = events, self._clock()

    def check(self) -> None:
        """Raise CutResponseError if the last complete event is too long ago."""
        if self._clock() - self._since > self._seconds:
            raise CutResponseError(f"no whole event for {self._seconds:.0f} seconds")


def decompress(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the body without its content encoding, in pieces of bounded size.

    Raises CutResponseError if it is broken, WrongBodyError if it expands too much or its encoding is not supported.
    """
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding not in ("gzip", "x-gzip"):
        raise WrongBodyError("the body has a content encoding that was not accepted")
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    received = expanded = 0
    for piece in pieces:
        received += len(piece)
        text = b""
        while piece or (len(text) == _PIECE_BYTES and not inflate.eof):
            if inflate.eof:  # a gzip file may have several members
                inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                text = inflate.decompress(piece, _PIECE_BYTES)
            except zlib.error:
                raise CutResponseError("the compressed body is broken") from None
            piece = inflate.unconsumed_tail or inflate.unused_data
            expanded += len(text)
            if expanded > EXPANSION_FROM and expanded > MOST_EXPANSION * received:
                raise WrongBodyError(f"the compressed body expands more than {MOST_EXPANSION} times")
            yield text
    if received and not inflate.eof:
        raise CutResponseError("the compressed body is cut off")


def join_pieces(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Join pieces to larger ones of about `size` bytes. Before an error is raised, what was received is yielded."""
    waiting, length, since = [b""], 0, time.monotonic()
    try:
        for piece in pieces:
            waiting.append(piece)
            length += len(piece)
            if length >= size or time.monotonic() - since > _LONGEST_DELAY:
                yield b"".join(waiting)
                waiting, length, since = [b""], 0, time.monotonic()
    except Exception:
        yield b"".join(waiting)
        raise
    yield b"".join(waiting)
