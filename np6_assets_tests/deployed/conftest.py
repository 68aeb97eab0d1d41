"""One running deployment for all tests in here, fed by a server that each test may make rude."""

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
WINDOW = 0  # one cohort follows a day, in one tick: with more of them Dagster makes a backfill, half a minute later


@dataclass(frozen=True)
class Deployed:
    """A deployment, what feeds it, and what there is to be had. All days are over but the last, which is today."""

    dagster: DagsterProcesses
    server: RudeServer
    made: Population
    days: list[date]

    def assert_stored(self, assets: Iterable[str], days: Sequence[date]) -> None:
        """These days are on disk as the oracle has them."""
        for asset in assets:
            for day in days:
                assert canonicalize(self._stored(asset, "event_date", day)) == canonicalize(self._expected(asset, day))

    def assert_rates(self, days: Sequence[date]) -> None:
        """The rates of these days are on disk as the oracle has them, from the event days that are on disk."""
        for day in days:
            feeds = {
                kind: {
                    day: self._expected(kind, day) for day in self.days if self._path(kind, "event_date", day).exists()
                }
                for kind in KINDS
            }
            expected = expect_rates(
                day,
                "UTC",
                WINDOW,
                feeds,
                lambda _, fetched: fetched < self.days[-1],
                missing_ids={("activations", self.days[-1]): self._missing()},
            )
            found = self._stored("reactivity_rates", "activation_date", day)
            assert_rows_equal([{"activation_date": day, **row} for row in found], expected)

    def assert_complete(self) -> None:
        """Every day of every asset is on disk as it should be, and nothing is under way."""
        assert [run for run in self.dagster.runs() if run.status in IN_PROGRESS] == []
        self.assert_stored(KINDS, self.days)
        self.assert_rates(self.days)

    def _missing(self) -> set[int]:
        """The notifications that the account has deleted and that today's reactions name.

        They are told from the second fetch of today on: the first might have been too early for their sends.
        """
        today = self.days[-1]
        listed = {entry["id"] for entry in self.made.notifications}
        fetches = max(self._fetches(id_, today) for id_ in listed)
        named = {row["activation_id"] for kind in REACTIVITIES for row in self._expected(kind, today)}
        return named - listed if fetches > 1 else set()

    def _fetches(self, notification_id: int, day: date) -> int:
        """How often the account was asked for a notification's activations of the day, the sensor's probes apart."""
        requests = self.server.list_requests(f"/notifications/{notification_id}/events/activations")
        start = compute_day_bounds(day, "UTC")[0]
        return sum(
            int(request.query["start"]) >= start and request.headers["accept-encoding"] != "identity"
            for request in requests
        )

    def _expected(self, asset: str, day: date) -> list[Row]:
        return expect_rows(asset, self.made.feed(asset), *compute_day_bounds(day, "UTC"))

    def _stored(self, asset: str, column: str, day: date) -> list[Row]:
        return read_rows(pq.read_table(self._path(asset, column, day), partitioning=None))

    def _path(self, asset: str, column: str, day: date) -> Path:
        return self.dagster.data / asset / f"{column}={day}" / "part-0.parquet"


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    today = datetime.now(UTC).date()
    first = today - timedelta(days=6)
    made = build_population(51, first, 7, lead_days=0, window_days=WINDOW)
    for kind in KINDS:  # nothing is published before its time
        made.feed(kind)[:] = [event for event in made.feed(kind) if event["timestamp"] < time.time() * 1000]
    with (
        RudeServer(made, seed=5) as server,
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
        yield Deployed(dagster, server, made, list_days(first, today))


@pytest.fixture
def deployed(running: Deployed, request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """The deployment, with a server that behaves well at first; a test that fails shows the processes' logs."""
    yield running
    running.server.release()
    running.server.behave()
    running.server.released = threading.Event()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    running = getattr(item, "funcargs", {}).get("running")
    if report.when == "call" and report.failed and running is not None:
        report.sections.append(("the processes' logs", running.dagster.logs()))
    return report
