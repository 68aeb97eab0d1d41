"""A client that is closed, or after its seconds: nothing is under way any more, whatever the server does."""

import random
import threading
import time

import pytest

from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import CancelledError
from np6_assets.np6.retry import RetryPolicy
from np6_assets_tests.np6.collector import HASTE, KEY, START, Collector, day_request, failure, rendered, simple
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.rude_server import Act, RudeServer

ENDLESS = [
    *(Act("trickle", at=0.2), Act("trickle", at=0.7), Act("trickle headers")),
    *(Act("stall before"), Act("stall in body"), Act("429 retry-after seconds", wait=600)),
]


@pytest.mark.parametrize("act", ENDLESS, ids=str)
@pytest.mark.parametrize("what", ["probe", "day"])
def test_client_is_closed_after_its_seconds_whatever_the_server_does(act, what):
    with RudeServer(simple(1), key=KEY) as server:
        server.script_always("/", act)
        begun = time.monotonic()
        client = NP6Client(server.url, KEY, timeout=60, retry=RetryPolicy(50, 30, 600))
        with client.close_after(0.1), pytest.raises(CancelledError):
            raise failure(client, what)
        assert time.monotonic() - begun < 20


def test_client_that_is_fast_is_not_closed_after_its_seconds(server, client):
    with client.close_after(60):
        assert client.has_events(day_request())
    assert client.has_events(day_request())


@pytest.mark.parametrize("how", ["close", "cancel"])
@pytest.mark.parametrize("what", ["day", "list", "probe"])
def test_closed_client_sends_no_request(server, client, how, what):
    getattr(client, how)()
    with pytest.raises(CancelledError):
        raise failure(client, what)
    assert server.requests == []


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_client_that_is_closed_ends_a_download(small_parts, how):
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Collector):
        def add(self, part):
            super().add(part)
            begun.set()
            go_on.wait(20)

    labels = random.Random(1)  # a megabyte, also where it is compressed
    hits = [
        build_event("hits", id=f"{n}", timestamp=START + n, link_label=labels.randbytes(1000).hex())
        for n in range(1000)
    ]
    with RudeServer(Population(hits=list(map(rendered, hits))), key=KEY) as server:
        client = NP6Client(server.url, KEY, timeout=20, retry=HASTE)
        failed: list[BaseException] = []
        receiver = Slow(day_request())

        def download() -> None:
            try:
                client.fetch(day_request(), lambda: receiver)
            except CancelledError as error:
                failed.append(error)

        thread = threading.Thread(target=download)
        thread.start()
        assert begun.wait(20)
        getattr(client, how)()
        go_on.set()
        thread.join(20)
        assert len(failed) == 1
        assert receiver.state == "discarded"
        assert len(receiver.elements) < 1000
        assert len(server.requests) == 1
        client.close()
