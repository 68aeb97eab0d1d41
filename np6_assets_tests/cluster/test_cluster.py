"""A backfill over two workers that share nothing but services, while what can break breaks; `make test-cluster`.

The figures that it prints are those of docs/deployment.md.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import httpx
import pytest

from np6_assets.runs import lock
from np6_assets.runs.time_limit import TAG
from np6_assets.sandbox.app import create_app
from np6_assets.sandbox.population import Account
from np6_assets.sandbox.server import serve_in_thread
from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions
from np6_assets_tests.cluster.counting import CountedAccount
from np6_assets_tests.cluster.services import DEPLOY, Postgres, redis
from np6_assets_tests.support.bucket import Bucket, run_store
from np6_assets_tests.support.dagster_processes import Run, wait_until
from np6_assets_tests.support.deployment import list_days, read_files
from np6_assets_tests.support.units import UnitProcesses

DAYS = list_days(date(2026, 1, 1), date(2026, 4, 30))
DAYS_PER_RUN = 40
ASSETS = ["hits", "activations"]
CAP = 3
KEY = "the account's key"
REFUSED = 0.1
SECONDS = 1500
"""How long to wait for what takes longest, on a machine that does other things as well."""


@dataclass(frozen=True)
class Worker:
    """A worker with folders of its own, as the unit in deploy/workers starts it."""

    name: str
    folder: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "dagster"

    @property
    def runs(self) -> set[str]:
        """The runs whose process lives here, by their locks."""
        return {path.stem for path in (self.home / lock.FOLDER).glob("*.lock")}


class Cluster(UnitProcesses):
    """The head, with the instance of deploy/workers, and the workers."""

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)
        self._use_instance(self.home)
        self.workers: list[Worker] = []

    def _use_instance(self, home: Path) -> None:
        (home / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())

    def start_workers(self, *names: str) -> None:
        """Start workers, each with a HOME, a TMPDIR and a DAGSTER_HOME that nobody else has."""
        workers = [self._start_worker(name) for name in names]
        for worker in workers:
            wait_until(lambda worker=worker: self._is_ready(worker), f"the worker {worker.name}")

    def _start_worker(self, name: str) -> Worker:
        folder = self.home.parent / name
        for made in ("home", "tmp", "dagster"):
            (folder / made).mkdir(parents=True)
        own = {"HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp", "DAGSTER_HOME": f"{folder}/dagster"}
        self._use_instance(folder / "dagster")
        worker = Worker(name, folder, own)
        self.workers.append(worker)
        self._start_unit_of(worker)
        return worker

    def _start_unit_of(self, worker: Worker) -> None:
        self.start_unit("workers/np6-worker.service", worker.name, worker.environment)

    def _is_ready(self, worker: Worker) -> bool:
        """Whether a worker takes runs; one that ended is started again, as the unit's Restart=always does."""
        if self._processes[worker.name].poll() is not None:
            self._start_unit_of(worker)
        return " ready." in (self._logs / f"{worker.name}.log").read_text()

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The answer's data; asked again while the database is away."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return super().graphql(query, **variables)
            except (AssertionError, httpx.HTTPError):
                if time.monotonic() > deadline:
                    raise

    def where(self, run_id: str) -> Worker:
        """The worker on which a run is."""
        [worker] = [worker for worker in self.workers if run_id in worker.runs]
        return worker


@contextmanager
def account() -> Iterator[tuple[CountedAccount, str]]:
    """The simulated account as others see it, and its address."""
    counted = CountedAccount(create_app(Account.small(), api_key=KEY, now=lambda: datetime.now(UTC)))
    with serve_in_thread(counted) as address:
        try:
            yield counted, address
        finally:
            counted.release()


def settings(address: str, data: str) -> dict[str, str]:
    return {
        "NP6_BASE_URL": address,
        "NP6_API_KEY": KEY,
        "NP6_DATA_DIR": data,
        "NP6_START_DATE": f"{DAYS[0]}",
        "NP6_BACKFILL_DAYS_PER_RUN": f"{DAYS_PER_RUN}",
        "NP6_MAX_CONCURRENT_REQUESTS": f"{CAP}",
    }


