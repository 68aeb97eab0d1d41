"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from np6_assets.np6 import client as client_module
from np6_assets.np6.client import NP6Client
from np6_assets.np6.stream import Part, PartWriter
from np6_assets_tests.np6.collector import ACCOUNT, FAST_RETRY, KEY
from np6_assets_tests.support.rude_server import RudeServer


@pytest.fixture(scope="module")
def module_server() -> Iterator[RudeServer]:
    with RudeServer(ACCOUNT, key=KEY, seed=3) as running:
        yield running


@pytest.fixture
def server(module_server: RudeServer) -> RudeServer:
    """A server of ACCOUNT without requests and faults."""
    module_server.reset_faults()
    with module_server.lock:
        module_server.requests.clear()
        module_server.peak_in_flight = 0
    return module_server


@pytest.fixture
def client(server: RudeServer) -> Iterator[NP6Client]:
    with closing(NP6Client(server.url, KEY, timeout=5, retry=FAST_RETRY)) as client:
        yield client


class _SmallPartWriter(PartWriter):
    """Writes parts of a few events."""

    def __init__(self, hand_over: Callable[[Part], None]) -> None:
        super().__init__(hand_over, part_bytes=4000)

    def feed(self, chunk: bytes) -> None:
        for place in range(0, len(chunk), 500):
            super().feed(chunk[place : place + 500])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PartWriter", _SmallPartWriter)
