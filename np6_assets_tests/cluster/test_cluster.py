"""Run a backfill on two workers while a worker, the database and the bucket fail; `make test-cluster`.

docs/deployment.md has the figures that it prints.
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
from np6_assets.runs.run_watch import TIME_LIMIT
from np6_assets.sandbox.app import create_app
from np6_assets.sandbox.population import Account
from np6_assets.sandbox.server import serve_in_thread
from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions
from np6_assets_tests.cluster.counting import CountingAccount
from np6_assets_tests.cluster.services import DEPLOY, Postgres, run_redis
from np6_assets_tests.support.bucket import Bucket, run_store
from np6_assets_tests.support.dagster_processes import Run, wait_until
from np6_assets_tests.support.deployment import list_days, read_files, tag_range
from np6_assets_tests.support.units import UnitProcesses

DAYS = list_days(date(2026, 1, 1), date(2026, 4, 30))
DAYS_PER_RUN = 40
ASSETS = ["hits", "activations"]
CAP = 3
KEY = "the account's key"
REFUSED = 0.1
SECONDS = 1500
"""Timeout of the longest waits, on a busy machine."""


@dataclass(frozen=True)
class Worker:
    """A worker with its own folders, started by the unit in deploy/workers."""

    name: str
    folder: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "dagster"

    @property
    def runs(self) -> set[str]:
        """Return the runs whose processes are here, by their locks."""
        return {path.stem for path in (self.home / lock.FOLDER).glob("*.lock")}


class Cluster(UnitProcesses):
    """The head and the workers, with the instance of deploy/workers."""

    def __init__(self, folder: Path, **build_settings: str) -> None:
        super().__init__(folder, **build_settings)
        self._write_config(self.home)
        self.workers: list[Worker] = []

    def _write_config(self, home: Path) -> None:
        (home / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())

    def start_workers(self, *names: str) -> None:
        """Start workers, each with its own HOME, TMPDIR and DAGSTER_HOME."""
        workers = [self._start_worker(name) for name in names]
        for worker in workers:
            wait_until(lambda worker=worker: self._is_ready(worker), f"the worker {worker.name}")

    def _start_worker(self, name: str) -> Worker:
        folder = self.home.parent / name
        for created in ("home", "tmp", "dagster"):
            (folder / created).mkdir(parents=True)
        own = {"HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp", "DAGSTER_HOME": f"{folder}/dagster"}
        self._write_config(folder / "dagster")
        worker = Worker(name, folder, own)
        self.workers.append(worker)
        self._start_unit(worker)
        return worker

    def _start_unit(self, worker: Worker) -> None:
        self.start_unit("workers/np6-worker.service", worker.name, worker.environment)

    def _is_ready(self, worker: Worker) -> bool:
        """Return whether a worker accepts runs; restart it if it ended, as the unit's Restart=always does."""
        if self._processes[worker.name].poll() is not None:
            self._start_unit(worker)
        return " ready." in (self._logs / f"{worker.name}.log").read_text()

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a query and return its data; repeat it while the database is down."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return super().graphql(query, **variables)
            except (AssertionError, httpx.HTTPError):
                if time.monotonic() > deadline:
                    raise

    def find_worker(self, run_id: str) -> Worker:
        """Return the worker of a run."""
        [worker] = [worker for worker in self.workers if run_id in worker.runs]
        return worker


@contextmanager
def run_account() -> Iterator[tuple[CountingAccount, str]]:
    """Serve the simulated account; yield it with its address."""
    account = CountingAccount(create_app(Account.small(), api_key=KEY, now=lambda: datetime.now(UTC)))
    with serve_in_thread(account) as address:
        try:
            yield account, address
        finally:
            account.release()


def build_settings(address: str, data: str) -> dict[str, str]:
    return {
        "NP6_BASE_URL": address,
        "NP6_API_KEY": KEY,
        "NP6_DATA_DIR": data,
        "NP6_START_DATE": f"{DAYS[0]}",
        "NP6_BACKFILL_DAYS_PER_RUN": f"{DAYS_PER_RUN}",
        "NP6_MAX_CONCURRENT_REQUESTS": f"{CAP}",
    }


