"""Run one deployment, with a server, for all tests of this folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from np6_assets_tests.support.dagster_processes import IN_PROGRESS, DagsterProcesses
from np6_assets_tests.support.deployment import list_days
from np6_assets_tests.support.events import KINDS, REACTIVITIES, Population, build_population
from np6_assets_tests.support.oracle import Row, compute_day_bounds, expect_rates, expect_rows
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import assert_rows_equal, canonicalize, read_rows

CAP = 2
WINDOW = 0  # one cohort a day: for more Dagster launches a backfill, half a minute later


@dataclass(frozen=True)
class RunningDeployment:
    """A deployment, its server and population. The last day is today, the others have ended."""

    dagster: DagsterProcesses
    server: RudeServer
    population: Population
    days: list[date]

    def assert_stored(self, assets: Iterable[str], days: Sequence[date]) -> None:
        """Assert that these days are stored as the oracle computes them."""
        for asset in assets:
            for day in days:
                assert canonicalize(self._read_rows(asset, "event_date", day)) == canonicalize(
                    self._expect_rows(asset, day)
                )

    def assert_rates(self, days: Sequence[date]) -> None:
        """Assert that the rates of these days are those of the oracle for the stored event days."""
        for day in days:
            feeds = {
                kind: {
                    day: self._expect_rows(kind, day)
                    for day in self.days
                    if self._path(kind, "event_date", day).exists()
                }
                for kind in KINDS
            }
            expected = expect_rates(
                day,
                "UTC",
                WINDOW,
                feeds,
                lambda _, fetched: fetched < self.days[-1],
                missing_ids={("activations", self.days[-1]): self._find_missing_ids()},
            )
            found = self._read_rows("reactivity_rates", "activation_date", day)
            assert_rows_equal([{"activation_date": day, **row} for row in found], expected)

    def assert_complete(self) -> None:
        """Assert that all days of all assets are stored, and no run is in progress."""
        assert [run for run in self.dagster.list_runs() if run.status in IN_PROGRESS] == []
        self.assert_stored(KINDS, self.days)
        self.assert_rates(self.days)

    def _find_missing_ids(self) -> set[int]:
        """Return the deleted notifications of today's reactions.

        They are missing from the second fetch of today on: the first may have been earlier than their sends.
        """
        today = self.days[-1]
        listed = {entry["id"] for entry in self.population.notifications}
        fetches = max(self._count_fetches(id_, today) for id_ in listed)
        named = {row["activation_id"] for kind in REACTIVITIES for row in self._expect_rows(kind, today)}
        return named - listed if fetches > 1 else set()

    def _count_fetches(self, notification_id: int, day: date) -> int:
        """Count the requests for a notification's activations of a day, without probes."""
        requests = self.server.list_requests(f"/notifications/{notification_id}/events/activations")
        start = compute_day_bounds(day, "UTC")[0]
        return sum(
            int(request.query["start"]) >= start and request.headers["accept-encoding"] != "identity"
            for request in requests
        )

    def _expect_rows(self, asset: str, day: date) -> list[Row]:
        return expect_rows(asset, self.population.feed(asset), *compute_day_bounds(day, "UTC"))

    def _read_rows(self, asset: str, column: str, day: date) -> list[Row]:
        return read_rows(pq.read_table(self._path(asset, column, day), partitioning=None))

    def _path(self, asset: str, column: str, day: date) -> Path:
        return self.dagster.data / asset / f"{column}={day}" / "part-0.parquet"


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDeployment]:
    today = datetime.now(UTC).date()
    first = today - timedelta(days=6)
    population = build_population(51, first, 7, lead_days=0, window_days=WINDOW)
    for kind in KINDS:  # no event of the future
        population.feed(kind)[:] = [event for event in population.feed(kind) if event["timestamp"] < time.time() * 1000]
    with (
        RudeServer(population, seed=5) as server,
        DagsterProcesses(
            tmp_path_factory.mktemp("deployed"),
            NP6_BASE_URL=server.url,
            NP6_API_KEY=server.key,
            NP6_START_DATE=f"{first}",
            NP6_WINDOW_DAYS=f"{WINDOW}",
            NP6_MAX_CONCURRENT_REQUESTS=f"{CAP}",
            NP6_PROBE_SECONDS="30",
            NP6_REFRESH_MINUTES="0",
            NP6_LOOKBACK_MINUTES="0",
        ) as dagster,
    ):
        yield RunningDeployment(dagster, server, population, list_days(first, today))


@pytest.fixture
def deployed(running: RunningDeployment, request: pytest.FixtureRequest) -> Iterator[RunningDeployment]:
    """The deployment, whose server has no faults at first."""
    yield running
    running.server.release()
    running.server.reset_faults()
    running.server.released = threading.Event()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    running = getattr(item, "funcargs", {}).get("running")
    if report.when == "call" and report.failed and running is not None:
        report.sections.append(("the processes' logs", running.dagster.read_logs()))
    return report
