"""Fetch under wrong clocks and from an API without a clock: nothing is lost, and no day closes early."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets_tests.support.deployment import Deployment, select_published
from np6_assets_tests.support.events import HOUR_MS, Population, build_event
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer

DAY = date(2026, 3, 20)
START, END = (datetime.fromtimestamp(ms / 1000, UTC) for ms in compute_day_bounds(DAY, "UTC"))
HOUR = timedelta(hours=1)


ACCOUNT = Population(
    notifications=[{"id": 156}],
    hits=[
        build_event("hits", id=f"hit {at}", timestamp=compute_day_bounds(DAY, "UTC")[0] + at * HOUR_MS // 2)
        for at in range(48)
    ],
)


class Clocks:
    """A deployment and its server, each with its own clock."""

    def __init__(self, server: RudeServer, instance: dg.DagsterInstance, data: Path) -> None:
        self.api = self.own = START
        self.server = server
        self.deployment = Deployment(data, server, instance, lambda: self.own)
        server.date = lambda: self.api

    def fetch(self, api: datetime, own: datetime) -> datetime:
        """Fetch the day at these times, assert that all published events are stored, and return the watermark."""
        self.api, self.own = api, own
        published = select_published(ACCOUNT, round(api.timestamp() * 1000))
        self.server.serve(published)
        self.deployment.materialize("hits", DAY)
        self.deployment.assert_stored(published, ["hits"], DAY, DAY)
        return self.deployment.fetched_until("hits", DAY)


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def clocks(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Clocks:
    return Clocks(server, instance, tmp_path / "data")


def test_clock_ahead_loses_nothing_and_closes_nothing_early(clocks: Clocks):
    assert clocks.fetch(END - HOUR / 2, END + 1.5 * HOUR) == END - HOUR / 2
    assert clocks.fetch(END + HOUR / 2, END + HOUR / 2) < END
    assert clocks.fetch(END + HOUR, END + 3 * HOUR) == END


def test_clock_behind_loses_nothing_and_closes_later(clocks: Clocks):
    noon = START + 12 * HOUR
    assert clocks.fetch(noon, noon) == noon
    assert clocks.fetch(noon + HOUR, noon - HOUR) == noon  # the watermark does not move back
    for hours in (22.5, 26.5):
        assert clocks.fetch(START + hours * HOUR, START + (hours - 2) * HOUR) < END
    assert clocks.fetch(END + 3 * HOUR, END + HOUR) == END


def test_watermark_in_the_future_is_moved_back_by_a_full_fetch(clocks: Clocks):
    morning = START + 9 * HOUR
    clocks.fetch(morning, morning)
    path = clocks.deployment.path("hits", DAY)
    stored = pq.read_table(path, partitioning=None)
    metadata = {**(stored.schema.metadata or {}), b"np6.fetched_until": (START + 20 * HOUR).isoformat().encode()}
    pq.write_table(stored.replace_schema_metadata(metadata), path)  # by a clock that was eleven hours ahead
    noon = START + 12 * HOUR
    assert clocks.fetch(noon, noon) == noon


@pytest.mark.parametrize("date", [None, "soon"])
@pytest.mark.slow
def test_api_without_a_date_loses_nothing_and_closes_a_day_later(clocks: Clocks, date: str | None):
    fetch = clocks.fetch
    clocks.server.date = lambda: date
    for hours in (9, 23.5, 25, 47):
        assert fetch(START + hours * HOUR, START + hours * HOUR) < END
    assert fetch(END + 25 * HOUR, END + 25 * HOUR) == END
