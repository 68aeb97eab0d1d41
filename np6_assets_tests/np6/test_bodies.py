"""Accept and refuse bodies, decompress them within bounds, and time out stalled ones."""

import gzip
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from np6_assets.np6 import bodies
from np6_assets.np6 import client as client_module
from np6_assets.np6 import connection as connection_module
from np6_assets.np6.bodies import StallTimer, decompress, join_pieces
from np6_assets.np6.errors import CutResponseError, GaveUpError, WrongBodyError
from np6_assets_tests.np6.arrays import split_at, split_by_size
from np6_assets_tests.np6.collector import (
    HITS,
    build_account,
    build_request,
    fetch,
    fetch_failure,
    format_chain,
    serve,
)
from np6_assets_tests.support.events import Population
from np6_assets_tests.support.rude_bodies import build_bomb
from np6_assets_tests.support.rude_server import RudeServer

ACCOUNT = build_account(1, 2, 3, link_label="s3cret of a receiver")
WRONG_BODIES = {
    "html page": "the body is an HTML or XML page, not a JSON array",
    "ndjson": "the body is one JSON object after another (NDJSON), not a JSON array",
    "object around the array": "the body is a JSON object, not a JSON array",
    "not an array": "the body is a JSON object, not a JSON array",
    "empty body": "the body is empty",
    "unknown encoding": "the body has a content encoding that was not accepted",
}


@pytest.mark.parametrize("sends_204", [True, False])
def test_client_accepts_204_and_an_empty_array(sends_204):
    with serve(Population()) as (server, client):
        server.sends_204 = sends_204
        assert fetch(client).part_count == 0
        assert not client.has_events(build_request())
        server.script("/notifications", "204" if sends_204 else None)
        assert client.get_list("/notifications") == []
        assert [request.status for request in server.requests] == [204 if sends_204 else 200] * 3


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_client_requests_a_wrong_body_five_times(name):
    with serve(ACCOUNT, retries=8) as (server, client):
        server.script_always("/", name)
        error = fetch_failure(client, "day")
        assert len(server.requests) == 5
    assert isinstance(error, GaveUpError)
    assert str(error).startswith(f"{WRONG_BODIES[name]}; GET {HITS} given up after 5 attempts in a row")
    shown = format_chain(error)
    assert not any(word in shown for word in ("s3cret", "back soon", "try again", "DEMO", "156"))


class LatinServer(RudeServer):
    def list_notifications(self, request):
        return [b'"caf\xe9 s3cret"']


def test_client_refuses_a_list_that_is_not_utf_8_or_too_long(monkeypatch):
    monkeypatch.setattr(client_module, "LONGEST_LIST", 2**20)
    long = Population(notifications=[{"id": 1, "name": "s3cret" * 200_000}])
    for account, server_type, why in (
        (Population(), LatinServer, "the body is not JSON"),
        (long, RudeServer, "the list has more than 1 MiB"),
    ):
        with serve(account, server_type) as (_, client):
            error = fetch_failure(client, "list")
        assert isinstance(error, GaveUpError)
        assert str(error).startswith(why)
        assert "s3cret" not in format_chain(error)


def test_client_refuses_a_bomb_in_little_memory():
    with serve(ACCOUNT, retries=0) as (server, client):
        server.script_always("/", "gzip bomb")
        build_bomb()  # cached before memory is measured
        tracemalloc.start()
        try:
            error = fetch_failure(client, "day")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 * 2**20
    assert str(error).startswith("the compressed body expands more than 200 times")


# --- content encodings --------------------------------------------------------------------------------------------


@given(st.binary(max_size=5000), st.lists(st.integers(0, 5000), max_size=8), st.sampled_from(["gzip", "x-gzip"]))
@settings(max_examples=30, deadline=None)
def test_decompress_joins_any_chunks(body, places, encoding):
    packed = gzip.compress(body)
    chunks = [chunk for chunk in split_at(packed, places) if chunk]
    assert b"".join(decompress(chunks, encoding)) == body
    assert b"".join(decompress([packed + packed], encoding)) == body + body  # members, RFC 1952


def test_decompress_yields_bounded_pieces_of_a_body_of_any_length():
    for size in (0, 2**18 - 1, 2**18, 2**18 + 1, 2**20):
        packed = gzip.compress(b" " * size, 1)
        for chunks in ([packed], [packed, b""]):
            lengths = [len(piece) for piece in decompress(chunks, "gzip")]
            assert sum(lengths) == size
            assert max(lengths) <= 2**18
    assert list(decompress([], "gzip")) == []


def test_decompress_accepts_gzip_or_none():
    for encoding in ("", "identity"):
        assert list(decompress([b"[", b"\x1f\x8b]"], encoding)) == [b"[", b"\x1f\x8b]"]
    for encoding in ("br", "zstd", "deflate", "gzip, gzip", "s3cret"):
        with pytest.raises(WrongBodyError, match="content encoding that was not accepted") as caught:
            list(decompress([b"[]"], encoding))
        assert "s3cret" not in format_chain(caught.value)


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_decompress_yields_the_beginning_of_a_broken_body(size):
    body = b"[%b]" % b",".join(b'{"a":%d}' % number for number in range(2000))
    packed = gzip.compress(body)
    for broken in (packed[: len(packed) // 2], packed[:-1], packed[:-8] + b"\0" * 8):
        found: list[bytes] = []
        with pytest.raises(CutResponseError, match="the compressed body is"):
            found.extend(decompress(split_by_size(broken, size), "gzip"))
        assert body.startswith(b"".join(found))
        assert len(b"".join(found)) > 5000 or (size > len(packed) and broken[-1:] == b"\0")


def test_decompress_refuses_more_than_200_times_the_size(monkeypatch):
    monkeypatch.setattr(bodies, "EXPANSION_FROM", 2**20)
    body = b"[%b]" % (b" " * 2**20)
    with pytest.raises(WrongBodyError, match="more than 200 times"):
        list(decompress([gzip.compress(body)], "gzip"))
    small = body[: 2**19 + 1]
    assert b"".join(decompress([gzip.compress(small)], "gzip")) == small
    larger = gzip.compress(small, 0) + gzip.compress(small)
    assert b"".join(decompress([larger], "gzip")) == small + small  # less than 200 times


# --- pieces and stalls --------------------------------------------------------------------------------------------


def test_join_pieces_joins_up_to_a_size_and_yields_before_an_error():
    assert [len(piece) for piece in join_pieces([b"abc"] * 10, 10)] == [12, 12, 6]

    def yield_and_fail():
        yield from (b"a", b"b")
        raise CutResponseError("broken")

    pieces = join_pieces(yield_and_fail(), 100)
    assert next(pieces) == b"ab"
    with pytest.raises(CutResponseError, match="broken"):
        next(pieces)


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


def test_client_tells_the_stall_timer_of_whole_events(monkeypatch):
    counts: list[int] = []

    class RecordingTimer(StallTimer):
        def record_events(self, events: int) -> None:
            counts.append(events)
            super().record_events(events)

    monkeypatch.setattr(connection_module, "StallTimer", RecordingTimer)
    with serve(ACCOUNT) as (_, client):
        fetch(client)
        assert counts[-1] == 3
        client.get_list("/notifications")
        assert counts[-1] == 1
