"""Pieces of a body: joined to larger ones, and none for ever."""

from collections.abc import Iterable, Iterator

import pytest

from np6_assets.np6.bodies import StallTimer, join_pieces
from np6_assets.np6.errors import CutResponseError


def test_pieces_are_joined_to_larger_ones():
    pieces = list(join_pieces([b"abc"] * 10, 10))
    assert b"".join(pieces) == b"abc" * 10
    assert [len(piece) for piece in pieces] == [12, 12, 6]


def test_joined_pieces_come_before_the_error_after_them():
    def broken() -> Iterator[bytes]:
        yield from (b"a", b"b")
        raise CutResponseError("broken")

    pieces: Iterable[bytes] = join_pieces(broken(), 100)
    assert next(iter(pieces)) == b"ab"
    with pytest.raises(CutResponseError, match="broken"):
        next(iter(pieces))


def test_stall_is_seconds_without_a_whole_event():
    seconds = [0.0]
    stall = StallTimer(120, lambda: seconds[0])
    for now, events in [(100, 1), (219, 2), (338, 2), (339, 3), (459, 3)]:
        seconds[0] = now
        stall.check()
        stall.record_events(events)
    seconds[0] = 459.5
    with pytest.raises(CutResponseError, match="no whole event for 120 seconds"):
        stall.check()
