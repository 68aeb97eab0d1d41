"""What most tests start from: an instance of Dagster and a server, each of its own."""

from collections.abc import Iterator

import dagster as dg
import pytest

from np6_assets_tests.support.rude_server import RudeServer


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        yield running
