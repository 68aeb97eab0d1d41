"""Test the job `recount_events` on right files, and on files with one fault."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets.partitions import parse_day
from np6_assets.refresh.recount import recount_file
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder
from np6_assets_tests.events.decoding import HOUR, build_hits_table
from np6_assets_tests.support.deployment import Deployment, list_days, read_files, tag_range
from np6_assets_tests.support.events import build_population
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer

PARIS = "Europe/Paris"
FIRST, DAY, LAST = list_days(date(2026, 3, 28), date(2026, 3, 30))  # DAY has 23 hours in Paris
RANGE = tag_range(FIRST, LAST)


@pytest.fixture(scope="module")
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        yield running


@pytest.fixture
def deployment(tmp_path: Path, server: RudeServer, instance: dg.DagsterInstance) -> Deployment:
    server.serve(build_population(41, FIRST, 3, PARIS, bad_event_days=[DAY], coerced_share=0.1))
    return Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=PARIS)


def run_job(deployment: Deployment, **options: Any) -> tuple[bool, str]:
    """Run the job, and return whether it succeeded, and its failure."""
    job = deployment.definitions.resolve_job_def("recount_events")
    result = job.execute_in_process(instance=deployment.instance, raise_on_error=False, **options)
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return result.success, "".join(str(one.user_failure_data.description) for one in failures)


def build_table(ids: Sequence[str], times: Sequence[int]) -> pa.Table:
    """Build hits at these milliseconds after the start of DAY."""
    start = compute_day_bounds(DAY, PARIS)[0]
    return build_hits_table(ids, [start + time for time in times])


def test_recount_passes_right_files(deployment: Deployment):
    deployment.materialize("hits", FIRST, LAST)
    before = read_files(deployment.data)
    assert run_job(deployment, tags=RANGE) == (True, "")
    # days that are not stored are skipped
    for day in (DAY, LAST + timedelta(days=1)):
        assert run_job(deployment, partition_key=f"{day}") == (True, "")
    assert read_files(deployment.data) == before


def test_recount_fails_in_one_line(deployment: Deployment):
    for day, rows in ((DAY, (["a", "b"], [0, 23 * HOUR])), (LAST, ([], []))):
        path = deployment.path("hits", day)
        path.parent.mkdir(parents=True)
        pq.write_table(build_table(*rows), path)
    for options in ({"partition_key": f"{DAY}"}, {"tags": RANGE}):
        success, text = run_job(deployment, **options)
        assert not success
        assert all(word in text for word in (f"hits {DAY}", "'outside_day': 1"))
        assert not any(word in text for word in ("\n", f"{LAST}"))


@pytest.mark.parametrize(
    ("ids", "times", "expected"),
    [
        ([], [], (0, 0, 0, 0)),
        (["a", "b", "c"], [0, 0, 23 * HOUR - 1], (3, 0, 0, 0)),
        (["a", "a", "a", "b"], [0, 0, 1, 1], (4, 2, 0, 1)),
        (["a", "b", "c"], [-1, 23 * HOUR, 5], (3, 0, 2, 1)),
    ],
)
def test_recount_counts_each_fault(tmp_path: Path, ids: list[str], times: list[int], expected: tuple[int, ...]):
    for url in (str(tmp_path), f"memory://{tmp_path.name}"):
        parquet.write_file(Folder(url), "hits/part-0.parquet", build_table(ids, times))
        counts = recount_file(Folder(url), "hits/part-0.parquet", parse_day(f"{DAY}", PARIS))
        assert counts == dict(zip(("rows", "repeated_ids", "outside_day", "out_of_order"), expected, strict=True))
