"""Fetch a stored day again: no stored event is lost, and stored rows are filtered and treated like new ones."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets.contact.tombstones import Tombstones
from np6_assets.storage.files import Folder
from np6_assets_tests.events.decoding import DAY as BOUNDS
from np6_assets_tests.events.decoding import HOUR, NOON, build_hit, build_hits_table
from np6_assets_tests.support.builders import Event, render
from np6_assets_tests.support.deployment import TOMBSTONE_KEY, Deployment, read_files
from np6_assets_tests.support.events import Population
from np6_assets_tests.support.oracle import compute_event_key, expect_rows, list_columns
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import build_table
from np6_assets_tests.support.variants import BadEvent

D = date(2026, 3, 20)
CLOSED = datetime(2026, 3, 25, tzinfo=UTC)
ADDRESS = "gone@example.com"


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Account:
    """A data folder and its account, at the time `now`."""

    def __init__(self, data: Path, server: RudeServer, instance: dg.DagsterInstance) -> None:
        self.data = data
        self.now = CLOSED
        self.build_deployment = cache(partial(Deployment, data, server, instance, lambda: self.now))
        self._server = server
        self.instance = instance

    def fetch(self, hits: Iterable[Event] = (), rejected: Iterable[Any] = (), **environment: str) -> Deployment:
        """Fetch the day from an API with these events; rejected ones may be bytes."""
        bad_events = [
            BadEvent("", "hits", NOON, 156, None, one)
            if isinstance(one, bytes)
            else BadEvent("", "hits", NOON, 156, one)
            for one in rejected
        ]
        self._server.serve(Population(hits=list(hits), bad_events=bad_events))
        deployment = self.build_deployment(**environment)
        deployment.materialize("hits", D)
        return deployment

    def erase(self, *values: str) -> None:
        folder = Folder(str(self.data))
        Tombstones.read(folder, TOMBSTONE_KEY).add_values(values).write(folder)


@pytest.fixture
def account(tmp_path: Path, server: RudeServer, instance: dg.DagsterInstance) -> Account:
    return Account(tmp_path / "data", server, instance)


def read_ids(deployment: Deployment) -> list[str]:
    return [row["event_id"] for row in deployment.rows("hits", D)]


def read_quarantine(deployment: Deployment) -> dict[str, str]:
    """Read the rejected events of the day by key."""
    rows = deployment.quarantine("hits", D)
    assert len({row["event_key"] for row in rows}) == len(rows) == deployment.metadata("hits", D)["quarantined"]
    return {row["event_key"]: row["event"] for row in rows}


def test_store_keeps_events_that_the_answer_lacks(account: Account):
    events = [build_hit(f"{number:04}", NOON + number) for number in range(30)]
    account.fetch(events)
    before = read_files(account.data)
    for missing, warns in ((30, True), (11, True), (10, False)):
        deployment = account.fetch(events[missing:])
        assert read_files(account.data) == before
        metadata = deployment.metadata("hits", D)
        assert (metadata["events_kept"], metadata["events_received"]) == (missing, 30 - missing)
        evaluation = deployment.check("hits", D)["events_as_expected", f"{D}"]
        assert evaluation.passed is not warns
        assert not warns or evaluation.metadata["events_kept"].value == missing


def test_kept_events_are_counted_only_within_the_window(account: Account):
    account.now = datetime.fromtimestamp(NOON / 1000, UTC)  # the lookback is an hour
    events = [build_hit(number, NOON - (3 - number) * HOUR) for number in range(3)]
    account.fetch(events)
    account.now += timedelta(hours=1)
    deployment = account.fetch([build_hit("new", NOON + 1)])
    assert read_ids(deployment) == ["0", "1", "2", "new"]
    assert deployment.metadata("hits", D)["events_kept"] == 1


def test_store_keeps_one_row_of_an_id_at_two_times(account: Account):
    account.fetch([build_hit("same", NOON - 9), build_hit("later"), build_hit("earlier"), build_hit("both")])
    fetched = [
        build_hit("same", NOON - 9, link_label="changed"),
        build_hit("later", NOON + 5),
        build_hit("earlier", NOON - 5),
        *(build_hit("both", NOON + more) for more in (9, 7, 8)),
        *(build_hit("new", NOON + more) for more in (3, 2, 12 * HOUR)),
    ]
    for _ in range(2):
        deployment = account.fetch(fetched)
        found = [(row["event_id"], row["event_time"] - NOON) for row in deployment.rows("hits", D)]
        assert found == [("same", -9), ("earlier", -5), ("new", 2), ("later", 5), ("both", 7)]
        assert deployment.rows("hits", D)[0]["link_label"] == "changed"
        metadata = deployment.metadata("hits", D)
        assert (metadata["dagster/partition_row_count"], metadata["events_kept"]) == (5, 0)


def test_store_loses_events_of_erased_receivers(account: Account):
    events = [
        build_hit("dropped", unicity=ADDRESS, receiver_id=None),  # stored without any field of its receiver
        build_hit("named", receiver_id="000ERASED"),
        build_hit("named, forgotten by the API", receiver_id="000ERASED"),
        build_hit("other", receiver_id="000OTHER"),
    ]
    rejected = [build_hit(f"{n}", agency=[], receiver_id="000ERASED") for n in range(2)] + [build_hit("y", agency=[])]
    account.fetch(events, rejected)
    account.erase(ADDRESS, "000ERASED")
    deployment = account.fetch([one for one in events if "forgotten" not in one["id"]], rejected[:1])
    assert read_ids(deployment) == ["other"]
    assert deployment.metadata("hits", D)["events_kept"] == 0
    assert read_quarantine(deployment).keys() == {"y"}
    account.erase("000OTHER")
    assert read_ids(account.fetch()) == []  # an empty day, not a missing one


def test_quarantine_loses_an_event_whose_id_is_accepted(account: Account):
    deployment = account.fetch(
        [build_hit("good")], [build_hit("x", agency=[]), build_hit("y", agency=[]), {"a": 1}, b"nonsense"]
    )
    keys = {"x", "y", compute_event_key(b'{"a":1}'), compute_event_key(b"nonsense")}
    assert read_quarantine(deployment).keys() == keys
    # events stay, whether the API sends them again or not, and are stored once
    deployment = account.fetch([build_hit("good")], [build_hit("y", agency=[]), b"nonsense"])
    assert read_quarantine(deployment).keys() == keys
    deployment = account.fetch([build_hit("good"), build_hit("x")], [{"a": 1}])
    assert read_quarantine(deployment).keys() == keys - {"x"}
    assert read_ids(deployment) == ["good", "x"]


def test_store_keeps_a_row_whose_new_version_is_rejected(account: Account):
    good = account.fetch([build_hit("x"), build_hit("y")]).rows("hits", D)
    deployment = account.fetch([build_hit("y")], [build_hit("x", agency={"a": 1})])
    assert deployment.rows("hits", D) == good
    assert json.loads(read_quarantine(deployment)["x"])["identity"]["agency"] == {"a": 1}
    deployment = account.fetch([build_hit("x"), build_hit("y")])
    assert deployment.rows("hits", D) == good
    assert read_quarantine(deployment) == {}
    assert not deployment.path("quarantine/hits", D).exists()


def test_quarantine_is_treated_for_a_changed_policy(account: Account):
    text = f"not json {ADDRESS}"
    key = compute_event_key(text.encode())
    account.fetch([], [build_hit("x", agency=[]), text.encode()], NP6_CONTACT_DATA="keep")
    for mode, unicity, kept in (("keep", "someone@example.com", text), ("drop", None, None)):
        found = read_quarantine(account.fetch(NP6_CONTACT_DATA=mode))
        assert json.loads(found["x"])["source"]["detail"]["activation"]["receiver"]["value"]["unicity"] == unicity
        assert found[key] == kept


def write_day(account: Account, table: pa.Table, metadata: dict[str, str] | None = None, **options: Any) -> None:
    path = account.data / "hits" / f"event_date={D}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)
    account.instance.wipe_assets([dg.AssetKey("hits")])  # Dagster has no record of the day


def write_quarantine(account: Account, *texts: str) -> None:
    path = account.data / "quarantine" / "hits" / f"event_date={D}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"reason": ["the id is missing"] * len(texts), "event": list(texts)}), path)


def test_store_reads_files_of_version_0_1(account: Account):
    made_with = {"np6.fetched_until": "2026-03-20T12:00:00+00:00", "np6.made_with": "UTC drop", "np6.content": "x"}
    write_day(account, build_hits_table(["old"], [NOON - 5 * HOUR]), made_with)
    texts = [*(render(build_hit(id_, agency=[], unicity=None, hash=None)) for id_ in "xy"), '{"a":1}', "[2]"]
    write_quarantine(account, *texts)
    evaluation = account.build_deployment().check("hits", D)["events_as_expected", f"{D}"]
    assert not evaluation.passed  # free text stored by version 0.1 may hold contact data
    assert "may hold contact data (launch treat_contact_data): 2026-03-20" in evaluation.description
    deployment = account.fetch([build_hit("y"), build_hit("new")], [{"a": 1}, [3]])
    assert read_ids(deployment) == ["old", "new", "y"]
    assert deployment.metadata("hits", D)["fetched_from"] == (NOON - HOUR) / 1000
    assert set(read_quarantine(deployment).values()) == {texts[0], '{"a":1}', "[2]", "[3]"}
    assert "contact data" not in deployment.check("hits", D)["events_as_expected", f"{D}"].description


def test_quarantine_keeps_events_of_version_0_1_without_an_id(account: Account):
    write_quarantine(account, "null", "null")  # two events of which `drop` stored nothing
    assert len(account.fetch().quarantine("hits", D)) == 2


def test_store_sorts_a_file_of_another_program(account: Account):
    events = [build_hit(f"{number}", NOON + number * 7919 % 400) for number in range(400)]
    rows = sorted(expect_rows("hits", events, *BOUNDS), key=lambda row: row["event_id"])
    table = build_table([*rows, *rows[:10]], list_columns("hits"))
    write_day(account, table, row_group_size=90, write_statistics=False)
    found = account.build_deployment(NP6_CONTACT_DATA="keep").check("hits", D)["events_as_expected", f"{D}"]
    assert "unknown" in str(found.description)
    deployment = account.fetch([*events[300:], build_hit("new", NOON - 1)])
    assert deployment.rows("hits", D) == expect_rows("hits", [*events, build_hit("new", NOON - 1)], *BOUNDS)
    assert deployment.metadata("hits", D)["events_kept"] == 300