def materialize_locally(folder: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Materialize all days on one machine; return the files."""
    monkeypatch.setenv("NP6_API_KEY", KEY)
    definitions = build_definitions(
        Settings.from_environment(build_settings(address, str(folder)) | {"NP6_BACKFILL_DAYS_PER_RUN": "0"})
    )
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        assets = {dg.AssetKey(asset) for asset in ASSETS}
        assert (
            job.get_subset(asset_selection=assets)
            .execute_in_process(instance=instance, tags=tag_range(DAYS[0], DAYS[-1]))
            .success
        )
    return read_files(folder)


def read_objects(bucket: Bucket, prefix: str) -> dict[str, bytes]:
    """Read the objects of a bucket below a prefix."""
    client = create_s3_client(bucket)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return {key.removeprefix(prefix): client.get_object(Bucket=bucket.name, Key=key)["Body"].read() for key in keys}


def read_bucket_files(bucket: Bucket) -> dict[str, bytes]:
    """Read the files of the bucket's data folder, as `read_files` does for a local one."""
    return {path: content for path, content in read_objects(bucket, "np6/").items() if path != "np6.json"}


def read_run_output(bucket: Bucket, run_id: str) -> str:
    """Read the output of a run, as the UI of any machine shows it."""
    logs = read_objects(bucket, "dagster-logs/")
    return "".join(content.decode() for path, content in logs.items() if run_id in path)


def create_s3_client(bucket: Bucket) -> Any:
    """Create another client than the project's."""
    access = bucket.environment
    return boto3.client(
        "s3",
        endpoint_url=bucket.endpoint,
        region_name=access["AWS_REGION"],
        aws_access_key_id=access["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=access["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.mark.cluster
def test_backfill_on_two_failing_workers_writes_the_files_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    with ExitStack() as stack:
        account, address = stack.enter_context(run_account())
        bucket = stack.enter_context(run_store()).create_bucket()
        rng, refused_counts = random.Random(20), Counter[str]()

        def choose_status(kind: str, key: str) -> int | None:
            is_refused = rng.random() < REFUSED
            refused_counts[kind] += is_refused
            return 503 if is_refused else None

        bucket.refuse = choose_status
        postgres = stack.enter_context(Postgres.run())
        environment = {
            **build_settings(address, bucket.url),
            **bucket.environment,
            **postgres.environment,
            **stack.enter_context(run_redis(tmp_path)),
            "DAGSTER_LOGS_BUCKET": bucket.name,
            "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "30",
        }
        cluster = stack.enter_context(Cluster(tmp_path, **environment))
        cluster.start_workers("a", "b")
        report = [f"services and workers up after {time.monotonic() - begun:.0f} s"]

        # rates would depend on when their events changed
        cluster.set_sensor("rates_follow", on=False)

        # the worker of the first run dies in the middle of its days
        account.delay_after(6)
        cluster.launch_backfill(ASSETS, DAYS)
        wait_until(account.is_delaying.is_set, "a run with requests", SECONDS)
        [run] = [run for run in cluster.list_runs() if run.status == "STARTED"]
        assert int(cluster.get_run(run.id).tags[TIME_LIMIT]) == 3600 + DAYS_PER_RUN * 600
        dead_worker = cluster.find_worker(run.id)
        cluster.stop(dead_worker.name, signal_number=signal.SIGKILL)
        account.release()
        wait_until(lambda: account.in_flight == 0, "the end of the dead run's requests")
        assert cluster.get_run(run.id).status == "STARTED"  # no process is left to change it
        head_environment = environment | {"DAGSTER_HOME": str(cluster.home)}
        set_time_limit(head_environment, run.id, 1)  # the limit, else eight hours, is over now
        [retry] = wait_until(lambda: cluster.list_retries(run.id), "the retry of the dead run", SECONDS)
        set_time_limit(head_environment, retry, 3600)  # it inherits the tag
        assert cluster.get_run(run.id).status == "FAILURE"
        report.append(f"the dead run retried after {time.monotonic() - begun:.0f} s")

        # the database restarts during requests, and another worker starts
        account.delay_after(6)
        wait_until(account.is_delaying.is_set, "the next run's requests", SECONDS)
        postgres.restart()
        account.release()
        cluster.start_workers("c")

        runs = wait_until(lambda: find_ended_runs(cluster), "the end of the backfill", SECONDS)
        report.append(f"ended after {time.monotonic() - begun:.0f} s")
        failed = {one.id for one in runs if one.status != "SUCCESS"}
        assert run.id in failed
        assert failed <= {one.parent for one in runs}, cluster.read_logs()  # each was retried
        assert account.peak_in_flight <= CAP
        request_count = account.requests
        records = postgres.describe_size()

        requests = Counter(kind for kind, _ in bucket.requests)
        bucket.refuse = lambda kind, key: None
        assert all(": in all " in read_run_output(bucket, one.id) for one in runs if one.status == "SUCCESS")
        assert read_bucket_files(bucket) == materialize_locally(tmp_path / "one", address, monkeypatch)
    report += [
        f"runs: {len(runs)}, failed and retried: {len(failed)}",
        records,
        f"files: {sum(1 for path in (tmp_path / 'one').rglob('*.parquet'))}, all equal",
        f"requests to the account: {request_count}, at most {account.peak_in_flight} at once; "
        f"one machine: {account.requests - request_count}",
        f"requests to the bucket: {dict(requests)}, of which refused: {dict(refused_counts)}",
    ]
    with capsys.disabled():
        print("", *report, sep="\n")


def set_time_limit(environment: dict[str, str], run_id: str, seconds: int) -> None:
    """Set the time limit of a run, in seconds."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            instance.add_run_tags(run_id, {TIME_LIMIT: str(seconds)})
    finally:
        os.environ.clear()
        os.environ.update(before)


def find_ended_runs(cluster: Cluster) -> list[Run] | None:
    """Return all runs once the runs of all days have been launched and have ended."""
    runs = cluster.list_runs()
    backfills = cluster.graphql("{ partitionBackfillsOrError { ... on PartitionBackfills { results { status } } } }")
    states = {backfill["status"] for backfill in backfills["partitionBackfillsOrError"]["results"]}
    return None if states & {"REQUESTED"} or any(run.status not in {"SUCCESS", "FAILURE"} for run in runs) else runs
