"""Fixtures of the doctor's tests."""

import pytest

from np6_assets_tests.doctor.account import KEY, NOW, build_account
from np6_assets_tests.support.rude_server import RudeServer


@pytest.fixture
def server():
    with RudeServer(build_account(), key=KEY) as running:
        running.date = lambda: NOW
        yield running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
