"""Let two runs write into one data folder, on a disk and in a bucket: neither loses the other's files."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets.storage.files import Folder
from np6_assets_tests.support.bucket import Bucket, Store, run_store
from np6_assets_tests.support.deployment import Deployment
from np6_assets_tests.support.events import MISSING, BadEvent, Population, build_event
from np6_assets_tests.support.rude_server import RudeServer

pytestmark = pytest.mark.slow

DAY = date(2026, 3, 1)
START_MS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
SENDER = 4711
RECEIVERS = ("0BIRD0", "0FISH0", "0FROG0")


def build_account(*receivers: str) -> Population:
    """Build a hit and a rejected hit of each receiver."""
    population = Population(notifications=[{"id": SENDER, "name": "News", "type": "push"}])
    for number, receiver in enumerate(receivers):
        fields = {"timestamp": START_MS + number, "receiver_id": receiver}
        population.hits.append(build_event("hits", id=f"hit-{receiver}", activation_id=SENDER, **fields))
        odd = build_event("hits", id=f"odd-{receiver}", activation_id=MISSING, **fields)
        population.bad_events.append(BadEvent("no activation.id", "hits", START_MS + number, SENDER, odd))
    return population


@dataclass
class Site:
    """A data folder and an account. `interrupt` runs an action in the middle of the next run."""

    url: str
    server: RudeServer
    tmp_path: Path
    bucket: Bucket | None
    waiting: list[threading.Thread]

    def fetch(self, **settings: str) -> None:
        with self._deploy(**settings) as deployment:
            deployment.materialize("hits", DAY)

    def erase(self, receiver: str) -> None:
        file = self.tmp_path / f"{receiver}.txt"
        file.write_text(receiver)
        with self._deploy() as deployment:
            deployment.run_job("erase_receiver", erase={"file": str(file)})

    @contextmanager
    def _deploy(self, **settings: str) -> Iterator[Deployment]:
        with dg.DagsterInstance.ephemeral() as instance:
            yield Deployment(self.tmp_path, self.server, instance, lambda: NOW, NP6_DATA_DIR=self.url, **settings)

    def interrupt(self, place: str, action: Callable[[], None]) -> None:
        """Run an action: in a bucket just before a file is put to a place, on a disk in a thread at once."""
        if self.bucket is None:
            self.waiting.append(threading.Thread(target=action))
            self.waiting[-1].start()
            return
        actions = [action]

        def act_on_first_put(method: str, key: str) -> None:
            if method == "PUT" and place in key and actions:
                actions.pop()()

        self.bucket.refuse = act_on_first_put

    def wait(self) -> None:
        for thread in self.waiting:
            thread.join(60)

    def rows(self, place: str) -> list[dict[str, Any]]:
        with Folder(self.url).open(place) as file:
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return rows

    def read_all(self) -> str:
        """Return all stored rows as text."""
        places = [place for place in Folder(self.url).list_files("") if place.endswith(".parquet")]
        return str([self.rows(place) for place in places])


@pytest.fixture(scope="module")
def buckets() -> Iterator[Store]:
    with run_store() as store:
        yield store


@pytest.fixture(params=["disk", "bucket"])
def site(
    request: pytest.FixtureRequest, tmp_path: Path, buckets: Store, monkeypatch: pytest.MonkeyPatch, server: RudeServer
) -> Site:
    server.serve(build_account(*RECEIVERS))
    if request.param == "disk":
        return Site(str(tmp_path / "data"), server, tmp_path, None, [])
    bucket = buckets.create_bucket()
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return Site(bucket.url, server, tmp_path, bucket, [])


HITS = f"hits/event_date={DAY}/part-0.parquet"
REJECTED = f"quarantine/{HITS}"


def test_concurrent_erasures_both_last(site: Site):
    first, second, other = RECEIVERS
    site.fetch()
    site.interrupt(".erased/", lambda: site.erase(second))
    site.erase(first)
    site.wait()
    site.fetch()
    text = site.read_all()
    assert first not in text
    assert second not in text
    assert text.count(f"hit-{other}") == 1
    with Folder(site.url).open("np6.json") as file:
        assert json.load(file)["has_tombstones"]


@pytest.mark.parametrize("is_stored", [False, True])
def test_erasure_during_a_fetch_removes_the_receiver(site: Site, is_stored: bool):
    first, *others = RECEIVERS
    if is_stored:
        site.fetch()
    site.interrupt("/hits/", lambda: site.erase(first))
    site.fetch()
    site.wait()
    text = site.read_all()
    assert first not in text
    assert sorted(row["event_id"] for row in site.rows(HITS)) == sorted(f"hit-{who}" for who in others)
    assert len(site.rows(REJECTED)) == len(others)


def test_concurrent_fetches_keep_the_events_of_both(site: Site):
    first, second, both = RECEIVERS
    site.server.serve(build_account(first, both))

    def fetch_other() -> None:
        site.server.serve(build_account(second, both))
        site.fetch()

    if site.bucket is None:
        site.fetch()
    site.interrupt(f"np6/{HITS}", fetch_other)
    site.fetch()
    site.wait()
    assert sorted(row["event_id"] for row in site.rows(HITS)) == sorted(f"hit-{who}" for who in RECEIVERS)
    assert sorted(who for who in RECEIVERS if who in str(site.rows(REJECTED))) == sorted(RECEIVERS)


def test_one_of_two_first_runs_owns_the_folder(site: Site):
    if site.bucket is None:
        site.fetch()
    site.interrupt("np6.json", site.fetch)
    with pytest.raises(dg.Failure) as refused:
        site.fetch(NP6_TIMEZONE="Europe/Paris")
    site.wait()
    assert "set NP6_DATA_DIR to another folder" in str(refused.value.description)
    with Folder(site.url).open("np6.json") as file:
        assert json.load(file)["timezone"] == "UTC"
