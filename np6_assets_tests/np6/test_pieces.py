"""Join pieces of a body, and time out stalled ones."""

from collections.abc import Iterable, Iterator

import pytest

from np6_assets.np6.bodies import StallTimer, join_pieces
from np6_assets.np6.errors import CutResponseError


def test_join_pieces_joins_up_to_a_size():
    pieces = list(join_pieces([b"abc"] * 10, 10))
    assert b"".join(pieces) == b"abc" * 10
    assert [len(piece) for piece in pieces] == [12, 12, 6]


def test_join_pieces_yields_pieces_before_an_error():
    def yield_and_fail() -> Iterator[bytes]:
        yield from (b"a", b"b")
        raise CutResponseError("broken")

    pieces: Iterable[bytes] = join_pieces(yield_and_fail(), 100)
    assert next(iter(pieces)) == b"ab"
    with pytest.raises(CutResponseError, match="broken"):
        next(iter(pieces))


def test_stall_timer_counts_seconds_without_a_whole_event():
    seconds = [0.0]
    stall = StallTimer(120, lambda: seconds[0])
    for now, events in [(100, 1), (219, 2), (338, 2), (339, 3), (459, 3)]:
        seconds[0] = now
        stall.check()
        stall.record_events(events)
    seconds[0] = 459.5
    with pytest.raises(CutResponseError, match="no whole event for 120 seconds"):
        stall.check()