def of_one_machine(folder: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files that a run on one machine makes, in a local folder."""
    monkeypatch.setenv("NP6_API_KEY", KEY)
    definitions = build_definitions(
        Settings.from_environment(settings(address, str(folder)) | {"NP6_BACKFILL_DAYS_PER_RUN": "0"})
    )
    tags = {"dagster/asset_partition_range_start": f"{DAYS[0]}", "dagster/asset_partition_range_end": f"{DAYS[-1]}"}
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        assets = {dg.AssetKey(asset) for asset in ASSETS}
        assert job.get_subset(asset_selection=assets).execute_in_process(instance=instance, tags=tags).success
    return read_files(folder)


def objects(bucket: Bucket, prefix: str) -> dict[str, bytes]:
    """What the bucket has below a prefix."""
    client = s3(bucket)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return {key.removeprefix(prefix): client.get_object(Bucket=bucket.name, Key=key)["Body"].read() for key in keys}


def of_bucket(bucket: Bucket) -> dict[str, bytes]:
    """The files in the bucket's data folder, as `files` gives those of a local one."""
    return {path: content for path, content in objects(bucket, "np6/").items() if path != "np6.json"}


def printed(bucket: Bucket, run_id: str) -> str:
    """What a run printed, as the UI of any machine shows it."""
    logs = objects(bucket, "dagster-logs/")
    return "".join(content.decode() for path, content in logs.items() if run_id in path)


def s3(bucket: Bucket) -> Any:
    """Another client than the project's own."""
    access = bucket.environment
    return boto3.client(
        "s3",
        endpoint_url=bucket.endpoint,
        region_name=access["AWS_REGION"],
        aws_access_key_id=access["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=access["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.mark.cluster
def test_backfill_over_two_workers_ends_as_on_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    with ExitStack() as stack:
        counted, address = stack.enter_context(account())
        bucket = stack.enter_context(run_store()).bucket()
        lot, refused = random.Random(20), Counter[str]()

        def refuse(kind: str, key: str) -> int | None:
            is_refused = lot.random() < REFUSED
            refused[kind] += is_refused
            return 503 if is_refused else None

        bucket.refuses = refuse
        postgres = stack.enter_context(Postgres.running())
        environment = {
            **settings(address, bucket.url),
            **bucket.environment,
            **postgres.environment,
            **stack.enter_context(redis(tmp_path)),
            "DAGSTER_LOGS_BUCKET": bucket.name,
            "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "30",
        }
        cluster = stack.enter_context(Cluster(tmp_path, **environment))
        cluster.start_workers("a", "b")
        report = [f"services and workers up after {time.monotonic() - begun:.0f} s"]

        # rates of days that changed meanwhile would differ from those on one machine
        cluster.turn("rates_follow", on=False)

        # the first run is in the middle of its days when its machine dies
        counted.hold_after(6)
        cluster.backfill(ASSETS, DAYS)
        wait_until(counted.holding.is_set, "a run that asks the account", SECONDS)
        [run] = [run for run in cluster.runs() if run.status == "STARTED"]
        assert int(cluster.run(run.id).tags[TAG]) == 3600 + DAYS_PER_RUN * 600
        dead = cluster.where(run.id)
        cluster.stop(dead.name, how=signal.SIGKILL)
        counted.release()
        wait_until(lambda: counted.under_way == 0, "the end of the dead run's requests")
        assert cluster.run(run.id).status == "STARTED"  # nobody is left to say otherwise
        head = environment | {"DAGSTER_HOME": str(cluster.home)}
        bound(head, run.id, 1)  # over now, and not in eight hours
        [again] = wait_until(lambda: cluster.retries(run.id), "a run in the place of the dead one", SECONDS)
        bound(head, again, 3600)  # it has the tags of the run in whose place it is
        assert cluster.run(run.id).status == "FAILURE"
        report.append(f"a new run in the place of the dead one after {time.monotonic() - begun:.0f} s")

        # the database is restarted while a run asks the account, and another worker comes
        counted.hold_after(6)
        wait_until(counted.holding.is_set, "the next run's requests", SECONDS)
        postgres.restart()
        counted.release()
        cluster.start_workers("c")

        runs = wait_until(lambda: all_over(cluster), "the end of the backfill", SECONDS)
        report.append(f"all over after {time.monotonic() - begun:.0f} s")
        failed = {one.id for one in runs if one.status != "SUCCESS"}
        assert run.id in failed
        assert failed <= {one.parent for one in runs}, cluster.logs()  # each was started again
        assert counted.most <= CAP
        asked = counted.requests
        records = postgres.records()

        requests = Counter(kind for kind, _ in bucket.requests)
        bucket.refuses = lambda kind, key: None
        assert all(": in all " in printed(bucket, one.id) for one in runs if one.status == "SUCCESS")
        assert of_bucket(bucket) == of_one_machine(tmp_path / "one", address, monkeypatch)
    report += [
        f"runs: {len(runs)}, of which failed and were started again: {len(failed)}",
        records,
        f"files: {sum(1 for path in (tmp_path / 'one').rglob('*.parquet'))}, all equal",
        f"requests to the account: {asked}, at most {counted.most} at once; one machine: {counted.requests - asked}",
        f"requests to the bucket: {dict(requests)}, of which refused: {dict(refused)}",
    ]
    with capsys.disabled():
        print("", *report, sep="\n")


def bound(environment: dict[str, str], run_id: str, seconds: int) -> None:
    """Set how long a run may take."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            instance.add_run_tags(run_id, {TAG: str(seconds)})
    finally:
        os.environ.clear()
        os.environ.update(before)


def all_over(cluster: Cluster) -> list[Run] | None:
    """All runs, once those of all days have been launched and are over."""
    runs = cluster.runs()
    backfills = cluster.graphql("{ partitionBackfillsOrError { ... on PartitionBackfills { results { status } } } }")
    states = {backfill["status"] for backfill in backfills["partitionBackfillsOrError"]["results"]}
    return None if states & {"REQUESTED"} or any(run.status not in {"SUCCESS", "FAILURE"} for run in runs) else runs
