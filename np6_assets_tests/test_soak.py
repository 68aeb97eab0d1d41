"""The endurance suite finds what is lost, deals every fault, and says so."""

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

from np6_assets_tests.support.deployment import Deployment, days
from np6_assets_tests.support.events import KINDS, Population, population
from np6_assets_tests.support.rude_server import RudeServer
from soak import compare, report
from soak.faults import FAULTS, Deck
from soak.round import Outcome

TIMEZONE, WINDOW_DAYS = "Europe/Paris", 1
FIRST = date(2026, 3, 29)
LAST = FIRST + timedelta(days=1)
HITS = f"hits/event_date={FIRST}/part-0.parquet"
RATES = f"reactivity_rates/activation_date={FIRST}/part-0.parquet"


@pytest.fixture(scope="module")
def made() -> Population:
    return population(51, FIRST, 2, TIMEZONE, misfit_days=[FIRST])


@pytest.fixture(scope="module")
def clean(made: Population, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("clean") / "data"
    with RudeServer(made) as server, dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(
            data, server, instance, NP6_TIMEZONE=TIMEZONE, NP6_WINDOW_DAYS=f"{WINDOW_DAYS}", NP6_CONTACT_DATA="keep"
        )
        deployment.materialize(list(KINDS), FIRST, LAST)
        deployment.materialize("reactivity_rates", FIRST, LAST)
    return data


@pytest.fixture
def shaken(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data"))


def test_nothing_is_lost_where_all_is_the_same(clean: Path, shaken: Path) -> None:
    (shaken / "hits" / ".part-0.parquet.0.tmp").touch()  # a killed upload, over which readers pass
    assert compare.differing(shaken, clean) == []
    assert compare.hidden(shaken) == 1


def test_a_file_that_differs_is_missing_or_too_many_is_lost(clean: Path, shaken: Path) -> None:
    (shaken / RATES).write_bytes((shaken / RATES).read_bytes() + b" ")
    (shaken / HITS).rename(shaken / "hits" / "part-1.parquet")
    assert compare.differing(shaken, clean) == [
        f"{HITS} is missing",
        "hits/part-1.parquet should not be there",
        f"{RATES} differs",
    ]


@pytest.mark.parametrize(
    ("file", "change", "told"),
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
def test_rows_that_the_events_do_not_give_are_lost(
    file: str, change: Callable[[pa.Table], pa.Table], told: str, made: Population, shaken: Path
) -> None:
    wanted = made, days(FIRST, LAST), TIMEZONE, WINDOW_DAYS
    # contact data is not what is compared: the rounds drop it
    for one in shaken.glob("*/event_date=*/*.parquet"):
        table = pq.read_table(one, partitioning=None)
        for name in ("receiver_unicity", "receiver_hash"):
            table = table.set_column(table.column_names.index(name), name, pa.nulls(table.num_rows, pa.string()))
        pq.write_table(table, one)
    assert compare.wrong(shaken, *wanted) == []
    pq.write_table(change(pq.read_table(shaken / file, partitioning=None)), shaken / file)
    assert compare.wrong(shaken, *wanted) == [told]


def test_a_spool_that_is_left_and_a_secret_in_a_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "tmp" / "np6-spool").mkdir(parents=True)
    (tmp_path / "log").write_bytes(b"X-Key: a-key-of-the-soak\n")
    assert compare.left_over(tmp_path / "tmp") == ["np6-spool is left in the temporary folder"]
    assert compare.leaked([tmp_path], {"the key": b"a-key-of-the-soak", "an address": b"@example.com"}) == [
        "the key stands in log"
    ]


def test_addresses_that_are_kept_are_found(clean: Path) -> None:
    found = compare.leaked([clean / "hits"], {"an address": b"@example.com", "nobody": b"@example.org"})
    assert found == ["an address stands in part-0.parquet"] * 2  # though it is compressed there


def test_every_fault_is_dealt_before_any_comes_again() -> None:
    deck = Deck(random.Random(3))
    for _ in range(2):
        assert Counter(deck.deal() for _ in FAULTS) == Counter(FAULTS)


def test_the_report_counts_what_was_survived_and_names_what_was_lost() -> None:
    clock = datetime(2026, 3, 29, 1, tzinfo=UTC)
    good = Outcome(1, 11, clock, on_full_disk=False, faults=Counter({"500": 2}), kills=1)
    bad = Outcome(2, 22, clock, on_full_disk=True, faults=Counter({"500": 1}), refusals=3, lost=[f"{HITS} differs"])
    text = report.markdown([good, bad], seed=5)
    assert "**Lost: 1.**" in text
    assert f"- round 2, seed 22: {HITS} differs" in text
    assert "| 500 | 3 | 2 | 1 |" in text
    assert "| killed (SIGKILL) | 1 | 1 | 0 |" in text
    assert "| full disk | 3 | 0 | 3 |" in text
