"""The check of an event asset's days: one evaluation a day, of what the fetch and the merge found out."""

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
from np6_assets_tests.events.decoding import HOUR, hit, hits_table
from np6_assets_tests.support.deployment import Deployment, list_days
from np6_assets_tests.support.events import Population, build_population
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.variants import Misfit

PARIS = "Europe/Paris"
DAY = date(2026, 3, 29)  # 23 hours in Paris
FIRST, LAST = DAY - timedelta(days=1), DAY + timedelta(days=1)
START = compute_day_bounds(DAY, PARIS)[0]


@pytest.fixture
def deployment(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Deployment:
    return Deployment(
        tmp_path / "data", server, instance, lambda: datetime(2026, 6, 20, tzinfo=UTC), NP6_TIMEZONE=PARIS
    )


def put(deployment: Deployment, day: date, rows: int, *, closed: bool = True) -> None:
    """A day's file, as a run could have left it."""
    start, end = compute_day_bounds(day, PARIS)
    until = datetime.fromtimestamp((end if closed else start) / 1000, UTC)
    table = hits_table([f"{number:06}" for number in range(rows)], range(start, start + rows))
    path = deployment.path("hits", day)
    path.parent.mkdir(parents=True, exist_ok=True)
    made_with = f"UTC {ContactPolicy().fingerprint}"
    metadata = {"np6.fetched_until": until.isoformat(), "np6.made_with": made_with}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def evaluations(found: Sequence[dg.AssetCheckEvaluation]) -> dict[str | None, dg.AssetCheckEvaluation]:
    """Those of the check, by day; there is one of each day."""
    mine = [one for one in found if one.check_name == CHECK.name]
    by_day = {one.partition: one for one in mine}
    assert len(by_day) == len(mine)
    assert all(one.description and one.description.startswith(f"{one.partition}: ") for one in mine)
    return by_day


def check(deployment: Deployment, first: date, last: date | None = None) -> dict[str | None, dg.AssetCheckEvaluation]:
    return evaluations(list(deployment.check("hits", first, last).values()))


def materialize(deployment: Deployment, first: date, last: date) -> dict[str | None, dg.AssetCheckEvaluation]:
    return evaluations(deployment.materialize("hits", first, last, checks=True).get_asset_check_evaluations())


def shown(deployment: Deployment) -> dict[str | None, tuple[str, bool]]:
    """What the UI shows of each day: the status, and whether it is of the day's newest materialization."""
    key = dg.AssetCheckKey(dg.AssetKey("hits"), CHECK.name)
    infos = deployment.instance.event_log_storage.get_asset_check_partition_info([key])
    return {info.partition_key: (info.latest_execution_status.value, info.is_current) for info in infos}


@pytest.mark.slow
def test_check_gives_each_day_of_a_range_its_evaluation(server: RudeServer, deployment: Deployment):
    first, last = DAY - timedelta(days=17), DAY + timedelta(days=16)  # more days than one request has
    bad = Misfit("", "hits", START + HOUR, 100, hit("x", timestamp=START + HOUR, agency=[]))
    made = build_population(41, first, 34, PARIS, notifications=1, sends_per_day=2)
    server.serve(Population(hits=made.hits, misfits=[bad]))
    found = materialize(deployment, first, last)
    every = {f"{day}" for day in list_days(first, last)}
    assert found.keys() == every
    assert [day for day, one in found.items() if not one.passed and "quarantined" in one.metadata] == [f"{DAY}"]
    assert all(one.severity == dg.AssetCheckSeverity.WARN and not one.blocking for one in found.values())
    assert shown(deployment).keys() == every
    assert all(is_current for _, is_current in shown(deployment).values())
    # repaired in a range: it is green, and the others have theirs anew
    server.serve(Population(hits=[*made.hits, hit("x", timestamp=START + HOUR)]))
    found = materialize(deployment, FIRST, LAST)
    assert found.keys() == {f"{day}" for day in (FIRST, DAY, LAST)}
    assert found[f"{DAY}"].passed
    assert shown(deployment).keys() == every
    assert shown(deployment)[f"{DAY}"] == ("SUCCEEDED", True)
    assert all(is_current for _, is_current in shown(deployment).values())
    # nor is a day of the checks of the asset as a whole left without a result, which Dagster shows as skipped
    for name in (CHECK.name, "late_events", "yesterday_there"):
        key = dg.AssetCheckKey(dg.AssetKey("hits"), name)
        history = deployment.instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
        assert {one.partition for one in history} == every
        assert {one.status.value for one in history} <= {"SUCCEEDED", "FAILED"}


def test_checks_of_a_range_end_with_a_line_each(server: RudeServer, deployment: Deployment):
    bad = Misfit("", "hits", START + HOUR, 100, hit("x", timestamp=START + HOUR, agency=[]))
    server.serve(Population(misfits=[bad]))
    result = deployment.materialize("hits", FIRST, LAST, checks=True)
    outputs = [event.step_output_data for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    told = {one.output_name: one.metadata["summary"].value for one in outputs if "summary" in one.metadata}
    assert told == {
        "hits_events_as_expected": f"3 days, 1 failed: {DAY}",
        "hits_yesterday_there": "2026-06-18 is missing",
        "hits_late_events": "neither np6_refresh nor daily_ingest is on: nothing fetches late events; turn one on",
    }


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        ([], "20 days, all passed"),
        (["2026-03-01"], "20 days, 1 failed: 2026-03-01"),
        ([f"day {n}" for n in range(14)], f"20 days, 14 failed: {', '.join(f'day {n}' for n in range(12))} and 2 more"),
    ],
)
def test_a_run_s_days_are_summed_up(failed: list[str], told: str):
    assert summary(20, failed) == told


