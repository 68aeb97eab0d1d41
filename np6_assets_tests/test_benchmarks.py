"""The benchmarks: windows that are served, what a process tree costs, and no figure for what is wrong."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import inputs, requests
from benchmarks.ingest import build_check
from benchmarks.measure import Limits, measure_command
from benchmarks.report import write_report
from benchmarks.rounds import Contender, Rounds, WrongOutputError
from benchmarks.server import RunningServer, run_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process costs is read from /proc")

EVENTS = 6_000


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> inputs.Feed:
    return inputs.write_feed(tmp_path_factory.mktemp("feed"), EVENTS)


@pytest.fixture(scope="module")
def events(feed: inputs.Feed) -> list[dict]:
    return json.loads(Path(feed.body).read_bytes())


@pytest.fixture(scope="module")
def server(feed: inputs.Feed) -> Iterator[RunningServer]:
    with run_server("server", *feed.files) as running:
        yield running


def fetch(server: RunningServer, start: int, end: int) -> list[dict]:
    query = f"reactivityStart={start}&reactivityEnd={end}"
    with urllib.request.urlopen(f"{server.url}/notifications/reactivities/hits?{query}") as answer:
        return json.load(answer)


def test_server_serves_a_window_and_counts_requests(server: RunningServer, events: list[dict]) -> None:
    start, end = events[4_990]["timestamp"], events[5_010]["timestamp"]
    server.take_counts()
    assert fetch(server, start, end) == events[4_990:5_010]
    assert fetch(server, end, start) == []
    counts = server.take_counts()
    assert counts["requests"] == 2
    assert counts["bytes"] > 20 * 700
    server.publish_until(start)
    assert fetch(server, 0, 2**61) == events[:4_990]
    assert len({event["id"] for event in events}) == EVENTS


def test_check_finds_missing_and_repeated_events(feed: inputs.Feed, events: list[dict], tmp_path: Path) -> None:
    rows = [(event["id"], event["source"]["detail"]["link"]["type"]) for event in events]
    check = build_check(feed, "out.parquet")

    def write(rows: list[tuple[str, str]]) -> None:
        ids, types = zip(*rows, strict=True)
        pq.write_table(pa.table({"event_id": ids, "link_type": types}), tmp_path / "out.parquet")

    write(rows[::-1])
    assert check(tmp_path)["bytes"] == (tmp_path / "out.parquet").stat().st_size
    for wrong in (rows[1:], [*rows[1:], rows[1]], [*rows, rows[0]], [("another", rows[0][1]), *rows[1:]]):
        write(wrong)
        with pytest.raises(WrongOutputError):
            check(tmp_path)


CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
WORK = "held = b'x' * 100_000_000; sum(range(5_000_000))"


def test_measure_includes_child_processes(tmp_path: Path) -> None:
    done = measure_command([sys.executable, "-c", CHILD, WORK], tmp_path / "log")
    assert not done.failed
    assert done.peak > 100_000_000
    assert 0.02 < done.cpu < 60
    assert done.cpu < 2.5 * done.wall


def test_measure_kills_a_run_beyond_its_limit(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    endless = f"import time; open({str(marker)!r}, 'w'); held = b'x' * 200_000_000; time.sleep(100)"
    done = measure_command(
        [sys.executable, "-c", CHILD, endless], tmp_path / "log", limits=Limits(seconds=60, bytes=100_000_000)
    )
    assert "more than" in done.failed
    assert done.wall < 60
    assert marker.exists()


def test_failed_contender_has_no_further_round(tmp_path: Path) -> None:
    def wrong(folder: Path) -> dict[str, float]:
        raise WrongOutputError("one row too few")

    def contender(name: str, code: str, check=lambda folder: {}) -> Contender:
        return Contender(name, lambda folder: [sys.executable, "-c", code], check)

    everyone = [contender("good", "pass"), contender("wrong", "pass", wrong), contender("broken", "1 / 0")]
    rounds = Rounds(tmp_path, 2, Limits())
    runs = rounds.measure(10, everyone)
    assert [len(found) for found in runs.values()] == [2, 1, 1]
    assert not runs["good"][1].failed
    assert runs["wrong"][0].failed == "wrong output: one row too few"
    assert "ZeroDivisionError" in runs["broken"][0].failed
    assert rounds.measure(20, everyone[1:])["wrong"][0].failed == "wrong output: one row too few"


def test_report_names_a_failure_without_figures(tmp_path: Path) -> None:
    machine = {"date": "2026-03-20", "commit": "1234567", "cores": 2, "cpu": "x", "memory": 2**34, "linux": "6"}
    machine |= {"python": "3.11", "versions": {"dagster": "1"}}
    good = {"wall": 2.0, "cpu": 3.0, "peak": 2**28, "others": 0.1, "failed": "", "facts": {"bytes": 10}}
    rows = [
        {"size": 1000, "contender": name, "runs": runs}
        for name, runs in {
            "this project": [good, {**good, "wall": 1.0}],
            "slow": [{**good, "wall": 8.0}, {**good, "wall": 10.0}],
            "large": [{**good, "failed": "more than 14 GiB\nand so on"}],
        }.items()
    ]
    write_report({"ingest": {"machine": machine, "rows": rows}}, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| 1,000 | large | more than 14 GiB | | | | | | |" in text
    assert "7.00 (4.00 to 10.00)" in text  # 8 over 2 and 10 over 1
    assert "<svg" in (tmp_path / "ingest-rate.svg").read_text()


def test_request_table_compares_a_day_with_full_requests():
    facts = {"refresh runs": 90, "refresh list": 90, "refresh feeds": 360, "refresh activations": 2_700}
    facts |= {"refresh probes": 100, "closing runs": 1, "closing activations": 5_030, "nightly runs": 1}
    rows = {what: cells for _, what, *cells in requests.build_table_rows(5_000, facts)}
    assert rows[requests.PHASES["refresh"]] == ["90", "90", "360", "2,700", "100", "3,250", "450,550"]
    assert rows["all of the day"] == ["92", "90", "360", "7,730", "100", "8,280", "460,550"]
