"""Test rates: small cases worked out by hand, and whole populations against plain Python."""

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets.events.kinds import KINDS
from np6_assets.rates import compute
from np6_assets.rates.columns import COLUMNS
from np6_assets.rates.compute import build_duckdb_runner, compute_rates, open_duckdb
from np6_assets.rates.feeds import Feeds, find_due_time
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import open_partitioned_dataset
from np6_assets_tests.support.events import build_event, build_population
from np6_assets_tests.support.oracle import (
    RATE_COLUMNS,
    Row,
    build_row,
    compute_day_bounds,
    expect_feeds,
    expect_rates,
    list_columns,
    parse_day,
)
from np6_assets_tests.support.tables import assert_rows_equal, build_table, read_types

D = date(2026, 3, 20)
HOUR = 3_600_000
DAY = 24 * HOUR
Days = Mapping[str, Mapping[date, list[Row] | None]]


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """One connection for all cohorts, as in a run."""
    with open_duckdb() as connection:
        yield connection


def list_days_from(first: date, number: int) -> list[date]:
    return [first + timedelta(days=ahead) for ahead in range(number)]


def write_feeds(
    root: Path,
    feeds: Days,
    tz: str,
    is_closed: Callable[[str, date], bool] = lambda kind, day: True,
    missing_ids: Mapping[tuple[str, date], Collection[int]] | None = None,
    due: datetime | None = None,
) -> Feeds:
    """Write the files that materializations write; a day that is not closed was fetched before its end."""
    for kind, days in feeds.items():
        for day, rows in days.items():
            if rows is None:
                continue
            end = datetime.fromtimestamp(compute_day_bounds(day, tz)[1] / 1000, UTC)
            until = end if is_closed(kind, day) else end - timedelta(milliseconds=1)
            metadata = {"np6.fetched_until": until.isoformat()}
            if ids := (missing_ids or {}).get((kind, day)):
                metadata["np6.missing_ids"] = json.dumps(ids)
            table = build_table(rows, list_columns(kind)).replace_schema_metadata(metadata)
            path = root / kind / f"event_date={day}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(table, path)
    keys = sorted({day.isoformat() for days in feeds.values() for day in days})
    datasets = {
        kind.asset: open_partitioned_dataset(Folder(str(root)), kind.asset, kind.schema, "event_date", keys)
        for kind in KINDS
    }
    return Feeds(datasets, tz, due)


def compute_frames(
    database: duckdb.DuckDBPyConnection, feeds: Feeds, cohorts: list[date], window: int
) -> dict[date, pd.DataFrame]:
    """Compute the frame of each cohort, in the order of computation."""
    keys = [f"{cohort}" for cohort in cohorts]
    return {
        date.fromisoformat(key): rows.to_pandas(types_mapper=pd.ArrowDtype)
        for key, rows in compute_rates(build_duckdb_runner(database), feeds, keys, window)
    }


