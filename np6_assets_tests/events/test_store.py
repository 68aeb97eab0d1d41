"""A day that is stored and fetched again: nothing stored is lost, and what is stored passes what new rows pass."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets.contact.policy import ContactPolicy
from np6_assets.contact.tombstones import Tombstones
from np6_assets.storage.files import Folder
from np6_assets_tests.events.decoding import DAY as BOUNDS
from np6_assets_tests.events.decoding import HOUR, NOON, hit, hits_table
from np6_assets_tests.support.builders import Event, render
from np6_assets_tests.support.deployment import TOMBSTONE_KEY, Deployment, read_files
from np6_assets_tests.support.events import Population, build_population
from np6_assets_tests.support.oracle import compute_event_key, expect_rows, list_columns, read_event_time
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import build_table
from np6_assets_tests.support.variants import Misfit

D = date(2026, 3, 20)
CLOSED = datetime(2026, 3, 25, tzinfo=UTC)
KEYS = {letter: letter * 32 for letter in "ab"}
ADDRESS = "gone@example.com"
FULL = {"ops": {"hits": {"config": {"full_refresh": True}}}}


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


class Account:
    """A data folder, and the account that feeds it."""

    def __init__(self, data: Path, server: RudeServer, instance: dg.DagsterInstance) -> None:
        self.data = data
        self.now = CLOSED
        self._server = server
        self.instance = instance

    def deployment(self, **environment: str) -> Deployment:
        return Deployment(self.data, self._server, self.instance, lambda: self.now, **environment)

    def fetch(self, hits: Iterable[Event] = (), rejected: Iterable[Any] = (), **environment: str) -> Deployment:
        """Fetch the day while the API has these events; rejected ones may be bytes."""
        misfits = [
            Misfit("", "hits", NOON, 156, None, one) if isinstance(one, bytes) else Misfit("", "hits", NOON, 156, one)
            for one in rejected
        ]
        self._server.serve(Population(hits=list(hits), misfits=misfits))
        made = self.deployment(**environment)
        made.materialize("hits", D)
        return made

    def erase(self, *values: str) -> None:
        folder = Folder(str(self.data))
        Tombstones.read(folder, TOMBSTONE_KEY).add_values(values).write(folder)


@pytest.fixture
def account(tmp_path: Path, server: RudeServer, instance: dg.DagsterInstance) -> Account:
    return Account(tmp_path / "data", server, instance)


def ids(made: Deployment) -> list[str]:
    return [row["event_id"] for row in made.rows("hits", D)]


def quarantined(made: Deployment) -> dict[str, str]:
    """Event by key."""
    rows = made.quarantine("hits", D)
    assert len({row["event_key"] for row in rows}) == len(rows) == made.metadata("hits", D)["quarantined"]
    return {row["event_key"]: row["event"] for row in rows}


@pytest.mark.parametrize(("missing", "warns"), [(30, True), (11, True), (10, False)])
def test_stored_events_stay_if_the_answer_lacks_them(account: Account, missing: int, warns: bool):
    events = [hit(f"{number:04}", NOON + number) for number in range(30)]
    account.fetch(events)
    before = read_files(account.data)
    made = account.fetch(events[missing:])
    assert read_files(account.data) == before
    metadata = made.metadata("hits", D)
    assert (metadata["events_kept"], metadata["events_received"]) == (missing, 30 - missing)
    evaluation = made.check("hits", D)["events_as_expected", f"{D}"]
    assert evaluation.passed is not warns
    assert not warns or evaluation.metadata["events_kept"].value == missing


def test_kept_events_are_counted_only_within_the_window(account: Account):
    account.now = datetime.fromtimestamp(NOON / 1000, UTC)  # the lookback is an hour
    events = [hit(number, NOON - (3 - number) * HOUR) for number in range(3)]
    account.fetch(events)
    account.now += timedelta(hours=1)
    made = account.fetch([hit("new", NOON + 1)])
    assert ids(made) == ["0", "1", "2", "new"]
    assert made.metadata("hits", D)["events_kept"] == 1


def test_id_at_two_times_is_stored_once(account: Account):
    account.fetch([hit("same", NOON - 9), hit("later"), hit("earlier"), hit("both")])
    fetched = [
        hit("same", NOON - 9, link_label="changed"),
        hit("later", NOON + 5),
        hit("earlier", NOON - 5),
        *(hit("both", NOON + more) for more in (9, 7, 8)),
        *(hit("new", NOON + more) for more in (3, 2, 12 * HOUR)),
    ]
    for _ in range(2):
        made = account.fetch(fetched)
        found = [(row["event_id"], row["event_time"] - NOON) for row in made.rows("hits", D)]
        assert found == [("same", -9), ("earlier", -5), ("new", 2), ("later", 5), ("both", 7)]
        assert made.rows("hits", D)[0]["link_label"] == "changed"
        metadata = made.metadata("hits", D)
        assert (metadata["dagster/partition_row_count"], metadata["events_kept"]) == (5, 0)


def policy(mode: str) -> dict[str, str]:
    mode, _, key = mode.partition(" ")
    return {"NP6_CONTACT_DATA": mode} | ({"NP6_PSEUDONYM_KEY": KEYS[key]} if key else {})


def pseudonym(key: str) -> str:
    return ContactPolicy("pseudonymize", KEYS[key]).compute_pseudonym("someone@example.com")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("keep", "drop", None),
        ("keep", "pseudonymize a", pseudonym("a")),
        ("pseudonymize a", "pseudonymize b", None),
        ("drop", "keep", None),
    ],
)
def test_stored_row_passes_a_changed_policy(account: Account, before: str, after: str, expected: str | None):
    account.fetch([hit("x"), hit("y")], **policy(before))
    made = account.fetch([hit("y")], **policy(after))
    fresh = {"keep": "someone@example.com", "drop": None}
    found = {row["event_id"]: row["receiver_unicity"] for row in made.rows("hits", D)}
    assert found == {"x": expected, "y": fresh[after] if after in fresh else pseudonym(after[-1])}


def test_erased_event_removes_its_stored_row(account: Account):
    events = [
        hit("dropped", unicity=ADDRESS, receiver_id=None),  # stored without anything that names its receiver
        hit("named", receiver_id="000ERASED"),
        hit("named, forgotten by the API", receiver_id="000ERASED"),
        hit("other"),
    ]
    account.fetch(events)
    account.erase(ADDRESS, "000ERASED")
    made = account.fetch([one for one in events if "forgotten" not in one["id"]])
    assert ids(made) == ["other"]
    assert made.metadata("hits", D)["events_kept"] == 0


def test_erasure_of_all_receivers_of_a_day_leaves_it_empty(account: Account):
    account.fetch([hit("x", receiver_id="000ERASED")])
    account.erase("000ERASED")
    assert ids(account.fetch()) == []


def test_rejected_event_leaves_the_quarantine_once_its_id_is_accepted(account: Account):
    made = account.fetch([hit("good")], [hit("x", agency=[]), hit("y", agency=[]), {"a": 1}, b"nonsense"])
    keys = {"x", "y", compute_event_key(b'{"a":1}'), compute_event_key(b"nonsense")}
    assert quarantined(made).keys() == keys
    # one that the API does not send again stays, one that it sends again is there once
    made = account.fetch([hit("good")], [hit("y", agency=[]), b"nonsense"])
    assert quarantined(made).keys() == keys
    made = account.fetch([hit("good"), hit("x")], [{"a": 1}])
    assert quarantined(made).keys() == keys - {"x"}
    assert ids(made) == ["good", "x"]


def test_good_row_stays_when_a_bad_version_of_it_arrives(account: Account):
    good = account.fetch([hit("x"), hit("y")]).rows("hits", D)
    for agency in ([], {"a": 1}):
        made = account.fetch([hit("y")], [hit("x", agency=agency)])
        assert made.rows("hits", D) == good
        assert json.loads(quarantined(made)["x"])["identity"]["agency"] == agency
    made = account.fetch([hit("x"), hit("y")])
    assert made.rows("hits", D) == good
    assert quarantined(made) == {}
    assert not made.path("quarantine/hits", D).exists()


@pytest.mark.parametrize("is_sent_again", [True, False])
def test_rejected_event_of_an_erased_receiver_leaves_the_quarantine(account: Account, is_sent_again: bool):
    rejected = [hit("x", agency=[], receiver_id="000ERASED"), hit("y", agency=[])]
    account.fetch([], rejected)
    account.erase("000ERASED")
    assert quarantined(account.fetch([], rejected if is_sent_again else [])).keys() == {"y"}


@pytest.mark.parametrize("after", ["drop", "keep"])
def test_stored_quarantine_passes_a_changed_policy(account: Account, after: str):
    account.fetch([], [hit("x", agency=[]), b"not json " + ADDRESS.encode()], **policy("keep"))
    [one, other] = sorted(quarantined(account.fetch([], **policy(after))).items(), key=lambda item: item[0] != "x")
    unicity = json.loads(one[1])["source"]["detail"]["activation"]["receiver"]["value"]["unicity"]
    assert unicity == {"drop": None, "keep": "someone@example.com"}[after]
    assert other[1] == (f"not json {ADDRESS}" if after == "keep" else None)


def write_day(account: Account, table: pa.Table, metadata: dict[str, str] | None = None, **options: Any) -> None:
    path = account.data / "hits" / f"event_date={D}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)
    account.instance.wipe_assets([dg.AssetKey("hits")])  # Dagster knows nothing of the day


def write_quarantine(account: Account, *texts: str) -> None:
    path = account.data / "quarantine" / "hits" / f"event_date={D}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"reason": ["the id is missing"] * len(texts), "event": list(texts)}), path)


def test_files_of_version_0_1_are_read(account: Account):
    made_with = {"np6.fetched_until": "2026-03-20T12:00:00+00:00", "np6.made_with": "UTC drop", "np6.content": "x"}
    write_day(account, hits_table(["old"], [NOON - 5 * HOUR]), made_with)
    texts = [*(render(hit(id_, agency=[], unicity=None, hash=None)) for id_ in "xy"), '{"a":1}', "[2]"]
    write_quarantine(account, *texts)
    made = account.deployment()
    evaluation = made.check("hits", D)["events_as_expected", f"{D}"]
    assert not evaluation.passed  # what version 0.1 stored may hold contact data in free text
    assert "may hold contact data (launch treat_contact_data): 2026-03-20" in evaluation.description
    made = account.fetch([hit("y"), hit("new")], [{"a": 1}, [3]])
    assert ids(made) == ["old", "new", "y"]
    assert made.metadata("hits", D)["fetched_from"] == (NOON - HOUR) / 1000
    assert set(quarantined(made).values()) == {texts[0], '{"a":1}', "[2]", "[3]"}
    assert "contact data" not in made.check("hits", D)["events_as_expected", f"{D}"].description


def test_pseudonyms_in_a_quarantine_of_version_0_1_stay(account: Account):
    text = render(hit("x", agency=[], unicity=pseudonym("a"), hash=None))
    write_quarantine(account, text)
    fingerprint = ContactPolicy("pseudonymize", KEYS["a"]).fingerprint_of_0_1
    write_day(account, hits_table([], []), {"np6.made_with": f"UTC {fingerprint}"})
    assert quarantined(account.fetch(**policy("pseudonymize a"))) == {"x": text}


def test_events_of_version_0_1_without_an_id_stay_in_quarantine(account: Account):
    write_quarantine(account, "null", "null")  # what `drop` left of two texts in the place of events
    assert len(account.fetch().quarantine("hits", D)) == 2


@pytest.mark.parametrize("statistics", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_unsorted_file_of_another_program_is_merged_sorted(account: Account, statistics: bool):
    events = [hit(f"{number}", NOON + number * 7919 % 400) for number in range(400)]
    rows = sorted(expect_rows("hits", events, *BOUNDS), key=lambda row: row["event_id"])
    write_day(
        account, build_table([*rows, *rows[:10]], list_columns("hits")), row_group_size=90, write_statistics=statistics
    )
    found = account.deployment(NP6_CONTACT_DATA="keep").check("hits", D)["events_as_expected", f"{D}"]
    assert "unknown" in str(found.description)
    made = account.fetch([*events[300:], hit("new", NOON - 1)])
    assert made.rows("hits", D) == expect_rows("hits", [*events, hit("new", NOON - 1)], *BOUNDS)
    assert made.metadata("hits", D)["events_kept"] == 300


@pytest.mark.slow
def test_incremental_fetches_give_the_bytes_of_a_full_one(
    account: Account, tmp_path: Path, server: RudeServer, instance: dg.DagsterInstance
):
    made = build_population(7, D, 1, misfit_days=[D], sends_per_day=40, coerced_share=0.1)

    def there(until: int) -> Population:
        return Population(
            hits=[one for one in made.hits if (read_event_time(one) or 0) < until],
            misfits=[one for one in made.misfits if one.kind == "hits" and one.placed_ms < until],
        )

    one = account.deployment()
    for hours in (9, 10.5, 12.02, 26):
        account.now = datetime.fromtimestamp(BOUNDS[0] / 1000, UTC) + timedelta(hours=hours)
        server.serve(there(BOUNDS[0] + int(hours * HOUR)))
        server.date = lambda: account.now
        before = len(server.list_requests())
        one.materialize("hits", D)
        assert len(server.list_requests()) == before + 1
        fresh = Account(tmp_path / f"fresh {hours}", server, instance)
        fresh.now = account.now
        fresh.deployment().materialize("hits", D)
        assert read_files(account.data) == read_files(fresh.data)
    one.materialize("hits", D, run_config=FULL)
    assert read_files(account.data) == read_files(fresh.data)
    one.assert_holds(made, ["hits"], D, D)
