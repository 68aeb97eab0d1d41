"""Close a client, at once or after a time: all its requests end."""

import random
import threading
import time

import pytest

from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import CancelledError
from np6_assets.np6.retry import RetryPolicy
from np6_assets_tests.np6.collector import (
    FAST_RETRY,
    KEY,
    START,
    Collector,
    build_account,
    build_request,
    fetch_failure,
    render_once,
)
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.rude_server import Act, RudeServer

ENDLESS = [
    *(Act("trickle", at=0.2), Act("trickle", at=0.7), Act("trickle headers")),
    *(Act("stall before"), Act("stall in body"), Act("429 retry-after seconds", wait=600)),
]


@pytest.mark.parametrize("act", ENDLESS, ids=str)
@pytest.mark.parametrize("what", ["probe", "day"])
def test_client_closes_after_its_time_during_any_stall(act, what):
    with RudeServer(build_account(1), key=KEY) as server:
        server.script_always("/", act)
        begun = time.monotonic()
        client = NP6Client(server.url, KEY, timeout=60, retry=RetryPolicy(50, 30, 600))
        with client.close_after(0.1), pytest.raises(CancelledError):
            raise fetch_failure(client, what)
        assert time.monotonic() - begun < 20


def test_client_stays_open_if_it_ends_in_time(server, client):
    with client.close_after(60):
        assert client.has_events(build_request())
    assert client.has_events(build_request())


@pytest.mark.parametrize("how", ["close", "cancel"])
@pytest.mark.parametrize("what", ["day", "list", "probe"])
def test_closed_client_sends_no_request(server, client, how, what):
    getattr(client, how)()
    with pytest.raises(CancelledError):
        raise fetch_failure(client, what)
    assert server.requests == []


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_closing_ends_a_download(small_parts, how):
    begun, go_on = threading.Event(), threading.Event()

    class SlowCollector(Collector):
        def add(self, part):
            super().add(part)
            begun.set()
            go_on.wait(20)

    labels = random.Random(1)  # a megabyte, even if compressed
    hits = [
        build_event("hits", id=f"{n}", timestamp=START + n, link_label=labels.randbytes(1000).hex())
        for n in range(1000)
    ]
    with RudeServer(Population(hits=list(map(render_once, hits))), key=KEY) as server:
        client = NP6Client(server.url, KEY, timeout=20, retry=FAST_RETRY)
        failed: list[BaseException] = []
        receiver = SlowCollector(build_request())

        def download() -> None:
            try:
                client.fetch(build_request(), lambda: receiver)
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
