"""Bodies: what is taken for an answer, what is refused with a line that says what came, and within which bounds."""

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
from np6_assets_tests.np6.arrays import by_size, cut_up
from np6_assets_tests.np6.collector import HASTE, HITS, KEY, Collectors, all_text, day_request, fetch, simple
from np6_assets_tests.support import rude_bodies
from np6_assets_tests.support.events import Population
from np6_assets_tests.support.rude_server import BOMBS, RudeServer

PATIENT = RetryPolicy(retries=8, backoff=0.001, longest_wait=0.01)
THREE = simple(1, 2, 3, link_label="s3cret of a receiver")
OTHERS = {
    "html page": "the body is an HTML or XML page, not a JSON array",
    "ndjson": "the body is one JSON object after another (NDJSON), not a JSON array",
    "object around the array": "the body is a JSON object, not a JSON array",
    "not an array": "the body is a JSON object, not a JSON array",
    "empty body": "the body is empty",
    "unknown encoding": "the body has a content encoding that was not accepted",
}


# --- what is an answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("no_content", [True, False])
def test_empty_window_is_204_or_an_empty_array(no_content):
    with RudeServer(Population(), key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.sends_204 = no_content
        assert fetch(client).sizes == []
        server.script("/notifications", "204" if no_content else None)
        assert client.get_list("/notifications") == []
        assert [request.status for request in server.requests] == [204 if no_content else 200] * 2


@pytest.mark.parametrize("name", ["BOM", "wrong content type"])
def test_body_may_begin_with_a_byte_order_mark_and_be_called_anything(name):
    with RudeServer(THREE, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        server.script_always("/", name)
        for _ in range(5):  # in every encoding and transport
            assert len(fetch(client).elements) == 3
        assert client.get_list("/notifications") == THREE.notifications
        assert client.has_events(day_request())
        assert client.traffic.retries == 0


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_wrong_body_is_requested_five_times_at_most(name):
    with RudeServer(THREE, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=PATIENT)) as client:
        server.script_always("/", name)
        collectors = Collectors(day_request())
        [answer] = client.fetch(day_request(), collectors)
        assert len(server.requests) == 5
        assert set(collectors.states) == {"discarded"}
    assert isinstance(answer.error, GaveUpError)
    assert str(answer.error).startswith(f"{OTHERS[name]}; GET {HITS} given up after 5 attempts in a row")
    shown = all_text(answer.error)
    assert not any(word in shown for word in ("s3cret", "back soon", "try again", "DEMO", "156"))


@pytest.mark.parametrize("name", OTHERS)
def test_list_with_a_wrong_body_is_requested_five_times_at_most(name):
    listing = Population(notifications=[{"id": 1, "name": "s3cret"}, {"id": 2, "name": "s3cret"}])
    with RudeServer(listing, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=PATIENT)) as client:
        server.script_always("/", name)
        with pytest.raises(GaveUpError) as caught:
            client.get_list("/notifications")
        assert len(server.requests) == 5
    assert "after 5 attempts" in str(caught.value)
    shown = all_text(caught.value)
    assert not any(word in shown for word in ("s3cret", "back soon", "try again"))


@pytest.mark.parametrize("name", OTHERS)
def test_probe_of_a_wrong_body_is_sent_five_times_at_most(name):
    with RudeServer(THREE, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=PATIENT)) as client:
        server.script_always("/", name)
        with pytest.raises(GaveUpError, match="after 5 attempts"):
            client.has_events(day_request())


def test_body_that_is_empty_under_its_encoding_is_empty():
    assert list(decompress([], "gzip")) == []


class Latin(RudeServer):
    def list_notifications(self, request):
        return [b'"caf\xe9 s3cret"']


def test_list_that_is_no_text_is_refused_without_quoting_it():
    with (
        Latin(key=KEY) as server,
        closing(NP6Client(server.url, KEY, retry=HASTE)) as client,
        pytest.raises(GaveUpError, match="the body is not JSON") as caught,
    ):
        client.get_list("/notifications")
    assert "s3cret" not in all_text(caught.value)


def test_list_is_bounded(monkeypatch):
    monkeypatch.setattr(client_module, "LONGEST_LIST", 2**20)
    long = Population(notifications=[{"id": 1, "name": "s3cret" * 200_000}])
    with RudeServer(long, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=PATIENT)) as client:
        with pytest.raises(GaveUpError, match="the list has more than 1 MiB") as caught:
            client.get_list("/notifications")
        assert len(server.requests) == 5
    assert "s3cret" not in all_text(caught.value)


