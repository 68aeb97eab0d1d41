"""Fixtures of the events' tests."""

from collections.abc import Iterator

import pytest

from np6_assets_tests.support.rude_server import RudeServer


@pytest.fixture(scope="module")
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        yield running
