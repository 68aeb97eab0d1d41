"""Test that the endurance suite finds every loss and injects every fault."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets_tests.support.deployment import Deployment, list_days
from np6_assets_tests.support.events import DAY_MS, HOUR_MS, KINDS, Population, build_population
from np6_assets_tests.support.oracle import compute_day_bounds, read_activation_id
from np6_assets_tests.support.rude_server import Act, Request, RudeServer
from soak import compare, month_server
from soak.faults import FAULTS, Deck, find_unlisted_ids
from soak.month import TRAILING_DAYS
from soak.month_server import MonthServer, Outage, Renaming
from soak.report import build_report
from soak.round import Outcome

# for changes of the endurance suite alone
pytestmark = pytest.mark.slow

TIMEZONE, WINDOW_DAYS = "Europe/Paris", 1
FIRST = date(2026, 3, 29)
LAST = FIRST + timedelta(days=1)
HITS = f"hits/event_date={FIRST}/part-0.parquet"
RATES = f"reactivity_rates/activation_date={FIRST}/part-0.parquet"


@pytest.fixture(scope="module")
def population() -> Population:
    return build_population(51, FIRST, 2, TIMEZONE, bad_event_days=[FIRST])


@pytest.fixture(scope="module")
def clean(population: Population, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("clean") / "data"
    with RudeServer(population) as server, dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(
            data, server, instance, NP6_TIMEZONE=TIMEZONE, NP6_WINDOW_DAYS=f"{WINDOW_DAYS}", NP6_CONTACT_DATA="keep"
        )
        deployment.materialize(list(KINDS), FIRST, LAST)
        deployment.materialize("reactivity_rates", FIRST, LAST)
    return data


@pytest.fixture
def copy(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data"))


def test_compare_finds_nothing_in_equal_folders(clean: Path, copy: Path) -> None:
    (copy / "hits" / ".part-0.parquet.0.tmp").touch()  # a killed upload, which no reader opens
    assert compare.find_different_files(copy, clean) == []


def test_compare_finds_files_that_differ(clean: Path, copy: Path) -> None:
    (copy / RATES).write_bytes((copy / RATES).read_bytes() + b" ")
    (copy / HITS).rename(copy / "hits" / "part-1.parquet")
    assert compare.find_different_files(copy, clean) == [
        f"{HITS} is missing",
        "hits/part-1.parquet should not exist",
        f"{RATES} differs",
    ]


@pytest.mark.parametrize(
    ("file", "change", "loss"),
    [
        (HITS, lambda table: table.slice(1), f"hits of {FIRST} are not the events that were published"),
        (RATES, lambda table: table.slice(1), f"rates of {FIRST} are not those of the events"),
        (
            RATES,
            lambda table: table.set_column(
                table.column_names.index("hits"), "hits", pa.array([7_777] * table.num_rows, pa.int64())
            ),
            f"rates of {FIRST} are not those of the events",
        ),
    ],
)
def test_compare_finds_wrong_rows(
    file: str, change: Callable[[pa.Table], pa.Table], loss: str, population: Population, copy: Path
) -> None:
    wanted = population, list_days(FIRST, LAST), TIMEZONE, WINDOW_DAYS
    # the rounds drop contact data
    for one in copy.glob("*/event_date=*/*.parquet"):
        table = pq.read_table(one, partitioning=None)
        for name in ("receiver_unicity", "receiver_hash"):
            table = table.set_column(table.column_names.index(name), name, pa.nulls(table.num_rows, pa.string()))
        pq.write_table(table, one)
    assert compare.find_wrong_rows(copy, *wanted) == []
    pq.write_table(change(pq.read_table(copy / file, partitioning=None)), copy / file)
    assert compare.find_wrong_rows(copy, *wanted) == [loss]


def test_compare_finds_leftover_files_and_secrets(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp" / "np6-spool").mkdir(parents=True)
    (tmp_path / "log").write_bytes(b"X-Key: a-key-of-the-soak\n")
    assert compare.find_leftover_files(tmp_path / "tmp") == ["np6-spool is left in the temporary folder"]
    assert compare.find_leaks([tmp_path], {"the key": b"a-key-of-the-soak", "an address": b"@example.com"}) == [
        "the key is in log"
    ]
    found = compare.find_leaks([clean / "hits"], {"an address": b"@example.com", "nobody": b"@example.org"})
    assert found == ["an address is in part-0.parquet"] * 2  # though it is compressed there


def test_deck_deals_every_fault_before_any_twice() -> None:
    deck = Deck(random.Random(3))
    for _ in range(2):
        assert Counter(deck.deal() for _ in FAULTS) == Counter(FAULTS)


def test_compare_finds_open_and_incomplete_days(clean: Path, copy: Path) -> None:
    assert compare.find_open_days(clean, list_days(FIRST, LAST), TIMEZONE) == []
    file = copy / HITS
    table = pq.read_table(file, partitioning=None)
    metadata = {b"np6.fetched_until": b"2026-03-29T12:00:00+00:00", b"np6.missing_ids": b"[7]"}
    pq.write_table(table.replace_schema_metadata(metadata), file)
    (copy / f"bounces/event_date={LAST}/part-0.parquet").unlink()
    assert compare.find_open_days(copy, list_days(FIRST, LAST), TIMEZONE) == [
        f"hits of {FIRST} is not closed",
        f"hits of {FIRST} misses [7]",
        f"bounces of {LAST} is missing",
    ]


def test_compare_finds_wrong_names_and_agencies(population: Population, copy: Path) -> None:
    pq.write_table(pa.table({"activation_id": [1, 2], "name": ["One", None]}), copy / "names.parquet")
    (copy / "notifications").mkdir()
    (copy / "names.parquet").rename(copy / "notifications" / "part-0.parquet")
    assert compare.find_wrong_names(copy, {1: "One", 2: None}) == []
    losses = [
        "notification 1: stored is One, expected Two",
        "notification 2: stored is None, expected nothing",
        "notification 3: stored is nothing, expected Three",
    ]
    assert compare.find_wrong_names(copy, {1: "Two", 3: "Three"}) == losses
    assert compare.find_wrong_identity(copy, population, list_days(FIRST, LAST), TIMEZONE) == []
    (copy / "np6.json").write_text('{"agencies": {"OTHER": ["028"]}}')
    assert len(compare.find_wrong_identity(copy, population, list_days(FIRST, LAST), TIMEZONE)) == 1


def test_every_day_of_a_month_has_a_night_without_faults() -> None:
    start, night = 1_000 * DAY_MS, 4 * HOUR_MS
    for seed in range(20):
        drawn = month_server.draw_outages(random.Random(seed), [7], start, start + 30 * DAY_MS)
        broken = [one for one in drawn if one.fault not in (month_server.FORGETS, *month_server.DATES)]
        assert {one.fault for one in drawn} & {month_server.OTHER_ACCOUNT}
        for feed in KINDS:
            of_feed = [one for one in broken if one.subject in (feed, "account", "notifications", "hits")]
            of_feed += [one for one in broken if one.subject == "7" and feed == "activations"]
            for day in range(30):
                nights = [start + (day + ahead) * DAY_MS + night for ahead in range(1, TRAILING_DAYS + 2)]
                assert any(all(not one.start <= at < one.end for one in of_feed) for at in nights)


def test_server_misbehaves_during_an_outage(population: Population) -> None:
    now = compute_day_bounds(LAST, TIMEZONE)[1]
    path, id_ = "/notifications/reactivities/hits", population.notifications[0]["id"]
    request = Request(0, path, {"reactivityStart": "0"}, {}, 0.0, 1, "")

    def build_server(what: str, subject: str, amount: int = 0) -> MonthServer:
        server = MonthServer(
            population, [Outage(what, subject, now, now + 1, amount)], [Renaming(now - 1, id_, "New")], 1, "key"
        )
        server.until_ms = now
        return server

    well = build_server("hidden from the list", str(id_))
    assert b"New" not in b"".join(well.list_notifications(Request(0, "/notifications", {}, {}, 0.0, 1, "")))
    events = well.select_items(request)
    forgotten = build_server(month_server.FORGETS, "account", 1).select_items(request)
    assert {one.body for one in forgotten} == {one.body for one in events if one.ms >= now - DAY_MS}
    assert 0 < len(forgotten) < len(events)
    assert build_server("blank 200", "hits").select_items(request) == []
    assert build_server("hidden 403", "hits").choose_act(request) == Act("403")
    others = build_server(month_server.OTHER_ACCOUNT, "account").select_items(request)
    assert len(others) == month_server.FOREIGN_EVENTS
    assert all(b"OTHER" in one.body for one in others)
    ahead = build_server("Date ahead", "clock", 2)
    assert ahead.get_date() == datetime.fromtimestamp(now / 1000, UTC) + timedelta(hours=2)
    assert build_server("no Date", "clock").get_date() is None
    ahead.until_ms += 1
    assert ahead.get_date() == datetime.fromtimestamp(now / 1000, UTC) + timedelta(milliseconds=1)
    assert b"New" in b"".join(ahead.list_notifications(request))


def test_unlisted_notification_is_found(population: Population) -> None:
    [deleted] = find_unlisted_ids(population)
    assert deleted not in {entry["id"] for entry in population.notifications}
    assert any(read_activation_id(one) == deleted for one in population.hits)


def test_report_counts_faults_and_names_losses() -> None:
    clock = datetime(2026, 3, 29, 1, tzinfo=UTC)
    good = Outcome(1, 11, clock, limited_disk=False, faults=Counter({"500": 2}), kills=1)
    bad = Outcome(2, 22, clock, limited_disk=True, faults=Counter({"500": 1}), full_disks=3, losses=[f"{HITS} differs"])
    text = build_report([good, bad], seed=5)
    assert "**Lost: 1.**" in text
    assert f"- round 2, seed 22: {HITS} differs" in text
    assert "| 500 | 3 | 2 | 1 |" in text
    assert "| killed (SIGKILL) | 1 | 1 | 0 |" in text
    assert "| full disk | 3 | 0 | 3 |" in text