@pytest.mark.parametrize("name", BOMBS)
def test_gzip_bomb_is_refused_in_little_memory(name):
    with (
        RudeServer(THREE, key=KEY) as server,
        closing(NP6Client(server.url, KEY, retry=RetryPolicy(retries=0))) as client,
    ):
        server.script_always("/", name)
        rude_bodies.build_bomb(name.split()[0])  # made before memory is measured
        tracemalloc.start()
        try:
            [answer] = client.fetch(day_request(), Collectors(day_request()))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 * 2**20
    assert isinstance(answer.error, GaveUpError)
    assert str(answer.error).startswith(
        "the compressed body expands more than 200 times" if name == "gzip bomb" else OTHERS["unknown encoding"]
    )


# --- content encodings --------------------------------------------------------------------------------------------


@given(st.binary(max_size=5000), st.lists(st.integers(0, 5000), max_size=8), st.sampled_from(["gzip", "x-gzip"]))
@settings(max_examples=30, deadline=None)
def test_gzip_is_decompressed_however_it_is_chunked(body, places, encoding):
    packed = gzip.compress(body)
    chunks = [chunk for chunk in cut_up(packed, places) if chunk]
    assert b"".join(decompress(chunks, encoding)) == body
    assert b"".join(decompress([packed + packed], encoding)) == body + body  # members, RFC 1952


@pytest.mark.parametrize("size", [2**18 - 1, 2**18, 2**18 + 1, 2**19, 2**20])
@pytest.mark.parametrize("after", [[], [b""]])
def test_gzip_is_decompressed_whatever_its_length(size, after):
    body = b"[%b]" % (b" " * (size - 2))
    assert b"".join(decompress([gzip.compress(body, 1), *after], "gzip")) == body


@pytest.mark.parametrize("encoding", ["", "identity"])
def test_plain_body_stays_as_it_is(encoding):
    assert list(decompress([b"[", b"\x1f\x8b]"], encoding)) == [b"[", b"\x1f\x8b]"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "s3cret"])
def test_encoding_that_was_not_accepted_is_refused(encoding):
    with pytest.raises(WrongBodyError, match="content encoding that was not accepted") as caught:
        list(decompress([b"[]"], encoding))
    assert "s3cret" not in all_text(caught.value)


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_gzip_that_is_cut_or_broken_gives_what_came_before(size):
    body = b"[%b]" % b",".join(b'{"a":%d}' % number for number in range(2000))
    packed = gzip.compress(body)
    for broken in (packed[: len(packed) // 2], packed[:-1], packed[:-8] + b"\0" * 8):
        found: list[bytes] = []
        with pytest.raises(CutResponseError, match="the compressed body is"):
            found.extend(decompress(by_size(broken, size), "gzip"))
        assert body.startswith(b"".join(found))
        assert len(b"".join(found)) > 5000 or (size > len(packed) and broken[-1:] == b"\0")


def test_gzip_may_expand_200_times(monkeypatch):
    monkeypatch.setattr(bodies, "EXPANSION_FROM", 2**20)
    body = b"[%b]" % (b" " * 2**20)
    packed = gzip.compress(body)
    with pytest.raises(WrongBodyError, match="more than 200 times"):
        list(decompress([packed], "gzip"))
    small = body[: 2**19 + 1]
    assert b"".join(decompress([gzip.compress(small)], "gzip")) == small
    larger = gzip.compress(small, 0) + gzip.compress(small)
    assert b"".join(decompress([larger], "gzip")) == small + small  # that is not so much more


def test_gzip_is_decompressed_in_pieces_of_bounded_size():
    packed = gzip.compress(b" " * 10_000_001)
    sizes = [len(piece) for piece in decompress([packed], "gzip")]
    assert sum(sizes) == 10_000_001
    assert max(sizes) <= 2**20


def test_whole_events_are_progress(monkeypatch):
    counts: list[int] = []

    class Recorded(StallTimer):
        def record_events(self, events: int) -> None:
            counts.append(events)
            super().record_events(events)

    monkeypatch.setattr(connection_module, "StallTimer", Recorded)
    with RudeServer(THREE, key=KEY) as server, closing(NP6Client(server.url, KEY, retry=HASTE)) as client:
        fetch(client)
        assert counts[-1] == 3
        client.get_list("/notifications")
        assert counts[-1] == 1
