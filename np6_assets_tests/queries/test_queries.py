"""Compare the ready queries over two weeks of cohorts with plain Python over the oracle's rows."""

import csv
import io
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow.parquet as pq
import pytest

from np6_assets.queries import command
from np6_assets.queries.ready import QUERIES
from np6_assets.queries.views import open_views
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets_tests.rates.stored_feeds import write_feeds
from np6_assets_tests.report.rendering import write_rates
from np6_assets_tests.support.events import build_population
from np6_assets_tests.support.oracle import (
    GRAIN,
    RATES,
    Row,
    compute_day_bounds,
    compute_wilson,
    expect_feeds,
    expect_rates,
)
from np6_assets_tests.support.tables import assert_rows_equal

TZ = "Europe/Paris"
WINDOW = 1
FIRST = date(2026, 3, 16)  # a Monday; clocks change on the 29th
COHORTS = [FIRST + timedelta(days=ahead) for ahead in range(15)]
EVENT_DAYS = [*COHORTS, COHORTS[-1] + timedelta(days=1)]
WITHOUT_SENDS = COHORTS[3]
WITHOUT_IMPRESSIONS = COHORTS[5]
STILL_OPEN = EVENT_DAYS[-1]
NOT_FETCHED = COHORTS[8]


class Account:
    """A stored account, and its `rates` and events by kind as the oracle computes them."""

    def __init__(self, root: Path) -> None:
        population = build_population(3, FIRST, len(COHORTS), TZ, window_days=WINDOW)
        self.events = expect_feeds(population, EVENT_DAYS, TZ)
        self.events["activations"][WITHOUT_SENDS] = None
        self.events["impressions"][WITHOUT_IMPRESSIONS] = None
        ids = sorted({row["activation_id"] for row in self.events["activations"][NOT_FETCHED] or ()})
        self.names = {id_: f"Notification {place}" for place, id_ in enumerate(ids[1:])} | {ids[0]: ""}
        due_ms = compute_day_bounds(COHORTS[-1], TZ)[1]
        self.rates = [
            row
            for cohort in COHORTS
            for row in expect_rates(
                cohort,
                TZ,
                WINDOW,
                self.events,
                lambda kind, day: day != STILL_OPEN,
                due_ms=due_ms,
                missing_ids={("activations", NOT_FETCHED): ids[:1]},
            )
        ]
        self.root = root
        write_feeds(root, self.events, TZ)
        write_rates(root, self.rates, self.names)

    def get_name(self, id_: int) -> str:
        return self.names.get(id_) or f"notification {id_}"

    def build_settings(self) -> Settings:
        return Settings.from_environment({"NP6_DATA_DIR": str(self.root), "NP6_TIMEZONE": TZ})


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    return Account(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def database(account: Account) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_views(account.build_settings()) as connection:
        yield connection


def run_query(database: duckdb.DuckDBPyConnection, query: str) -> list[Row]:
    result = database.execute(QUERIES[query])
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


# --- a rate of several rows, as metrics has it ------------------------------------------------------------------


class Rate:
    """The rows that count, of `rows`: not incomplete, with a denominator above 0 and a numerator."""

    def __init__(self, rows: Iterable[Row], numerator: str, denominator: str) -> None:
        used = [
            row for row in rows if row["status"] != "incomplete" and row[denominator] and row[numerator] is not None
        ]
        self.part = sum(row[numerator] for row in used) if used else None
        self.whole = sum(row[denominator] for row in used) if used else None
        self.value = self.part / self.whole if used else None
        self.low, self.high = compute_wilson(self.part or 0, self.whole)
        self.provisional = any(row["status"] == "open" for row in used) if used else None

    def list_columns(self, **attributes: str) -> Row:
        """List attributes by the columns that show them."""
        return {column: getattr(self, attribute) for column, attribute in attributes.items()}


def compute_hit_rate(rows: Iterable[Row]) -> Rate:
    return Rate(rows, "hit_activations", "delivered")


def compute_bounce_rate(rows: Iterable[Row]) -> Rate:
    return Rate(rows, "bounced", "activations")


def compute_impression_rate(rows: Iterable[Row]) -> Rate:
    return Rate(rows, "impression_activations", "delivered")


def group_by(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def by_sends(column: str, name: str) -> Callable[[Row], Any]:
    """Order rows by a count, the highest first and unknown ones last, then by a text, missing ones last."""
    return lambda row: (-(row[column] or -1), row[name] or "~")


def test_account_has_every_status_and_a_cohort_without_sends(account: Account) -> None:
    assert {row["status"] for row in account.rates} == {"final", "open", "incomplete"}
    without = [row for row in account.rates if row["activation_date"] == WITHOUT_SENDS]
    assert all(row["activations"] is None and row["hit_activations"] is not None for row in without)
    assert sum(row["hit_activations"] for row in without) > 0


def test_rates_refuse_a_sum_and_a_mean(database: duckdb.DuckDBPyConnection) -> None:
    for wrong in ("sum(hit_rate)", "avg(bounce_rate)", "hit_rate + hit_rate"):
        with pytest.raises(duckdb.BinderException, match="No function matches"):
            database.execute(f"SELECT {wrong} FROM cohorts")


def test_rates_of_rows_match_plain_python(account: Account, database: duckdb.DuckDBPyConnection) -> None:
    for column, (numerator, denominator) in RATES.items():
        expected = Rate(account.rates, numerator, denominator)
        query = f"SELECT rate({column}), rate_low({column}), rate_high({column}), is_provisional({column}) FROM cohorts"
        [shown] = database.execute(query).fetchall()
        assert shown[3]
        for found, number in zip(shown[:3], (expected.value, expected.low, expected.high), strict=True):
            assert found == (number if number is None else pytest.approx(number, rel=1e-12)), column


def test_weekly_hit_rate(account: Account, database: duckdb.DuckDBPyConnection) -> None:
    def get_week(row: Row) -> tuple[date, int]:
        day = row["activation_date"]
        return day - timedelta(days=day.weekday()), row["activation_id"]

    shown = {"delivered": "whole", "hit_rate": "value", "low": "low", "high": "high", "provisional": "provisional"}
    expected = [
        {"week": monday, "name": account.get_name(id_), **compute_hit_rate(rows).list_columns(**shown)}
        for (monday, id_), rows in group_by(account.rates, get_week).items()
    ]
    assert len({row["week"] for row in expected}) == 3
    order = sorted(
        expected, key=lambda row: (row["week"], -(-1 if row["hit_rate"] is None else row["hit_rate"]), row["name"])
    )
    assert_rows_equal(run_query(database, "weekly_hit_rate"), order)


def test_applications(account: Account, database: duckdb.DuckDBPyConnection) -> None:
    expected = [
        {
            "application_id": application,
            "sends": compute_bounce_rate(rows).whole,
            "hit_rate": compute_hit_rate(rows).value,
            "optout_rate": Rate(rows, "optout_activations", "delivered").value,
            **compute_bounce_rate(rows).list_columns(bounce_rate="value"),
            "impression_rate": compute_impression_rate(rows).value,
            "provisional": compute_bounce_rate(rows).provisional,
        }
        for application, rows in group_by(account.rates, lambda row: row["application_id"]).items()
    ]
    assert len(expected) > 1
    order = sorted(expected, key=by_sends("sends", "application_id"))
    assert_rows_equal(run_query(database, "applications"), order)


def test_funnel(account: Account, database: duckdb.DuckDBPyConnection) -> None:
    expected = []
    for id_, rows in group_by(account.rates, lambda row: row["activation_id"]).items():
        bounce, hit, impression = compute_bounce_rate(rows), compute_hit_rate(rows), compute_impression_rate(rows)
        expected.append(
            {
                "name": account.get_name(id_),
                "sends": bounce.whole,
                "delivered": hit.whole,
                "displayed": impression.part,
                "hit": hit.part,
                "delivery_rate": None if bounce.value is None else 1 - bounce.value,
                "impression_rate": impression.value,
                "hit_rate": hit.value,
                "provisional": bounce.provisional,
            }
        )
    assert_rows_equal(run_query(database, "funnel"), sorted(expected, key=by_sends("sends", "name")))


def test_last_7_days(account: Account, database: duckdb.DuckDBPyConnection) -> None:
    last = COHORTS[-1]
    newest = [row for row in account.rates if row["activation_date"] > last - timedelta(days=14)]
    expected = []
    for id_, rows in group_by(newest, lambda row: row["activation_id"]).items():
        now = compute_hit_rate(row for row in rows if row["activation_date"] > last - timedelta(days=7))
        before = compute_hit_rate(row for row in rows if row["activation_date"] <= last - timedelta(days=7))
        expected.append(
            {
                "name": account.get_name(id_),
                **now.list_columns(delivered="whole", hit_rate="value", provisional="provisional"),
                **before.list_columns(delivered_before="whole", hit_rate_before="value"),
                "change": None if None in (now.value, before.value) else now.value - before.value,
            }
        )
    assert_rows_equal(run_query(database, "last_7_days"), sorted(expected, key=by_sends("delivered", "name")))


def test_versions(account: Account, database: duckdb.DuckDBPyConnection) -> None:
    usable = [
        row
        for row in account.rates
        if row["status"] == "final" and row["delivered"] and row["hit_activations"] <= row["delivered"]
    ]
    expected = []
    for id_, rows in group_by(usable, lambda row: row["activation_id"]).items():
        versions = group_by(rows, lambda row: row["activation_version"])
        baseline = min(
            versions, key=lambda version: (-sum(row["delivered"] for row in versions[version]), version or "~")
        )
        for version in versions.keys() - {baseline}:
            pairs = [
                (row, other)
                for row in versions[version]
                for other in versions[baseline]
                if all(row[name] == other[name] for name in ("activation_date", "agency", "customer", "application_id"))
            ]
            if not pairs:
                continue
            weights = [1 / (1 / row["delivered"] + 1 / other["delivered"]) for row, other in pairs]
            differences = [row["hit_rate"] - other["hit_rate"] for row, other in pairs]
            of_version, of_baseline = (compute_hit_rate(pair[at] for pair in pairs) for at in (0, 1))
            expected.append(
                {
                    "name": account.get_name(id_),
                    "version": version,
                    "baseline": baseline,
                    "days": len({row["activation_date"] for row, _ in pairs}),
                    **of_version.list_columns(delivered="whole", hit_rate="value"),
                    **of_baseline.list_columns(baseline_delivered="whole", baseline_hit_rate="value"),
                    "difference": sum(w * d for w, d in zip(weights, differences, strict=True)) / sum(weights),
                }
            )
    assert expected
    order = sorted(expected, key=lambda row: (row["name"], -row["delivered"], row["version"] or "~"))
    assert_rows_equal(run_query(database, "versions"), order)


# --- sends, from the events -----------------------------------------------------------------------------------------


def group_sends(account: Account) -> dict[tuple[Any, ...], list[Row]]:
    """Group the events of each send of a cohort by day, grain and the key of the send."""
    sends = defaultdict(list)
    for kind, days in account.events.items():
        for row in (row for rows in days.values() for row in rows or ()):
            at = to_local(row["event_time"] if row["activated_at"] is None else row["activated_at"])
            days_after = (to_local(row["event_time"]).date() - at.date()).days
            if at.date() in COHORTS and 0 <= days_after <= WINDOW:
                send = (row["event_id"],) if row["stamp_id"] is None else (row["stamp_id"], row["subscription_id"])
                grain = tuple(row[name] for name in GRAIN)
                sends[at.date(), grain, send].append(row | {"kind": kind, "at": at})
    return sends


def to_local(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(TZ))


def test_send_times(account: Account, database: duckdb.DuckDBPyConnection) -> None:
    day_rows = {(row["activation_date"], tuple(row[name] for name in GRAIN)): row for row in account.rates}
    hours: dict[Any, Counter[str]] = defaultdict(Counter)
    for (day, grain, _), events in group_sends(account).items():
        kinds = {event["kind"] for event in events if event["kind"] != "hits" or event["link_type"] == "redirection"}
        hours[day, grain, min(event["at"] for event in events).hour].update(kinds)
    by_hour = defaultdict(list)
    for (day, grain, hour), counts in hours.items():
        of_day = day_rows[day, grain]
        usable = of_day["status"] != "incomplete" and of_day["delivered"]
        delivered = max(counts["activations"] - counts["bounces"], 0) if usable else None
        row = {"status": of_day["status"], "delivered": delivered, "hit_activations": counts["hits"]}
        by_hour[day.isoweekday(), hour].append(row)
    shown = {"delivered": "whole", "hit_rate": "value", "low": "low", "high": "high", "provisional": "provisional"}
    expected = [
        {"weekday": weekday, "hour": hour, **compute_hit_rate(rows).list_columns(**shown)}
        for (weekday, hour), rows in sorted(by_hour.items())
    ]
    assert len(expected) > 50
    assert_rows_equal(run_query(database, "send_times"), expected)


def test_bounce_reasons(account: Account, database: duckdb.DuckDBPyConnection) -> None:
    rank = {"hard": 0, "soft": 1}
    reasons: Counter[tuple[str, str]] = Counter()
    for events in group_sends(account).values():
        bounces = [
            (rank.get(event["bounce_verdict"], 2), event["event_time"], event["event_id"], event)
            for event in events
            if event["kind"] == "bounces"
        ]
        if bounces:
            *_, worst = min(bounces, key=lambda bounce: bounce[:3])
            reasons[worst["bounce_verdict"] or "not given", worst["bounce_reason"] or "not given"] += 1
    expected = [
        {"verdict": verdict, "reason": reason, "sends": count, "share": count / reasons.total()}
        for (verdict, reason), count in reasons.items()
    ]
    assert len(expected) > 2
    order = sorted(expected, key=lambda row: (-row["sends"], row["verdict"], row["reason"]))
    assert_rows_equal(run_query(database, "bounce_reasons"), order)


# --- the command ----------------------------------------------------------------------------------------------------


def test_every_ready_query_has_a_test() -> None:
    assert {f"test_{name}" for name in QUERIES} <= set(globals())


def test_command_prints_csv_of_a_query_by_name_by_file_and_as_text(
    account: Account, database: duckdb.DuckDBPyConnection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.sql"
    file.write_text("CREATE TEMP TABLE mine AS FROM cohorts; SELECT count(*) AS rows, NULL AS nothing FROM mine")
    printed = []
    for query in ("funnel", str(file), "SELECT 'a,b' AS text, 0.123456789 :: DOUBLE AS number"):
        command.run(account.build_settings(), query, as_csv=True)
        printed.append(list(csv.reader(io.StringIO(capsys.readouterr().out))))
    names, *rows = printed[0]
    expected = run_query(database, "funnel")
    assert names == list(expected[0])
    assert rows == [["" if value is None else str(value) for value in row.values()] for row in expected]
    assert printed[1][-2:] == [["rows", "nothing"], [str(len(account.rates)), ""]]
    assert printed[2] == [["text", "number"], ["a,b", "0.123456789"]]


def test_command_prints_a_table_with_rates_rounded(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    command.run(
        account.build_settings(), 'SELECT \'Cart\' AS name, rate(hit_rate) AS "hit ""rate" FROM cohorts', as_csv=False
    )
    printed = capsys.readouterr().out
    assert f" {compute_hit_rate(account.rates).value:.4f}".rstrip("0") in printed
    assert 'hit "rate' in printed


def test_command_reports_an_error_in_one_line(account: Account) -> None:
    for query, message in (
        ("fnnel", "there is no query 'fnnel'; there are applications, bounce_reasons, funnel,"),
        ("SELECT rate(hit_rat) FROM cohorts", 'Referenced column "hit_rat" not found'),
        ("SELECT FROM WHERE", "Parser Error"),
    ):
        with pytest.raises(command.QueryError) as raised:
            command.run(account.build_settings(), query, as_csv=False)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)


def test_session_runs_what_is_typed(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(
        ["SELECT 'on one' AS line;", "SELECT 'on'", "|| ' two' AS lines;", "SELECT nothing FROM cohorts;", "funnel"]
    )

    def type_line(prompt: str = "") -> str:
        line = next(typed, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", type_line)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    command.run(account.build_settings(), None, as_csv=False)
    printed = capsys.readouterr().out
    assert "on one" in printed
    assert "on two" in printed
    assert 'Referenced column "nothing" not found' in printed
    assert "delivery_rate" in printed


def test_written_file_has_the_views_and_reads_later_days(
    account: Account, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "it's [data]*"
    for asset in ("reactivity_rates", "notifications", "bounces"):
        shutil.copytree(account.root / asset, data / asset)
    settings = Settings.from_environment({"NP6_DATA_DIR": str(data), "NP6_TIMEZONE": TZ})
    last = data / "reactivity_rates" / f"activation_date={COHORTS[-1]}"
    last.rename(tmp_path / "later")
    file = tmp_path / "np6.duckdb"
    command.write(settings, file)
    assert "empty until it is written again: hits, optouts, impressions, activations" in capsys.readouterr().out
    with duckdb.connect(file, read_only=True) as database:
        query = "SELECT max(activation_date), rate(bounce_rate) FROM cohorts"
        assert database.execute(query).fetchone()[0] == COHORTS[-2]
        (tmp_path / "later").rename(last)
        assert database.execute(query).fetchone() == (COHORTS[-1], compute_bounce_rate(account.rates).value)
        assert database.execute("SELECT count(*) FROM hits").fetchone() == (0,)
    with pytest.raises(FileExistsError, match=r"np6\.duckdb is there already"):
        command.write(settings, file)


def test_rates_of_version_0_1_get_a_status_from_is_final(account: Account, tmp_path: Path) -> None:
    """One day is stored without a status, and no other asset is stored."""
    for cohort in (COHORTS[0], COHORTS[-1]):
        old = pq.read_table(account.root / "reactivity_rates" / f"activation_date={cohort}" / "part-0.parquet")
        folder = tmp_path / "reactivity_rates" / f"activation_date={cohort}"
        folder.mkdir(parents=True)
        pq.write_table(old.drop_columns("status") if cohort == COHORTS[0] else old, folder / "part-0.parquet")
    with open_views(Settings.from_environment({"NP6_DATA_DIR": str(tmp_path)})) as database:
        query = "SELECT DISTINCT activation_date, status FROM cohorts ORDER BY ALL"
        assert database.execute(query).fetchall() == [(COHORTS[0], "final"), (COHORTS[-1], "open")]


def test_views_read_a_remote_folder(account: Account, database: duckdb.DuckDBPyConnection) -> None:
    folder = Folder("memory://queries")
    for file in account.root.rglob("*.parquet"):
        with folder.replace(str(file.relative_to(account.root))) as stored:
            stored.write(file.read_bytes())
    settings = Settings.from_environment({"NP6_DATA_DIR": "memory://queries", "NP6_TIMEZONE": TZ})
    with open_views(settings) as remote:
        assert run_query(remote, "send_times") == run_query(database, "send_times")