def to_rows(frame: pd.DataFrame, day: date) -> list[Row]:
    """Convert a frame to rows as the oracle writes them, with None for null."""
    return [
        {"activation_date": day} | {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


# --- populations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "tz", "window", "first"),
    [
        (1, "UTC", 7, D),
        pytest.param(2, "UTC", 1, D, marks=pytest.mark.slow),
        pytest.param(3, "UTC", 0, D, marks=pytest.mark.slow),
        pytest.param(4, "Europe/Paris", 7, date(2026, 3, 27), marks=pytest.mark.slow),  # 2026-03-29 has 23 hours there
        (5, "Europe/Paris", 1, date(2026, 3, 27)),
        pytest.param(6, "Europe/Paris", 0, date(2026, 3, 27), marks=pytest.mark.slow),
        pytest.param(7, "Europe/Paris", 1, date(2026, 10, 24), marks=pytest.mark.slow),  # and 2026-10-25 has 25
        (8, "America/St_Johns", 2, date(2026, 3, 6)),
    ],
)
def test_rates_of_a_population_match_plain_python(
    seed: int, tz: str, window: int, first: date, tmp_path: Path, database: duckdb.DuckDBPyConnection
):
    cohorts = list_days_from(first, 4)
    population = build_population(seed, first, 4, tz, window_days=window)
    feeds = expect_feeds(population, list_days_from(first, 4 + window), tz)
    stored = write_feeds(tmp_path, feeds, tz)
    found = compute_frames(database, stored, cohorts, window)
    assert list(found) == cohorts
    for cohort in cohorts:
        expected = expect_rates(cohort, tz, window, feeds)
        assert len(expected) > 5
        assert all(row["is_final"] and row["days_loaded"] == window + 1 for row in expected)
        assert_rows_equal(to_rows(found[cohort], cohort), expected)


ALL = tuple(kind.asset for kind in KINDS)
PARIS = "Europe/Paris"


@pytest.fixture(scope="module")
def four_days() -> Days:
    """A cohort of D with a window of two days more, and the day after it."""
    return expect_feeds(build_population(9, D, 1, PARIS, window_days=2), list_days_from(D, 4), PARIS)


@pytest.fixture(scope="module")
def seven_days() -> Days:
    """Cohorts of D and of five days more, with a window of one day more."""
    return expect_feeds(build_population(9, D, 6, "UTC", window_days=1), list_days_from(D, 7), "UTC")


@pytest.mark.parametrize(
    ("missing", "unclosed"),
    [
        ({"activations": [0]}, {}),
        pytest.param({"activations": [1]}, {}, marks=pytest.mark.slow),
        ({"activations": [0, 1]}, {}),
        pytest.param({"impressions": [0]}, {}, marks=pytest.mark.slow),
        ({"impressions": [1, 2]}, {}),
        pytest.param({"hits": [0]}, {}, marks=pytest.mark.slow),
        ({"hits": [1], "optouts": [1], "bounces": [2]}, {}),
        pytest.param({"hits": [0, 1, 2], "optouts": [0, 1, 2], "bounces": [0, 1, 2]}, {}, marks=pytest.mark.slow),
        ({kind: [2] for kind in ALL}, {}),
        pytest.param({}, {"hits": [2]}, marks=pytest.mark.slow),
        pytest.param({}, {"bounces": [0]}, marks=pytest.mark.slow),
        pytest.param({}, {"activations": [1]}, marks=pytest.mark.slow),
        ({}, {"activations": [2]}),
        ({}, {"impressions": [0, 1, 2]}),  # which finality does not ask about
        ({"optouts": [1]}, {"optouts": [0], "hits": [1]}),
    ],
)
def test_status_tells_missing_and_open_days(
    missing: Mapping[str, Collection[int]],
    unclosed: Mapping[str, Collection[int]],
    four_days: Days,
    tmp_path: Path,
    database: duckdb.DuckDBPyConnection,
):
    feeds = {
        kind: {day: None if (day - D).days in missing.get(kind, ()) else rows for day, rows in days.items()}
        for kind, days in four_days.items()
    }

    def is_closed(kind: str, day: date) -> bool:
        return (day - D).days not in unclosed.get(kind, ())

    stored = write_feeds(tmp_path, feeds, PARIS, is_closed)
    needed_days = find_lacking_days(missing, unclosed)
    for due_day in (None, 0, 1, 3):
        due_ms = 0 if due_day is None else compute_day_bounds(D + timedelta(days=due_day), PARIS)[0] + HOUR
        due = None if due_day is None else datetime.fromtimestamp(due_ms / 1000, UTC)
        frame = compute_frames(database, replace(stored, due=due), [D], 2)[D]
        assert_rows_equal(to_rows(frame, D), expect_rates(D, PARIS, 2, feeds, is_closed, due_ms=due_ms))
        overdue = any(due_day is not None and day < due_day for day in needed_days)
        assert set(frame["status"]) == {"incomplete" if overdue else "open" if needed_days else "final"}


def test_rows_of_a_notification_missing_on_a_needed_day_are_incomplete(
    tmp_path: Path, database: duckdb.DuckDBPyConnection
):
    feeds = expect_feeds(build_population(9, D, 3, "UTC", window_days=1), list_days_from(D, 4), "UTC")
    ids = sorted({row["activation_id"] for row in feeds["activations"][D] or ()})
    assert len(ids) > 2
    # the days of the cohort are D and D + 1
    missing = {
        ("activations", D): [ids[0]],
        ("activations", D + timedelta(days=1)): [ids[1], 10**9],
        ("activations", D + timedelta(days=2)): [ids[2]],
    }
    stored = write_feeds(tmp_path, feeds, "UTC", missing_ids=missing)
    found = compute_frames(database, stored, [D, D + timedelta(days=1)], 1)
    for cohort, frame in found.items():
        assert_rows_equal(to_rows(frame, cohort), expect_rates(cohort, "UTC", 1, feeds, missing_ids=missing))
    incomplete = found[D][found[D]["status"] == "incomplete"]
    assert set(incomplete["activation_id"]) == set(ids[:2])
    assert not incomplete["is_final"].any()
    assert "final" in set(found[D]["status"])


@pytest.mark.parametrize(("due_day", "status"), [(None, "open"), (1, "open"), (2, "incomplete")])
def test_rows_of_a_notification_missing_on_an_open_day_are_incomplete_once_it_is_due(
    due_day: int | None, status: str, tmp_path: Path, database: duckdb.DuckDBPyConnection
):
    """The window is D to D + 2: D + 1 misses a notification; D + 2 is open and not due."""
    feeds = expect_feeds(build_population(9, D, 1, "UTC", window_days=2), list_days_from(D, 3), "UTC")
    ids = sorted({row["activation_id"] for row in feeds["activations"][D] or ()})
    missing = {("activations", D + timedelta(days=1)): [ids[0]]}

    def is_closed(kind: str, day: date) -> bool:
        return day < D + timedelta(days=2)

    due_ms = 0 if due_day is None else compute_day_bounds(D + timedelta(days=due_day), "UTC")[0] + HOUR
    due = None if due_day is None else datetime.fromtimestamp(due_ms / 1000, UTC)
    stored = write_feeds(tmp_path, feeds, "UTC", is_closed, missing_ids=missing, due=due)
    frame = compute_frames(database, stored, [D], 2)[D]
    assert_rows_equal(
        to_rows(frame, D), expect_rates(D, "UTC", 2, feeds, is_closed, due_ms=due_ms, missing_ids=missing)
    )
    assert set(frame["status"][frame["activation_id"] == ids[0]]) == {status}
    assert set(frame["status"][frame["activation_id"] != ids[0]]) == {"open"}
    assert not frame["is_final"].any()


@pytest.mark.parametrize("last_watermark", ["its end", "later"])
def test_rates_are_not_open_once_their_window_is_closed(
    last_watermark: str, tmp_path: Path, database: duckdb.DuckDBPyConnection
):
    """A cohort is not computed again after its last day has closed, even if that is the newest day."""
    settings = Settings.from_environment({})
    feeds = expect_feeds(
        build_population(9, D, 1, "UTC", window_days=1), list_days_from(D, 3 if last_watermark == "later" else 2), "UTC"
    )
    ids = sorted({row["activation_id"] for row in feeds["activations"][D] or ()})
    missing = {("activations", D + timedelta(days=1)): [ids[0]]}
    stored = write_feeds(tmp_path, feeds, "UTC", missing_ids=missing)
    stored = replace(stored, due=find_due_time(Folder(str(tmp_path)), settings))
    frame = compute_frames(database, stored, [D], 1)[D]
    assert set(frame["status"][frame["activation_id"] == ids[0]]) == {"incomplete"}
    assert set(frame["status"][frame["activation_id"] != ids[0]]) == {"final"}


def test_due_time_is_the_newest_watermark_less_the_lookback(tmp_path: Path):
    settings = Settings.from_environment({"NP6_LOOKBACK_MINUTES": "90"})
    assert find_due_time(Folder(str(tmp_path)), settings) is None
    feeds: Days = {"hits": {D: [], D + timedelta(days=2): []}, "bounces": {D + timedelta(days=1): []}}
    write_feeds(tmp_path, feeds, "UTC", lambda kind, day: day == D)
    newest = datetime(2026, 3, 22, 23, 59, 59, 999_000, UTC)
    assert find_due_time(Folder(str(tmp_path)), settings) == newest - timedelta(minutes=90)
    # a file of another program has no watermark, nor has an empty folder
    other = tmp_path / "hits" / f"event_date={D + timedelta(days=4)}"
    other.mkdir()
    pq.write_table(pa.table({"event_id": ["a"]}), other / "part-0.parquet")
    (tmp_path / "hits" / f"event_date={D + timedelta(days=5)}").mkdir()
    assert find_due_time(Folder(str(tmp_path)), settings) == newest - timedelta(minutes=90)


def test_missing_days_of_one_cohort_do_not_affect_the_next(
    seven_days: Days, tmp_path: Path, database: duckdb.DuckDBPyConnection
):
    feeds = {
        kind: {day: None if (day - D).days in (0, 1, 4, 5) else rows for day, rows in days.items()}
        for kind, days in seven_days.items()
    }
    stored = write_feeds(tmp_path, feeds, "UTC")
    row_counts = []
    for cohort, frame in compute_frames(database, stored, list_days_from(D, 6), 1).items():
        rows = to_rows(frame, cohort)
        assert_rows_equal(rows, expect_rates(cohort, "UTC", 1, feeds))
        row_counts.append(len(rows))
    assert [bool(count) for count in row_counts] == [False, True, True, True, False, True]


@pytest.mark.parametrize(("at_once", "queries"), [(1, 6), (10**9, 1)])
def test_cohorts_are_computed_in_chunks_of_bounded_rows(
    seven_days: Days,
    tmp_path: Path,
    database: duckdb.DuckDBPyConnection,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    queries: int,
):
    stored = write_feeds(tmp_path, seven_days, "UTC")
    monkeypatch.setattr(compute, "ROWS_AT_ONCE", at_once)
    cohorts = list_days_from(D, 6)
    assert len(list(compute.group_cohorts(stored, [f"{cohort}" for cohort in cohorts], 1))) == queries
    for cohort, frame in compute_frames(database, stored, cohorts, 1).items():
        assert_rows_equal(to_rows(frame, cohort), expect_rates(cohort, "UTC", 1, seven_days))


def test_chunk_counts_the_rows_of_shared_days_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One event a day, and a window of three days: consecutive cohorts share days."""
    row = build_row("hits", build_event("hits", id="1", timestamp=NOON), "drop", None)
    feeds: Days = {kind: {day: [row] if kind == "hits" else None for day in list_days_from(D, 20)} for kind in ALL}
    stored = write_feeds(tmp_path, feeds, "UTC")
    monkeypatch.setattr(compute, "ROWS_AT_ONCE", 5)
    cohorts = [f"{D + timedelta(days=ahead)}" for ahead in (0, 1, 2, 3, 10, 15)]
    found = list(compute.group_cohorts(stored, cohorts, 2))
    assert found == [cohorts[:3], cohorts[3:4], cohorts[4:5], cohorts[5:]]


def find_lacking_days(missing: Mapping[str, Collection[int]], unclosed: Mapping[str, Collection[int]]) -> set[int]:
    """Find the days that the cohort needs and that are missing or not closed."""
    needed = ("activations", "hits", "optouts", "bounces")
    return {day for kind in needed for day in (*missing.get(kind, ()), *unclosed.get(kind, ())) if day <= 2}


# --- by hand -------------------------------------------------------------------------------------------------------

NOON = compute_day_bounds(D, "UTC")[0] + 12 * HOUR


class Case:
    """A cohort of D in UTC, built event by event."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database
        self._ids = count()
        self.feeds: dict[str, dict[date, list[Row] | None]] = {
            kind: {day: [] for day in list_days_from(D, 9)} for kind in ALL
        }

    def add(self, kind: str, stamp: Any, at: int = NOON, **fields: Any) -> None:
        """Add an event of the send with this stamp, sent at noon."""
        fields = {"stamp_id": stamp, "stamp_time": NOON, "subscription": "phone", **fields}
        row = build_row(kind, build_event(kind, id=f"{next(self._ids)}", timestamp=at, **fields), "drop", None)
        rows = self.feeds[kind][parse_day(at, "UTC")]
        assert rows is not None
        rows.append(row)

    def compute_frame(self, root: Path, window: int = 7) -> pd.DataFrame:
        return compute_frames(self._database, write_feeds(root, self.feeds, "UTC"), [D], window)[D]

    def compute_row(self, root: Path, window: int = 7) -> Row:
        """Compute the cohort's only row."""
        [row] = to_rows(self.compute_frame(root, window), D)
        return row


@pytest.fixture
def case(database: duckdb.DuckDBPyConnection) -> Case:
    return Case(database)


def assert_values(row: Row, **expected: Any) -> None:
    assert {name: row[name] for name in expected} == expected


def test_rates_of_a_cohort_worked_out_by_hand(case: Case, tmp_path: Path):
    # 12 sends. s0, s1 bounce: 10 are delivered. s2 is hit twice, 3 h and 6 days later; s3 is hit once: 2 of 10.
    # s3 is muted as well, s4 is muted: 2 of 10. s5 to s9 are displayed: 5 of 10.
    for number in range(12):
        case.add("activations", f"s{number}")
    case.add("bounces", "s0", verdict="hard")
    case.add("bounces", "s1", verdict="soft")
    case.add("hits", "s2", NOON + 3 * HOUR)
    case.add("hits", "s2", NOON + 6 * DAY)
    case.add("hits", "s3")
    case.add("optouts", "s3")
    case.add("optouts", "s4")
    for number in range(5, 10):
        case.add("impressions", f"s{number}")
    row = case.compute_row(tmp_path)
    assert_values(row, activations=12, bounced=2, delivered=10, hit_activations=2, hits=3)
    assert row["reacting_activations"] == 5  # s0 to s4
    assert row["orphan_reactions"] == 0
    assert row["hit_rate"] == 2 / 10
    assert row["optout_rate"] == 2 / 10
    assert row["impression_rate"] == 5 / 10
    assert row["bounce_rate"] == 2 / 12
    assert row["hard_bounce_rate"] == 1 / 12
    assert row["hits_per_hit_activation"] == 3 / 2
    assert_values(row, hit_share=2 / 5, optout_share=2 / 5, bounce_share=2 / 5)
    assert_values(row, window_days=7, days_loaded=8, is_final=True)


def test_bounce_counts_by_its_worst_verdict(case: Case, tmp_path: Path):
    for number, verdicts in enumerate(
        (["soft", "hard", "blocked"], ["soft", None], ["blocked", None], [None], ["HARD"])
    ):
        case.add("activations", f"s{number}")
        for verdict in verdicts:
            case.add("bounces", f"s{number}", verdict=verdict)
    # s0 is hard, s1 soft, s2, s3 and s4 (verdicts are spelled in lower case) other
    assert_values(case.compute_row(tmp_path), bounces_hard=1, bounces_soft=1, bounces_other=3, bounced=5, delivered=0)


def test_hit_of_another_link_type_is_no_click_through(case: Case, tmp_path: Path):
    for number, link_type in enumerate(("dismissal", "", None, "Redirection")):
        case.add("activations", f"s{number}")
        case.add("hits", f"s{number}", link_type=link_type)
    row = case.compute_row(tmp_path)
    assert_values(row, hit_activations=0, hits=0, other_hits=4, reacting_activations=0, hit_rate=0.0)
    assert row["hits_per_hit_activation"] is None
    assert row["hit_share"] is None


def test_reaction_to_an_unknown_send_is_an_orphan(case: Case, tmp_path: Path):
    # One send that nothing happened to; three unknown sends: hit, muted, bounced. Delivered: 1 - 1 = 0.
    case.add("activations", "known")
    case.add("hits", "unknown 1")
    case.add("optouts", "unknown 2")
    case.add("bounces", "unknown 3")
    case.add("bounces", "unknown 3")
    case.add("impressions", "unknown 4")  # no reaction
    row = case.compute_row(tmp_path)
    assert_values(row, activations=1, reacting_activations=3, orphan_reactions=3, delivered=0, bounce_rate=1.0)
    assert [row[name] for name in ("hit_rate", "optout_rate", "impression_rate", "hit_rate_low")] == [None] * 4


def test_delivered_is_at_least_zero_and_rates_are_not_clamped(case: Case, tmp_path: Path):
    # 2 sends of version a are known and 5 are hit: 5 / 2. 2 of version b are known and 3 bounce: 2 - 3 is 0, and 3 / 2.
    for number in range(2):
        case.add("activations", f"s{number}", version="a")
        case.add("activations", f"s{number}", version="b")
    for number in range(5):
        case.add("hits", f"unknown {number}", version="a")
        case.add("optouts", f"unknown {number}", version="a")
        case.add("impressions", f"unknown {number}", version="a")
    for number in range(3):
        case.add("bounces", f"unknown {number}", version="b")
    first, second = to_rows(case.compute_frame(tmp_path), D)
    assert_values(first, hit_rate=2.5, optout_rate=2.5, impression_rate=2.5, hit_rate_low=None, hit_rate_high=None)
    assert_values(second, delivered=0, bounce_rate=1.5, hit_rate=None)


def test_event_without_a_stamp_id_is_its_own_send(case: Case, tmp_path: Path):
    for _ in range(3):
        case.add("activations", None)
    for _ in range(2):
        case.add("hits", None)
    row = case.compute_row(tmp_path)
    assert_values(row, activations=3, hit_activations=2, hits=2, orphan_reactions=2)  # of unknown sends


def test_event_without_a_stamp_time_is_in_the_cohort_of_its_day(case: Case, tmp_path: Path):
    case.add("activations", "s", stamp_time=None)
    case.add("hits", "s", NOON + HOUR, stamp_time=None)
    case.add("hits", "s", NOON + DAY, stamp_time=None)  # of the next day's cohort
    case.add("hits", "s", NOON + DAY)
    assert_values(case.compute_row(tmp_path), activations=1, hit_activations=1, hits=2)


def test_send_is_identified_by_stamp_and_subscription(case: Case, tmp_path: Path):
    for subscription in ("phone", "tablet", None):
        case.add("activations", "s", subscription=subscription)
        case.add("activations", "s", subscription=subscription)  # published twice, under two ids
    case.add("hits", "s", subscription=None)
    case.add("hits", "s", subscription="tablet")
    assert_values(case.compute_row(tmp_path), activations=3, hit_activations=2, orphan_reactions=0)


def test_stamp_id_equal_to_an_event_id_is_another_send(case: Case, tmp_path: Path):
    case.add("activations", None)  # the event 0, without a stamp
    case.add("activations", "0")  # and a stamp of that name
    assert case.compute_row(tmp_path)["activations"] == 2


def test_event_stored_on_two_days_counts_once(case: Case, tmp_path: Path):
    case.add("activations", "s")
    case.add("hits", "s")
    first, second = case.feeds["hits"][D], case.feeds["hits"][D + timedelta(days=1)]
    assert first is not None
    assert second is not None
    second += first
    assert case.compute_row(tmp_path)["hits"] == 1


@pytest.mark.parametrize("window", [0, 1, 7])
def test_window_ends_with_its_last_day(case: Case, tmp_path: Path, window: int):
    midnight = compute_day_bounds(D + timedelta(days=window + 1), "UTC")[0]
    case.add("activations", "s")
    case.add("hits", "s", midnight - 1)
    case.add("hits", "s", midnight)
    case.add("optouts", "s", midnight)
    row = case.compute_row(tmp_path, window)
    assert_values(row, hits=1, optout_activations=0, window_days=window)


def test_cohort_is_the_day_of_the_stamp(case: Case, tmp_path: Path):
    midnight, next_midnight = compute_day_bounds(D, "UTC")
    for stamp_time in (midnight, next_midnight - 1):
        case.add("activations", f"in {stamp_time}", next_midnight, stamp_time=stamp_time)
    for stamp_time in (midnight - 1, next_midnight):
        case.add("activations", f"out {stamp_time}", stamp_time=stamp_time)
        case.add("hits", f"out {stamp_time}", stamp_time=stamp_time)
    case.add("activations", "in 2", next_midnight + DAY)
    case.add("activations", "too late", next_midnight + 2 * DAY)
    assert_values(case.compute_row(tmp_path, window=2), activations=3, hits=0)


def test_rows_are_grouped_by_grain_and_nulls_are_groups(case: Case, tmp_path: Path):
    for fields in (
        {"agency": "B"},
        {"agency": "A", "customer": None},
        {"agency": "A", "version": "2"},
        {"agency": None},
        {"agency": "A", "version": "1", "application": None},
        {"agency": "A", "version": "1", "application": "x"},
        {"agency": "A", "version": "1", "activation_id": 2**53 + 1},
        {"agency": "A", "version": "1", "activation_id": 2**53},
    ):
        case.add("activations", "s", **fields)
    rows = to_rows(case.compute_frame(tmp_path), D)
    grain = ("agency", "customer", "activation_id", "activation_version", "application_id")
    expected = expect_rates(D, "UTC", 7, case.feeds)
    assert len(rows) == 8
    assert [[row[name] for name in grain] for row in rows] == [[row[name] for name in grain] for row in expected]
    assert [row["activations"] for row in rows] == [1] * 8


# Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3; and 10 of 100, from any textbook's calculator
@pytest.mark.parametrize(
    ("hit", "delivered", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 100, 0.0552, 0.1744),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_rate_interval_is_wilsons(case: Case, tmp_path: Path, hit: int, delivered: int, low: float, high: float):
    for number in range(delivered):
        case.add("activations", f"s{number}")
    for number in range(hit):
        case.add("hits", f"s{number}")
    row = case.compute_row(tmp_path)
    assert round(row["hit_rate_low"], 4) == low
    assert round(row["hit_rate_high"], 4) == high
    assert 0 <= row["hit_rate_low"] <= row["hit_rate"] <= row["hit_rate_high"] <= 1


# --- shape ---------------------------------------------------------------------------------------------------------

ARROW = {"string": pa.string(), "int64": pa.int64(), "int32": pa.int32(), "double": pa.float64(), "bool": pa.bool_()}


def test_columns_match_the_contract_and_have_descriptions():
    assert {name: str(type_) for name, type_, _, _ in COLUMNS} == RATE_COLUMNS
    assert all(description.endswith(".") for _, _, description, _ in COLUMNS)


@pytest.mark.parametrize("is_stored", [True, False])
def test_empty_cohort_has_columns_and_no_rows(tmp_path: Path, database: duckdb.DuckDBPyConnection, is_stored: bool):
    feeds: Days = {kind: {D: [] if is_stored else None} for kind in ALL}
    frame = compute_frames(database, write_feeds(tmp_path, feeds, "UTC"), [D], 7)[D]
    assert len(frame) == 0
    assert list(frame.columns) == list(RATE_COLUMNS)
    assert read_types(pa.Table.from_pandas(frame, preserve_index=False)) == RATE_COLUMNS


def test_null_counts_keep_their_type(case: Case, tmp_path: Path):
    case.add("hits", "s")
    case.feeds["activations"][D] = None
    case.feeds["impressions"][D] = None
    frame = case.compute_frame(tmp_path)
    assert {name: dtype.pyarrow_dtype for name, dtype in frame.dtypes.items()} == {
        name: ARROW[type_] for name, type_ in RATE_COLUMNS.items()
    }
    nulls = {name for name in frame.columns if frame[name].isna().all()}
    assert nulls == {
        *("activations", "delivered", "orphan_reactions", "impression_activations"),
        *("hit_rate", "optout_rate", "bounce_rate", "hard_bounce_rate", "impression_rate"),
        *("hit_rate_low", "hit_rate_high"),
    }


def test_statement_is_run_on_one_thread_if_two_need_too_much_memory(database: duckdb.DuckDBPyConnection):
    database.execute("SET memory_limit = '32MB'; SET temp_directory = ''")
    rows = "CASE WHEN current_setting('threads') > 1 THEN 10_000_000 ELSE 10 END"
    sql = f"CREATE OR REPLACE TEMP TABLE found AS SELECT number FROM range({rows}) AS numbers(number) GROUP BY number"
    with pytest.raises(duckdb.OutOfMemoryException):
        database.execute(sql)
    compute.execute_within_memory(database, sql)
    assert database.execute("SELECT count(*) FROM found").fetchall() == [(10,)]


def test_computation_leaves_no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with open_duckdb() as database:
        case = Case(database)
        case.add("activations", "s")
        assert len(case.compute_frame(tmp_path / "data")) == 1
    assert list(temporary.iterdir()) == []