@pytest.mark.slow
def test_evaluation_is_of_the_newest_materialization(server: RudeServer, deployment: Deployment):
    server.serve(Population(hits=[hit("x", timestamp=START)]))
    for first, last in ((DAY, DAY), (FIRST, LAST), (DAY, DAY)):
        found = materialize(deployment, first, last)
        filter = dg.AssetRecordsFilter(dg.AssetKey("hits"), asset_partitions=[f"{DAY}"])
        [record] = deployment.instance.fetch_materializations(filter, limit=1).records
        target = found[f"{DAY}"].target_materialization_data
        assert target is not None
        assert (target.storage_id, target.run_id) == (record.storage_id, record.run_id)
        assert all(is_current for _, is_current in shown(deployment).values())
    # without a day, the newest
    result = deployment.materialize(dg.AssetSelection.checks_for_assets("hits"), checks=True)
    assert evaluations(result.get_asset_check_evaluations()).keys() == {f"{LAST}"}


def test_check_reads_no_rows(server: RudeServer, deployment: Deployment, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("the check reads rows")

    server.serve(Population(hits=[hit("x", timestamp=START), hit("y", timestamp=START, stamp_time=START + 2 * HOUR)]))
    deployment.materialize("hits", DAY)
    monkeypatch.setattr(parquet, "read_tables", refuse)
    for reader in ("read", "read_row_group", "read_row_groups", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, reader, refuse)
    found = check(deployment, FIRST, LAST)
    assert [day for day, one in found.items() if "events_before_send" in one.metadata] == [f"{DAY}"]
    for day in (FIRST, LAST):  # that are not stored
        one = found[f"{day}"]
        assert (one.passed, one.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert one.description == f"{day}: was never materialized; materialize it first"


def test_findings_of_a_day_are_combined(server: RudeServer, deployment: Deployment):
    hits = [hit(number, timestamp=START + number) for number in range(20)]
    server.serve(Population(hits=hits))
    assert materialize(deployment, DAY, DAY)[f"{DAY}"].passed
    novel = hit("novel", timestamp=START)
    novel["source"]["novelty"] = "a value that nobody is to see"
    unreadable = [hit(f"u{number}", timestamp=START, urgent="maybe", expiration="soon"[number:]) for number in range(2)]
    early = [hit(f"e{ms}", timestamp=START, stamp_time=START + ms) for ms in (60_000, 60_001, 2 * HOUR)]
    bad = [Misfit("", "hits", START, 1, hit("bad", timestamp=START, agency=[])), Misfit("", "hits", START, 1, 5)]
    server.serve(Population(hits=[novel, *unreadable, *early, *hits[:5]], misfits=bad))
    one = materialize(deployment, DAY, DAY)[f"{DAY}"]
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
    assert "nobody is to see" not in str(one)


GOOD: dict[str, Any] = {"unknown_fields": [], "unreadable_values": {}, "dagster/partition_row_count": 100}
GOOD |= dict.fromkeys(("quarantined", "events_before_send", "seconds_before_send", "events_kept"), 0)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, set()),
        ({"quarantined": 1}, {"quarantined"}),
        ({"unknown_fields": ["a", "b"]}, {"unknown_fields"}),
        ({"unreadable_values": {"urgent": 3}}, {"unreadable_values"}),
        ({"events_before_send": 1, "seconds_before_send": 61.0}, {"events_before_send", "seconds_before_send"}),
        ({"events_kept": 10}, set()),
        ({"events_kept": 11}, {"events_kept"}),
        ({"events_kept": 11, "dagster/partition_row_count": 1100}, set()),
        ({"events_kept": 12, "dagster/partition_row_count": 1100}, {"events_kept"}),
        ({"events_kept": 10, "dagster/partition_row_count": 10}, set()),
    ],
)
def test_each_finding_is_told_alone(facts: Mapping[str, Any], expected: set[str]):
    found = list(check_metadata({**GOOD, **facts}))
    assert all(not finding.passed and "\n" not in finding.text for finding in found)
    assert {name for finding in found for name in finding.metadata} == expected


