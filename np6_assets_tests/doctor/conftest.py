"""A server of the account."""

import pytest

from np6_assets_tests.doctor.account import KEY, NOW, account
from np6_assets_tests.support.rude_server import RudeServer


@pytest.fixture
def server():
    with RudeServer(account(), key=KEY) as running:
        running.date = lambda: NOW
        yield running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
