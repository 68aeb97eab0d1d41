"""Test rates of whole populations against plain Python; cases worked out by hand are in `test_cases.py`."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets.rates import compute
from np6_assets.rates.columns import COLUMNS
from np6_assets.rates.compute import build_duckdb_runner, group_cohorts, open_duckdb
from np6_assets.rates.feeds import EventDays, FeedDay, Feeds, find_due_time
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets_tests.rates.stored_feeds import ALL, Days, compute_tables, list_days_from, list_rows, write_feeds
from np6_assets_tests.support.events import build_event, build_population
from np6_assets_tests.support.oracle import RATE_COLUMNS, Row, build_row, compute_day_bounds, expect_feeds, expect_rates
from np6_assets_tests.support.tables import assert_rows_equal, read_types

D = date(2026, 3, 20)
PARIS = "Europe/Paris"
HOUR = 3_600_000


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_duckdb() as connection:
        yield connection


def compute_rows(
    database: duckdb.DuckDBPyConnection, feeds: Feeds, cohorts: list[date], window: int
) -> dict[date, list[Row]]:
    found = compute_tables(build_duckdb_runner(database), feeds, cohorts, window)
    return {day: list_rows(rates, day) for day, rates in found.items()}


@pytest.mark.parametrize(
    ("seed", "tz", "window", "first"),
    [
        (1, "UTC", 2, D),
        (5, PARIS, 1, date(2026, 3, 27)),  # 2026-03-29 has 23 hours there
        pytest.param(7, PARIS, 0, date(2026, 10, 24), marks=pytest.mark.slow),  # and 2026-10-25 has 25
        pytest.param(8, "America/St_Johns", 7, date(2026, 3, 6), marks=pytest.mark.slow),
    ],
)
def test_rates_of_a_population_match_plain_python(
    seed: int, tz: str, window: int, first: date, tmp_path: Path, database: duckdb.DuckDBPyConnection
):
    cohorts = list_days_from(first, 4)
    population = build_population(seed, first, 4, tz, window_days=window)
    feeds = expect_feeds(population, list_days_from(first, 4 + window), tz)
    found = compute_rows(database, write_feeds(tmp_path, feeds, tz), cohorts, window)
    assert list(found) == cohorts
    for cohort, rows in found.items():
        expected = expect_rates(cohort, tz, window, feeds)
        assert len(expected) > 5
        assert all(row["is_final"] and row["days_loaded"] == window + 1 for row in expected)
        assert_rows_equal(rows, expected)


def test_rates_with_missing_and_open_days_match_plain_python(tmp_path: Path, database: duckdb.DuckDBPyConnection):
    """Of six cohorts with a window of one day more; the third has no events at all."""
    days = list_days_from(D, 7)
    feeds = expect_feeds(build_population(9, D, 6, PARIS, window_days=1), days, PARIS)
    ids = sorted({row["activation_id"] for row in feeds["activations"][D] or ()})
    for kind in ALL:
        feeds[kind][days[2]] = feeds[kind][days[3]] = None
    feeds["activations"][days[4]] = feeds["impressions"][days[5]] = feeds["optouts"][days[6]] = None
    missing = {("activations", D): ids[:1], ("activations", days[5]): ids[1:2], ("hits", days[1]): [ids[2], 10**9]}

    def is_closed(kind: str, day: date) -> bool:
        return day != days[5] or kind == "impressions"

    for due in (0, 3, 6):
        due_ms = compute_day_bounds(days[due], PARIS)[0] + HOUR
        root = tmp_path / f"{due}"
        stored = write_feeds(root, feeds, PARIS, is_closed, missing, datetime.fromtimestamp(due_ms / 1000, UTC))
        found = compute_rows(database, stored, days[:6], 1)
        for cohort, rows in found.items():
            expected = expect_rates(cohort, PARIS, 1, feeds, is_closed, due_ms=due_ms, missing_ids=missing)
            assert_rows_equal(rows, expected)
        assert [bool(rows) for rows in found.values()] == [True, True, False, True, True, True]
        assert {row["status"] for row in found[D]} == {"final", "incomplete"}
        assert {row["activation_id"] for row in found[D] if not row["is_final"]} == {ids[0], ids[2]}
        assert {row["status"] for row in found[days[1]]} == {"incomplete" if due > 2 else "open"} | (
            {"incomplete"} if due > 1 else set()
        )


def test_status_tells_missing_and_open_days():
    """The window is D to D + 2; a day is missing, open or closed, and D + `due` is the first that is not due."""

    def determine_status(lacking: dict[str, list[int]], due: int | None, *, is_stored: bool) -> str:
        def stored(asset: str, day: str) -> FeedDay | None:
            is_lacking = (date.fromisoformat(day) - D).days in lacking.get(asset, ())
            return None if is_lacking and not is_stored else FeedDay(1, not is_lacking, frozenset(), None, "")

        moment = None if due is None else datetime(2026, 3, 20 + due, 1, tzinfo=UTC)
        return EventDays(stored, "UTC", moment).determine_status([f"{day}" for day in list_days_from(D, 3)])

    for lacking, first in (
        ({"activations": [0]}, 0),
        ({"activations": [0, 1]}, 0),
        ({"hits": [1], "optouts": [1], "bounces": [2]}, 1),
        ({asset: [2] for asset in ALL}, 2),
        ({"bounces": [2]}, 2),
        ({"impressions": [0, 1, 2]}, None),  # which finality does not ask about
        ({}, None),
    ):
        for is_stored in (True, False):
            for due in (None, 0, 1, 2, 3):
                is_overdue = due is not None and first is not None and first < due
                status = "final" if first is None else "incomplete" if is_overdue else "open"
                assert determine_status(lacking, due, is_stored=is_stored) == status, (lacking, due)


def test_missing_ids_count_once_their_day_is_due_or_all_are_closed():
    def find_missing_ids(due: int | None, *, closed: int) -> list[int]:
        def stored(asset: str, day: str) -> FeedDay:
            ahead = (date.fromisoformat(day) - D).days
            return FeedDay(1, ahead < closed, frozenset({ahead} if asset == "activations" else ()), None, "")

        moment = None if due is None else datetime(2026, 3, 20 + due, 1, tzinfo=UTC)
        return EventDays(stored, "UTC", moment).find_missing_ids([f"{day}" for day in list_days_from(D, 3)])

    assert [find_missing_ids(due, closed=2) for due in (None, 0, 1, 2)] == [[], [], [0], [0, 1]]
    # a cohort is not computed again after its last day has closed
    assert find_missing_ids(None, closed=3) == [0, 1, 2]


def test_due_time_is_the_newest_watermark_less_the_lookback(tmp_path: Path):
    settings = Settings.from_environment({"NP6_LOOKBACK_MINUTES": "90"})
    assert find_due_time(Folder(str(tmp_path)), settings) is None
    feeds: Days = {"hits": {D: [], D + timedelta(days=2): []}, "bounces": {D + timedelta(days=1): []}}
    write_feeds(tmp_path, feeds, "UTC", lambda kind, day: day == D)
    newest = datetime(2026, 3, 22, 23, 59, 59, 999_000, UTC)
    # a file of another program has no watermark, nor has an empty folder
    other = tmp_path / "hits" / f"event_date={D + timedelta(days=4)}"
    other.mkdir()
    pq.write_table(pa.table({"event_id": ["a"]}), other / "part-0.parquet")
    (tmp_path / "hits" / f"event_date={D + timedelta(days=5)}").mkdir()
    assert find_due_time(Folder(str(tmp_path)), settings) == newest - timedelta(minutes=90)


def test_cohorts_are_computed_in_chunks_of_bounded_rows(
    tmp_path: Path, database: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
):
    """One event a day, and a window of three days: consecutive cohorts share days."""
    noon = compute_day_bounds(D, "UTC")[0] + 12 * HOUR
    row = build_row("hits", build_event("hits", id="1", timestamp=noon, stamp_time=noon), "drop", None)
    feeds: Days = {kind: {day: [row] if kind == "hits" else None for day in list_days_from(D, 20)} for kind in ALL}
    stored = write_feeds(tmp_path, feeds, "UTC")
    cohorts = [D + timedelta(days=ahead) for ahead in (0, 1, 2, 3, 10, 15)]
    keys = [f"{cohort}" for cohort in cohorts]
    assert list(group_cohorts(stored, keys, 2, 5)) == [keys[:3], keys[3:4], keys[4:5], keys[5:]]
    assert list(group_cohorts(stored, keys, 2, 1)) == [[key] for key in keys]
    assert list(group_cohorts(stored, keys, 2, 100)) == [keys]
    monkeypatch.setattr(compute, "ROWS_AT_ONCE", 5)
    found = compute_rows(database, stored, cohorts, 2)
    assert {cohort: len(rows) for cohort, rows in found.items()} == {cohort: int(cohort == D) for cohort in cohorts}


# --- shape ---------------------------------------------------------------------------------------------------------


def test_columns_match_the_contract_and_have_descriptions():
    assert {name: str(type_) for name, type_, _, _ in COLUMNS} == RATE_COLUMNS
    assert all(description.endswith(".") for _, _, description, _ in COLUMNS)


def test_cohort_without_events_or_sends_has_every_column(tmp_path: Path, database: duckdb.DuckDBPyConnection):
    noon = compute_day_bounds(D, "UTC")[0] + 12 * HOUR
    hit = build_row("hits", build_event("hits", id="1", timestamp=noon, stamp_time=noon), "drop", None)
    run = build_duckdb_runner(database)
    for number, of_hits in enumerate(([hit], [], None)):
        feeds: Days = {kind: {D: of_hits if kind == "hits" else None} for kind in ALL}
        rates = compute_tables(run, write_feeds(tmp_path / f"{number}", feeds, "UTC"), [D], 7)[D]
        assert read_types(rates) == RATE_COLUMNS
        assert rates.num_rows == len(of_hits or ())
        if of_hits:
            [row] = rates.to_pylist()
            assert {name for name, value in row.items() if value is None} == {
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
        assert compute_rows(database, write_feeds(tmp_path / "data", {"hits": {D: []}}, "UTC"), [D], 0) == {D: []}
    assert list(temporary.iterdir()) == []