def test_volume_is_compared_with_the_same_weekday_of_the_weeks_before(deployment: Deployment):
    sunday = date(2026, 4, 26)
    saturday = sunday - timedelta(days=1)
    for weeks in range(1, 9):
        put(deployment, sunday - timedelta(weeks=weeks), 60)
        put(deployment, saturday - timedelta(weeks=weeks), 600)  # Saturdays are ten times as busy
    for day in (saturday, sunday):
        put(deployment, day, 70)
    found = check(deployment, saturday, sunday)
    assert found[f"{sunday}"].passed
    assert not found[f"{saturday}"].passed
    assert found[f"{saturday}"].metadata["median"].value == 600
    # while the day goes on there is nothing to say
    put(deployment, saturday, 70, closed=False)
    assert check(deployment, saturday)[f"{saturday}"].passed


@pytest.mark.parametrize(("before", "passed"), [(101, False), (100, True)])
def test_check_warns_of_an_empty_day_after_a_busy_week(deployment: Deployment, before: int, passed: bool):
    for day in list_days(DAY - timedelta(days=7), FIRST):
        put(deployment, day, before if day.weekday() else 0)
    put(deployment, DAY, 0)
    assert check(deployment, DAY)[f"{DAY}"].passed is passed


WEEKS: list[tuple[list[int], list[int | None], list[int]]] = [  # with what is usual, and what is not
    ([1000] * 8, [334, 3000, None], [0, 333, 3001]),  # None: not closed
    ([1000] * 7 + [90_000], [3000], [10_000]),  # one campaign long ago does not make it usual
    ([1000] * 7 + [0], [334], [0]),  # nor does one outage
    ([0, 400_000, 10, 300_000, 0, 500_000, 20, 0], [0, 500_000], []),  # where every week is another, all is usual
    ([4] * 8, [0], []),  # few are soon none
    ([50] * 8, [], [0]),
    ([0] * 8, [0, 3], [12]),
    ([1000] * 3, [0], []),  # new
    ([], [0], []),
]


@pytest.mark.parametrize(("past", "usual", "unusual"), WEEKS)
def test_volume_is_usual_or_not(past: list[int], usual: list[int | None], unusual: list[int]):
    assert [rows for rows in [*usual, *unusual] if check_volume(rows, past).passed] == usual
