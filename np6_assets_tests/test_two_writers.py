"""Two writers of one data folder, on a disk and in a bucket: neither loses what the other did."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
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
from np6_assets_tests.support.events import MISSING, Misfit, Population, build_event
from np6_assets_tests.support.rude_server import RudeServer

pytestmark = pytest.mark.slow

DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
SENDER = 4711
RECEIVERS = ("0BIRD0", "0FISH0", "0FROG0")


def at(hour: int) -> int:
    return int(datetime(DAY.year, DAY.month, DAY.day, hour, tzinfo=UTC).timestamp() * 1000)


def account(*receivers: str) -> Population:
    """A hit of each receiver, and one that is rejected."""
    made = Population()
    made.notifications = [{"id": SENDER, "name": "News", "type": "push"}]
    for hour, who in enumerate(receivers):
        made.hits.append(
            build_event("hits", id=f"hit-{who}", timestamp=at(hour), activation_id=SENDER, receiver_id=who)
        )
        odd = build_event("hits", id=f"odd-{who}", timestamp=at(hour), activation_id=MISSING, receiver_id=who)
        made.misfits.append(Misfit("no activation.id", "hits", at(hour), SENDER, odd))
    return made


@dataclass
class Site:
    """A data folder and an account. `interrupt` runs something in the middle of what is done next."""

    url: str
    server: RudeServer
    tmp_path: Path
    bucket: Bucket | None
    waiting: list[threading.Thread]

    def fetch(self, **settings: str) -> None:
        self._deployment(lambda deployment: deployment.materialize("hits", DAY), **settings)

    def erase(self, who: str) -> None:
        def run(deployment: Deployment) -> None:
            file = self.tmp_path / f"{who}.txt"
            file.write_text(who)
            deployment.run_job("erase_receiver", erase={"file": str(file)})

        self._deployment(run)

    def _deployment(self, run: Callable[[Deployment], Any], **settings: str) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            run(Deployment(self.tmp_path, self.server, instance, lambda: NOW, NP6_DATA_DIR=self.url, **settings))

    def interrupt(self, place: str, action: Callable[[], None]) -> None:
        """Run an action: in a bucket when a file is about to be put to a place; on a disk at once, beside the rest."""
        if self.bucket is None:
            self.waiting.append(threading.Thread(target=action))
            self.waiting[-1].start()
            return
        left = [action]

        def first_put(method: str, key: str) -> None:
            if method == "PUT" and place in key and left:
                left.pop()()

        self.bucket.refuse = first_put

    def done(self) -> None:
        """Wait for what was started."""
        for thread in self.waiting:
            thread.join(60)

    def rows(self, place: str) -> list[dict[str, Any]]:
        with Folder(self.url).open(place) as file:
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return rows

    def named(self) -> str:
        """All that is stored of hits, as text."""
        places = [place for place in Folder(self.url).list_files("") if place.endswith(".parquet")]
        return str([self.rows(place) for place in places])


@pytest.fixture(scope="module")
def buckets() -> Iterator[Store]:
    with run_store() as started:
        yield started


@pytest.fixture(params=["disk", "bucket"])
def site(
    request: pytest.FixtureRequest, tmp_path: Path, buckets: Store, monkeypatch: pytest.MonkeyPatch, server: RudeServer
) -> Site:
    server.serve(account(*RECEIVERS))
    if request.param == "disk":
        return Site(str(tmp_path / "data"), server, tmp_path, None, [])
    bucket = buckets.create_bucket()
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return Site(bucket.url, server, tmp_path, bucket, [])


HITS = f"hits/event_date={DAY}/part-0.parquet"
REJECTED = f"quarantine/{HITS}"


def test_two_erasures_at_once_both_last(site: Site):
    first, second, other = RECEIVERS
    site.fetch()
    site.interrupt(".erased/", lambda: site.erase(second))
    site.erase(first)
    site.done()
    site.fetch()
    named = site.named()
    assert first not in named
    assert second not in named
    assert named.count(f"hit-{other}") == 1
    with Folder(site.url).open("np6.json") as file:
        assert json.load(file)["has_tombstones"]


@pytest.mark.parametrize("is_stored", [False, True])
def test_erasure_during_a_fetch_leaves_no_file_with_the_receiver(site: Site, is_stored: bool):
    first, *others = RECEIVERS
    if is_stored:
        site.fetch()
    site.interrupt("/hits/", lambda: site.erase(first))
    site.fetch()
    site.done()
    named = site.named()
    assert first not in named
    assert sorted(row["event_id"] for row in site.rows(HITS)) == sorted(f"hit-{who}" for who in others)
    assert len(site.rows(REJECTED)) == len(others)


def test_two_fetches_of_one_day_at_once_keep_what_both_brought(site: Site):
    first, second, both = RECEIVERS
    site.server.serve(account(first, both))

    def another() -> None:
        site.server.serve(account(second, both))
        site.fetch()

    if site.bucket is None:
        site.fetch()
    site.interrupt(f"np6/{HITS}", another)
    site.fetch()
    site.done()
    assert sorted(row["event_id"] for row in site.rows(HITS)) == sorted(f"hit-{who}" for who in RECEIVERS)
    assert sorted(who for who in RECEIVERS if who in str(site.rows(REJECTED))) == sorted(RECEIVERS)


def test_of_two_first_runs_at_once_one_makes_the_bucket_its_own(site: Site):
    if site.bucket is None:
        site.fetch()
    site.interrupt("np6.json", site.fetch)
    with pytest.raises(dg.Failure) as refused:
        site.fetch(NP6_TIMEZONE="Europe/Paris")
    site.done()
    assert "set NP6_DATA_DIR to another folder" in str(refused.value.description)
    with Folder(site.url).open("np6.json") as file:
        assert json.load(file)["timezone"] == "UTC"
