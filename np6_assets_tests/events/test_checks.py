"""Check the days of an event asset, with one evaluation a day."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets.contact.policy import ContactPolicy
from np6_assets.events.checks import CHECK, check_metadata, check_volume
from np6_assets.partition_checks import summary
from np6_assets.storage import parquet
from np6_assets_tests.events.decoding import HOUR, build_hit, build_hits_table
from np6_assets_tests.support.deployment import Deployment, list_days
from np6_assets_tests.support.events import Population, build_population
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.variants import BadEvent

PARIS = "Europe/Paris"
DAY = date(2026, 3, 29)  # 23 hours in Paris
FIRST, LAST = DAY - timedelta(days=1), DAY + timedelta(days=1)
START = compute_day_bounds(DAY, PARIS)[0]


@pytest.fixture
def deployment(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Deployment:
    return Deployment(
        tmp_path / "data", server, instance, lambda: datetime(2026, 6, 20, tzinfo=UTC), NP6_TIMEZONE=PARIS
    )


def write_day(deployment: Deployment, day: date, rows: int, *, closed: bool = True) -> None:
    """Write the file of a day, as a run does."""
    start, end = compute_day_bounds(day, PARIS)
    until = datetime.fromtimestamp((end if closed else start) / 1000, UTC)
    table = build_hits_table([f"{number:06}" for number in range(rows)], range(start, start + rows))
    path = deployment.path("hits", day)
    path.parent.mkdir(parents=True, exist_ok=True)
    made_with = f"UTC {ContactPolicy().fingerprint}"
    metadata = {"np6.fetched_until": until.isoformat(), "np6.made_with": made_with}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def select_evaluations(found: Sequence[dg.AssetCheckEvaluation]) -> dict[str | None, dg.AssetCheckEvaluation]:
    """Return the evaluations of the check by day; there must be one a day."""
    evaluations = [one for one in found if one.check_name == CHECK.name]
    by_day = {one.partition: one for one in evaluations}
    assert len(by_day) == len(evaluations)
    assert all(one.description and one.description.startswith(f"{one.partition}: ") for one in evaluations)
    return by_day


def run_check(
    deployment: Deployment, first: date, last: date | None = None
) -> dict[str | None, dg.AssetCheckEvaluation]:
    return select_evaluations(list(deployment.check("hits", first, last).values()))


def materialize_and_check(deployment: Deployment, first: date, last: date) -> dict[str | None, dg.AssetCheckEvaluation]:
    return select_evaluations(deployment.materialize("hits", first, last, checks=True).get_asset_check_evaluations())


def read_check_status(deployment: Deployment) -> dict[str | None, tuple[str, bool]]:
    """Return the status in the UI of each day, and whether it is of the newest materialization."""
    key = dg.AssetCheckKey(dg.AssetKey("hits"), CHECK.name)
    infos = deployment.instance.event_log_storage.get_asset_check_partition_info([key])
    return {info.partition_key: (info.latest_execution_status.value, info.is_current) for info in infos}


@pytest.mark.slow
def test_check_evaluates_each_day_of_a_range(server: RudeServer, deployment: Deployment):
    first, last = DAY - timedelta(days=17), DAY + timedelta(days=16)  # more days than one request
    rejected = BadEvent("", "hits", START + HOUR, 100, build_hit("x", timestamp=START + HOUR, agency=[]))
    population = build_population(41, first, 34, PARIS, notifications=1, sends_per_day=2)
    server.serve(Population(hits=population.hits, bad_events=[rejected]))
    found = materialize_and_check(deployment, first, last)
    all_days = {f"{day}" for day in list_days(first, last)}
    assert found.keys() == all_days
    assert [day for day, one in found.items() if not one.passed and "quarantined" in one.metadata] == [f"{DAY}"]
    assert all(one.severity == dg.AssetCheckSeverity.WARN and not one.blocking for one in found.values())
    assert read_check_status(deployment).keys() == all_days
    assert all(is_current for _, is_current in read_check_status(deployment).values())
    # the corrected day passes, and the other days have new evaluations
    server.serve(Population(hits=[*population.hits, build_hit("x", timestamp=START + HOUR)]))
    found = materialize_and_check(deployment, FIRST, LAST)
    assert found.keys() == {f"{day}" for day in (FIRST, DAY, LAST)}
    assert found[f"{DAY}"].passed
    records = dg.AssetRecordsFilter(dg.AssetKey("hits"), asset_partitions=[f"{DAY}"])
    [record] = deployment.instance.fetch_materializations(records, limit=1).records
    target = found[f"{DAY}"].target_materialization_data
    assert target is not None
    assert (target.storage_id, target.run_id) == (record.storage_id, record.run_id)
    assert read_check_status(deployment).keys() == all_days
    assert read_check_status(deployment)[f"{DAY}"] == ("SUCCEEDED", True)
    assert all(is_current for _, is_current in read_check_status(deployment).values())
    # checks of the whole asset evaluate each day as well, else Dagster shows it as skipped
    for name in (CHECK.name, "late_events", "yesterday_there"):
        key = dg.AssetCheckKey(dg.AssetKey("hits"), name)
        history = deployment.instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
        assert {one.partition for one in history} == all_days
        assert {one.status.value for one in history} <= {"SUCCEEDED", "FAILED"}
    # without a partition, the newest day
    result = deployment.materialize(dg.AssetSelection.checks_for_assets("hits"), checks=True)
    assert select_evaluations(result.get_asset_check_evaluations()).keys() == {f"{last}"}


def test_checks_summarize_a_range(server: RudeServer, deployment: Deployment):
    rejected = BadEvent("", "hits", START + HOUR, 100, build_hit("x", timestamp=START + HOUR, agency=[]))
    server.serve(Population(bad_events=[rejected]))
    result = deployment.materialize("hits", FIRST, LAST, checks=True)
    outputs = [event.step_output_data for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    summaries = {one.output_name: one.metadata["summary"].value for one in outputs if "summary" in one.metadata}
    assert summaries == {
        "hits_events_as_expected": f"3 days, 1 failed: {DAY}",
        "hits_yesterday_there": "2026-06-18 is missing",
        "hits_late_events": "neither np6_refresh nor daily_ingest is on: nothing fetches late events; turn one on",
    }


def test_summary_names_failed_days():
    assert summary(20, []) == "20 days, all passed"
    days = [f"day {number}" for number in range(14)]
    assert summary(20, days) == f"20 days, 14 failed: {', '.join(days[:12])} and 2 more"


def test_check_reads_no_rows(server: RudeServer, deployment: Deployment, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("the check reads rows")

    server.serve(
        Population(hits=[build_hit("x", timestamp=START), build_hit("y", timestamp=START, stamp_time=START + 2 * HOUR)])
    )
    deployment.materialize("hits", DAY)
    monkeypatch.setattr(parquet, "read_tables", refuse)
    for reader in ("read", "read_row_group", "read_row_groups", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, reader, refuse)
    found = run_check(deployment, FIRST, LAST)
    assert [day for day, one in found.items() if "events_before_send" in one.metadata] == [f"{DAY}"]
    for day in (FIRST, LAST):  # not stored
        one = found[f"{day}"]
        assert (one.passed, one.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert one.description == f"{day}: was never materialized; materialize it first"


def test_check_combines_the_findings_of_a_day(server: RudeServer, deployment: Deployment):
    hits = [build_hit(number, timestamp=START + number) for number in range(20)]
    server.serve(Population(hits=hits))
    assert materialize_and_check(deployment, DAY, DAY)[f"{DAY}"].passed
    unknown = build_hit("novel", timestamp=START)
    unknown["source"]["novelty"] = "a hidden value"
    unreadable = [
        build_hit(f"u{number}", timestamp=START, urgent="maybe", expiration="soon"[number:]) for number in range(2)
    ]
    early = [build_hit(f"e{ms}", timestamp=START, stamp_time=START + ms) for ms in (60_000, 60_001, 2 * HOUR)]
    rejected = [
        BadEvent("", "hits", START, 1, build_hit("bad", timestamp=START, agency=[])),
        BadEvent("", "hits", START, 1, 5),
    ]
    server.serve(Population(hits=[unknown, *unreadable, *early, *hits[:5]], bad_events=rejected))
    one = materialize_and_check(deployment, DAY, DAY)[f"{DAY}"]
    assert not one.passed
    assert {name: value.value for name, value in one.metadata.items()} == {
        "quarantined": 2,
        "unknown_fields": ["source.novelty"],
        "unreadable_values": {"urgent": 2, "expires_at": 2},
        "events_before_send": 2,
        "seconds_before_send": 7200.0,
        "events_kept": 15,
    }
    text = str(one.description)
    assert all(word in text for word in ("2 events were rejected", "source.novelty", "urgent in 2", "7200 s", "15"))
    assert "a hidden value" not in str(one)


GOOD: dict[str, Any] = {"unknown_fields": [], "unreadable_values": {}, "dagster/partition_row_count": 100}
GOOD |= dict.fromkeys(("quarantined", "events_before_send", "seconds_before_send", "events_kept"), 0)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, set()),
        ({"events_kept": 10}, set()),
        ({"events_kept": 11}, {"events_kept"}),
        ({"events_kept": 11, "dagster/partition_row_count": 1100}, set()),
        ({"events_kept": 12, "dagster/partition_row_count": 1100}, {"events_kept"}),
        ({"events_kept": 10, "dagster/partition_row_count": 10}, set()),
    ],
)
def test_metadata_has_one_finding_a_fact(facts: Mapping[str, Any], expected: set[str]):
    found = list(check_metadata({**GOOD, **facts}))
    assert all(not finding.passed and "\n" not in finding.text for finding in found)
    assert {name for finding in found for name in finding.metadata} == expected


def test_volume_is_compared_with_the_same_weekday(deployment: Deployment):
    sunday = date(2026, 4, 26)
    saturday = sunday - timedelta(days=1)
    for weeks in range(1, 9):
        write_day(deployment, sunday - timedelta(weeks=weeks), 60)
        write_day(deployment, saturday - timedelta(weeks=weeks), 600)  # Saturdays are ten times as busy
    for day in (saturday, sunday):
        write_day(deployment, day, 70)
    found = run_check(deployment, saturday, sunday)
    assert found[f"{sunday}"].passed
    assert not found[f"{saturday}"].passed
    assert found[f"{saturday}"].metadata["median"].value == 600
    # an open day passes
    write_day(deployment, saturday, 70, closed=False)
    assert run_check(deployment, saturday)[f"{saturday}"].passed


def test_check_warns_of_an_empty_day_after_a_busy_week(deployment: Deployment):
    write_day(deployment, DAY, 0)
    for before, passed in ((101, False), (100, True)):
        for day in list_days(DAY - timedelta(days=7), FIRST):
            write_day(deployment, day, before if day.weekday() else 0)
        assert run_check(deployment, DAY)[f"{DAY}"].passed is passed


WEEKS: list[tuple[list[int], list[int | None], list[int]]] = [  # past, usual and unusual counts
    ([1000] * 8, [334, 3000, None], [0, 333, 3001]),  # None: not closed
    ([1000] * 7 + [90_000], [3000], [10_000]),  # one old campaign is an exception
    ([1000] * 7 + [0], [334], [0]),  # so is one outage
    ([0, 400_000, 10, 300_000, 0, 500_000, 20, 0], [0, 500_000], []),  # if all weeks differ, everything is usual
    ([4] * 8, [0], []),  # few events may be none
    ([50] * 8, [], [0]),
    ([0] * 8, [0, 3], [12]),
    ([1000] * 3, [0], []),  # new
    ([], [0], []),
]


@pytest.mark.parametrize(("past", "usual", "unusual"), WEEKS)
def test_volume_passes_if_usual(past: list[int], usual: list[int | None], unusual: list[int]):
    assert [rows for rows in [*usual, *unusual] if check_volume(rows, past).passed] == usual
