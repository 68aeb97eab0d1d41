"""Count the requests to a bucket: for a range of days, a day, rates and their checks, and ticks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.storage.files import Folder
from np6_assets_tests.refresh.account import Account
from np6_assets_tests.support.bucket import Bucket, run_store
from np6_assets_tests.support.events import KINDS, build_population
from np6_assets_tests.support.rude_server import RudeServer

pytestmark = pytest.mark.slow

FIRST = date(2026, 3, 1)
DAYS = 30
WINDOW = 7
COHORTS = 4


@dataclass
class StoredAccount:
    """An account of a month, stored in a bucket."""

    account: Account
    bucket: Bucket

    def count_requests(self) -> int:
        """Count the requests since the last count, and print them by method."""
        counts = self.bucket.count_requests()
        print(dict(counts))
        return counts.total()

    def materialize(self, assets: list[str], first: date, last: date) -> int:
        self.count_requests()
        self.account.deployment.materialize(
            dg.AssetSelection.assets(*assets), first, None if first == last else last, checks=True
        )
        return self.count_requests()


@pytest.fixture
def stored(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StoredAccount]:
    with run_store() as store:
        bucket = store.create_bucket()
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        events = build_population(33, FIRST, DAYS, sends_per_day=4, window_days=WINDOW)
        start = datetime.combine(FIRST + timedelta(days=DAYS + 1), datetime.min.time(), UTC) + timedelta(hours=12)
        settings = {"NP6_DATA_DIR": bucket.url, "NP6_START_DATE": f"{FIRST}", "NP6_WINDOW_DAYS": f"{WINDOW}"}
        yield StoredAccount(Account.create(tmp_path, server, instance, start, events, **settings), bucket)


def test_requests_to_the_bucket_are_few(stored: StoredAccount):
    last, last_cohort = FIRST + timedelta(days=DAYS - 1), FIRST + timedelta(days=COHORTS - 1)
    range_requests = stored.materialize(["hits"], FIRST, last)
    day_requests = stored.materialize(["hits"], last, last)
    others = [kind for kind in KINDS if kind != "hits"]
    stored.materialize(others, FIRST, last_cohort + timedelta(days=WINDOW))
    rates_requests = stored.materialize(["reactivity_rates"], FIRST, last_cohort)
    ticks = []
    for tick in (stored.account.tick, stored.account.tick_rates):
        for _ in ("the first of a process, which reads every footer", "any other"):
            tick()
            ticks.append(stored.count_requests())
    files = len([file for file in Folder(stored.bucket.url).list_files("") if file.endswith(".parquet")])
    print(f"range {range_requests}, day {day_requests}, rates {rates_requests}, ticks {ticks}, files {files}")
    assert range_requests <= 4 * DAYS
    assert day_requests <= 20
    assert rates_requests <= 141
    assert ticks[0] <= files + 10
    assert ticks[2] <= files + 10
    assert max(ticks[1], ticks[3]) <= 6
