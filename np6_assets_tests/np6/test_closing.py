"""Close a client, at once or after a time: all its requests end."""

import random
import threading
import time

import pytest

from np6_assets.np6.errors import CancelledError
from np6_assets_tests.np6.collector import (
    START,
    Collector,
    build_account,
    build_request,
    fetch_failure,
    render,
    serve,
    write_small_parts,
)
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.rude_acts import Act

ENDLESS = [
    *(Act("trickle", at=0.2), Act("trickle", at=0.7), Act("trickle headers")),
    *(Act("stall before"), Act("stall in body"), Act("429 retry-after seconds", wait=600)),
]


@pytest.mark.parametrize("act", ENDLESS, ids=str)
@pytest.mark.parametrize("what", ["probe", "day"])
def test_client_closes_after_its_time_during_any_stall(act, what):
    with serve(build_account(1), retries=50, backoff=30, longest_wait=600, timeout=60) as (server, client):
        server.script_always("/", act)
        begun = time.monotonic()
        with client.close_after(0.1):
            error = fetch_failure(client, what)
    assert isinstance(error, CancelledError)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_closed_client_sends_no_request(how):
    with serve() as (server, client):
        with client.close_after(60):
            assert client.has_events(build_request())
        assert client.has_events(build_request())  # the block ended in time
        getattr(client, how)()
        for what in ("day", "list", "probe"):
            assert isinstance(fetch_failure(client, what), CancelledError)
        assert len(server.requests) == 2


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_closing_ends_a_download(monkeypatch, how):
    write_small_parts(monkeypatch)
    begun, go_on = threading.Event(), threading.Event()

    class SlowCollector(Collector):
        def add(self, part):
            super().add(part)
            begun.set()
            go_on.wait(20)

    labels = random.Random(1)  # a megabyte, even if compressed
    hits = [
        render(build_event("hits", id=f"{n}", timestamp=START + n, link_label=labels.randbytes(1000).hex()))
        for n in range(1000)
    ]
    failed: list[BaseException] = []
    receiver = SlowCollector(build_request())
    with serve(Population(hits=hits), timeout=20) as (server, client):

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
        assert len(server.requests) == len(failed) == 1
    assert receiver.state == "discarded"
    assert len(receiver.elements) < 1000
