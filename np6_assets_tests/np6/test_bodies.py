"""Accept and refuse bodies, and decompress them within bounds."""

import gzip
import tracemalloc
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from np6_assets.np6 import bodies
from np6_assets.np6 import client as client_module
from np6_assets.np6 import connection as connection_module
from np6_assets.np6.bodies import StallTimer, decompress
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import CutResponseError, GaveUpError, WrongBodyError
from np6_assets.np6.retry import RetryPolicy
from np6_assets_tests.np6.arrays import split_at, split_by_size
from np6_assets_tests.np6.collector import (
    FAST_RETRY,
    HITS,
    KEY,
    Collectors,
    build_account,
    build_request,
    fetch,
    format_chain,
)
from np6_assets_tests.support import rude_bodies
from np6_assets_tests.support.events import Population
from np6_assets_tests.support.rude_server import BOMBS, RudeServer

MANY_RETRIES = RetryPolicy(retries=8, backoff=0.001, longest_wait=0.01)
ACCOUNT = build_account(1, 2, 3, link_label="s3cret of a receiver")
WRONG_BODIES = {
    "html page": "the body is an HTML or XML page, not a JSON array",
    "ndjson": "the body is one JSON object after another (NDJSON), not a JSON array",
    "object around the array": "the body is a JSON object, not a JSON array",
    "not an array": "the body is a JSON object, not a JSON array",
    "empty body": "the body is empty",
    "unknown encoding": "the body has a content encoding that was not accepted",
}


# --- accepted bodies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sends_204", [True, False])
def test_client_accepts_204_and_an_empty_array(sends_204):
    with RudeServer(Population(), key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.sends_204 = sends_204
        assert fetch(client).sizes == []
        server.script("/notifications", "204" if sends_204 else None)
        assert client.get_list("/notifications") == []
        assert [request.status for request in server.requests] == [204 if sends_204 else 200] * 2


@pytest.mark.parametrize("name", ["BOM", "wrong content type"])
def test_client_accepts_a_byte_order_mark_and_any_content_type(name):
    with RudeServer(ACCOUNT, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        server.script_always("/", name)
        for _ in range(5):  # in every encoding and transport
            assert len(fetch(client).elements) == 3
        assert client.get_list("/notifications") == ACCOUNT.notifications
        assert client.has_events(build_request())
        assert client.traffic.retries == 0


# --- refused bodies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_client_requests_a_wrong_body_five_times(name):
    with RudeServer(ACCOUNT, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=MANY_RETRIES)) as client:
        server.script_always("/", name)
        collectors = Collectors(build_request())
        [answer] = client.fetch(build_request(), collectors)
        assert len(server.requests) == 5
        assert set(collectors.states) == {"discarded"}
    assert isinstance(answer.error, GaveUpError)
    assert str(answer.error).startswith(f"{WRONG_BODIES[name]}; GET {HITS} given up after 5 attempts in a row")
    shown = format_chain(answer.error)
    assert not any(word in shown for word in ("s3cret", "back soon", "try again", "DEMO", "156"))


def test_decompress_accepts_an_empty_body():
    assert list(decompress([], "gzip")) == []


class LatinServer(RudeServer):
    def list_notifications(self, request):
        return [b'"caf\xe9 s3cret"']


def test_client_refuses_a_list_that_is_not_utf_8():
    with (
        LatinServer(key=KEY) as server,
        closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client,
        pytest.raises(GaveUpError, match="the body is not JSON") as caught,
    ):
        client.get_list("/notifications")
    assert "s3cret" not in format_chain(caught.value)


def test_client_refuses_a_list_that_is_too_long(monkeypatch):
    monkeypatch.setattr(client_module, "LONGEST_LIST", 2**20)
    long = Population(notifications=[{"id": 1, "name": "s3cret" * 200_000}])
    with RudeServer(long, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=MANY_RETRIES)) as client:
        with pytest.raises(GaveUpError, match="the list has more than 1 MiB") as caught:
            client.get_list("/notifications")
        assert len(server.requests) == 5
    assert "s3cret" not in format_chain(caught.value)


@pytest.mark.parametrize("name", BOMBS)
def test_client_refuses_a_bomb_in_little_memory(name):
    with (
        RudeServer(ACCOUNT, key=KEY) as server,
        closing(NP6Client(server.url, KEY, retry=RetryPolicy(retries=0))) as client,
    ):
        server.script_always("/", name)
        rude_bodies.build_bomb(name.split()[0])  # cached before memory is measured
        tracemalloc.start()
        try:
            [answer] = client.fetch(build_request(), Collectors(build_request()))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 * 2**20
    assert isinstance(answer.error, GaveUpError)
    assert str(answer.error).startswith(
        "the compressed body expands more than 200 times" if name == "gzip bomb" else WRONG_BODIES["unknown encoding"]
    )


# --- content encodings --------------------------------------------------------------------------------------------


@given(st.binary(max_size=5000), st.lists(st.integers(0, 5000), max_size=8), st.sampled_from(["gzip", "x-gzip"]))
@settings(max_examples=30, deadline=None)
def test_decompress_joins_any_chunks(body, places, encoding):
    packed = gzip.compress(body)
    chunks = [chunk for chunk in split_at(packed, places) if chunk]
    assert b"".join(decompress(chunks, encoding)) == body
    assert b"".join(decompress([packed + packed], encoding)) == body + body  # members, RFC 1952


@pytest.mark.parametrize("size", [2**18 - 1, 2**18, 2**18 + 1, 2**19, 2**20])
@pytest.mark.parametrize("after", [[], [b""]])
def test_decompress_accepts_any_length(size, after):
    body = b"[%b]" % (b" " * (size - 2))
    assert b"".join(decompress([gzip.compress(body, 1), *after], "gzip")) == body


@pytest.mark.parametrize("encoding", ["", "identity"])
def test_decompress_keeps_a_plain_body(encoding):
    assert list(decompress([b"[", b"\x1f\x8b]"], encoding)) == [b"[", b"\x1f\x8b]"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "s3cret"])
def test_decompress_refuses_other_encodings(encoding):
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
    packed = gzip.compress(body)
    with pytest.raises(WrongBodyError, match="more than 200 times"):
        list(decompress([packed], "gzip"))
    small = body[: 2**19 + 1]
    assert b"".join(decompress([gzip.compress(small)], "gzip")) == small
    larger = gzip.compress(small, 0) + gzip.compress(small)
    assert b"".join(decompress([larger], "gzip")) == small + small  # less than 200 times


def test_decompress_yields_bounded_pieces():
    packed = gzip.compress(b" " * 10_000_001)
    sizes = [len(piece) for piece in decompress([packed], "gzip")]
    assert sum(sizes) == 10_000_001
    assert max(sizes) <= 2**20


def test_stall_timer_counts_whole_events(monkeypatch):
    counts: list[int] = []

    class RecordingTimer(StallTimer):
        def record_events(self, events: int) -> None:
            counts.append(events)
            super().record_events(events)

    monkeypatch.setattr(connection_module, "StallTimer", RecordingTimer)
    with RudeServer(ACCOUNT, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=FAST_RETRY)) as client:
        fetch(client)
        assert counts[-1] == 3
        client.get_list("/notifications")
        assert counts[-1] == 1
