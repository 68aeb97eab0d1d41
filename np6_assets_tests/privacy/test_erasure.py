"""Erase a receiver everywhere and for ever, and keep all other events."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets.contact.policy import ContactPolicy
from np6_assets.storage import parquet
from np6_assets_tests.support.deployment import PSEUDONYM_KEY, TOMBSTONE_KEY, Deployment, read_files
from np6_assets_tests.support.events import KINDS, MISSING, BadEvent, Population, build_event, build_population
from np6_assets_tests.support.rude_server import RudeServer
from soak.compare import find_leaks

FIRST = date(2026, 3, 1)
LAST = date(2026, 3, 2)
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)

RECEIVER = "0CANARY0"
UNICITY = "canary.bird@example.com"
HASH = hashlib.md5(UNICITY.encode()).hexdigest()
SECRETS = {
    "the id": RECEIVER.encode(),
    "the unicity": UNICITY.encode(),
    "the unicity, encoded": quote(UNICITY).encode(),
    "the hash": HASH.encode(),
}
NAMES = {"id": RECEIVER, "unicity": UNICITY, "hash": HASH}


def to_event_time(day: date, hour: int) -> int:
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp() * 1000)


def add_contact_data(event: Any, kind: str) -> None:
    """Add the receiver's contact data to an event's free text, links and unknown fields."""
    detail = event["source"]["detail"]
    event["seen"] = {UNICITY: 1, "by": f"{UNICITY} {HASH}"}
    detail["activation"]["receiver"]["value"][HASH] = UNICITY
    if kind == "hits":
        detail["link"] |= {
            "label": f"Hello {UNICITY}",
            "uri": f"https://a.example/{HASH}?id=594&email={quote(UNICITY)}",
        }
    if kind == "bounces":
        detail["bounce"]["status"] = f"550 <{UNICITY}> unknown"
        detail["bounce"]["analysis"]["subject"] = {"type": UNICITY, "detail": {"type": f"no {HASH}"}}


def build_canary(sender: int) -> Population:
    """Build the receiver's events: on two days an accepted and a rejected one of each kind."""
    population = Population()
    receiver: dict[str, Any] = {"receiver_id": RECEIVER, "unicity": UNICITY, "hash": HASH}
    for kind, day in itertools.product(KINDS, (FIRST, LAST)):
        at = to_event_time(day, 9)
        accepted = build_event(kind, id=f"bird-{kind}-{day}", timestamp=at, activation_id=sender, **receiver)
        rejected = build_event(kind, id=f"odd-{kind}-{day}", timestamp=at + 1, activation_id=MISSING, **receiver)
        for one in (accepted, rejected):
            add_contact_data(one, kind)
        population.feed(kind).append(accepted)
        population.bad_events.append(BadEvent("no activation.id", kind, at + 1, sender, rejected))
    return population


def build_others() -> Population:
    return build_population(71, FIRST, 2, sends_per_day=4, bad_event_days=[LAST])


@pytest.fixture
def server() -> Iterator[RudeServer]:
    others = build_others()
    with RudeServer(others.merge(build_canary(others.notifications[0]["id"]))) as running:
        yield running


def build_deployment(server: RudeServer, instance: dg.DagsterInstance, data: Path, mode: str) -> Deployment:
    return Deployment(data, server, instance, lambda: NOW, NP6_CONTACT_DATA=mode, NP6_PSEUDONYM_KEY=PSEUDONYM_KEY)


def materialize_all(deployment: Deployment, kinds: Sequence[str] = tuple(KINDS)) -> None:
    """Materialize events; and rates, if these are events of all kinds."""
    deployment.materialize(kinds, FIRST, LAST)
    if len(kinds) == len(KINDS):
        deployment.materialize("reactivity_rates", FIRST, LAST)


def run_erasure(deployment: Deployment, tmp_path: Path, *named: str) -> dict[str, Any]:
    """Run the job with these names; return its receipt."""
    file = tmp_path / "named.txt"
    file.write_bytes("\n".join([*named, ""]).encode())
    try:
        return deployment.run_job("erase_receiver", erase={"file": str(file)})
    finally:
        file.unlink()


def read_days(data: Path) -> dict[str, Any]:
    """Read the files of events and rates, and the events of quarantines, whose order and style vary."""
    days: dict[str, Any] = {name: content for name, content in read_files(data).items() if "_date=" in name}
    for name in days:
        if name.startswith("quarantine/"):
            texts = pq.read_table(data / name, partitioning=None).column("event").to_pylist()
            days[name] = sorted(json.dumps(json.loads(text), sort_keys=True) for text in texts)
    return days


@pytest.mark.parametrize(
    ("mode", "name_kind", "kinds"),
    [
        ("pseudonymize", "unicity", ("hits", "bounces")),
        pytest.param("drop", "id", tuple(KINDS), marks=pytest.mark.slow),
        pytest.param("pseudonymize", "pseudonym", tuple(KINDS), marks=pytest.mark.slow),
        pytest.param("keep", "hash", tuple(KINDS), marks=pytest.mark.slow),
    ],
)
def test_erasure_removes_the_receiver_everywhere_and_nobody_else(
    server: RudeServer,
    instance: dg.DagsterInstance,
    kept_instance: dg.DagsterInstance,
    home: Path,
    tmp_path: Path,
    mode: str,
    name_kind: str,
    kinds: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (temporary := tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    data = tmp_path / "data"
    deployment = build_deployment(server, kept_instance, data, mode)
    materialize_all(deployment, kinds)
    if mode == "keep":
        deployment.materialize(["notifications", "reactivity_report"])
    read = {name for name, secret in SECRETS.items() if find_leaks([data], {name: secret})}
    assert read == (set(SECRETS) if mode == "keep" else {"the id"})
    assert find_leaks([home, temporary], SECRETS) == []

    pseudonym = ContactPolicy("pseudonymize", PSEUDONYM_KEY).compute_pseudonym(UNICITY)
    receipt = run_erasure(deployment, tmp_path, {**NAMES, "pseudonym": pseudonym}[name_kind])
    assert receipt["receivers_named"] == 1
    assert receipt["events_removed"] == {**dict.fromkeys(kinds, 2), **{f"quarantine/{kind}": 2 for kind in kinds}}
    assert len(receipt["files"]) == len(set(receipt["files"])) == 4 * len(kinds)
    secrets = {**SECRETS, "the pseudonym": pseudonym.encode()}
    assert find_leaks([data, home, temporary], secrets) == []
    printed = "".join(capfd.readouterr()).encode()
    assert [name for name, secret in secrets.items() if secret in printed] == []

    # a check warns of the outdated rates; computed again, all files are those without the receiver
    if len(kinds) == len(KINDS):
        found = deployment.check("reactivity_rates", FIRST, LAST)["counts_reconciled", f"{FIRST}"]
        assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
        deployment = build_deployment(server, instance, data, mode)
        deployment.materialize("reactivity_rates", FIRST, LAST)
        assert deployment.check("reactivity_rates", FIRST, LAST)["counts_reconciled", f"{FIRST}"].passed
    after = read_days(data)
    with RudeServer(build_others()) as clean:
        materialize_all(build_deployment(clean, instance, tmp_path / "clean", mode), kinds)
    assert after == read_days(tmp_path / "clean")

    # later fetches do not restore it
    config = {"ops": {kind: {"config": {"full_refresh": True}} for kind in kinds}}
    deployment.materialize(kinds, FIRST, LAST, run_config=config)
    assert read_days(data) == after


@pytest.mark.slow
def test_erasure_covers_what_is_stored_later_and_before_a_later_start_date(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    deployment = build_deployment(server, instance, tmp_path / "data", "drop")
    assert run_erasure(deployment, tmp_path, UNICITY)["events_removed"] == {}  # it is not stored
    deployment.materialize(list(KINDS), FIRST, LAST)
    assert find_leaks([tmp_path / "data"], SECRETS) == []

    data = tmp_path / "kept"
    build_deployment(server, instance, data, "keep").materialize(["hits", "optouts"], FIRST, LAST)
    assert find_leaks([data], SECRETS)
    settings = {"NP6_CONTACT_DATA": "keep", "NP6_START_DATE": "2026-03-10"}
    run_erasure(Deployment(data, server, instance, lambda: NOW, **settings), tmp_path, HASH)
    assert find_leaks([data], SECRETS) == []


@pytest.mark.slow
def test_next_erasure_completes_a_killed_one(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    deployment = build_deployment(server, instance, data, "drop")
    materialize_all(deployment)
    write = parquet.write_file

    class KilledError(BaseException):
        pass

    def write_and_die(*arguments: Any) -> Any:
        write(*arguments)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_file", write_and_die)
        with pytest.raises(KilledError):
            run_erasure(deployment, tmp_path, RECEIVER)
    receipt = run_erasure(deployment, tmp_path, RECEIVER)
    assert receipt["events_removed"]["hits"] == 1  # the killed one removed the other
    assert find_leaks([data], SECRETS) == []
    content = pq.read_metadata(deployment.path("hits", FIRST)).metadata[b"np6.content"]
    assert deployment.metadata("hits", FIRST)["rows_digest"] == content.decode()
    assert deployment.fetched_until("hits", FIRST).timestamp() == deployment.metadata("hits", FIRST)["fetched_until"]
    assert run_erasure(deployment, tmp_path, RECEIVER)["files"] == []


UNICODE_ADDRESS = "Zoé.Martin@Example.com"
BROKEN = [b'{"broken" "' + UNICODE_ADDRESS.encode() + b'"}', b'{"broken" "another"}']
RECEIVERS: dict[str, dict[str, Any]] = {
    "first": {"receiver_id": "000ZOE", "unicity": UNICODE_ADDRESS},
    "second": {"receiver_id": "000ZOE", "unicity": "another@example.com"},
    "other": {"receiver_id": "000ZOF", "unicity": None},
    "empty": {"receiver_id": "", "unicity": "empty@example.com"},
    "empty too": {"receiver_id": "", "unicity": None},
    "missing": {"receiver_value": None},
}


@pytest.fixture
def small_deployment(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[Deployment]:
    """A day of hits, one of each of RECEIVERS, and two that cannot be parsed."""
    population = Population(notifications=[{"id": 156}])
    for hour, (id_, receiver) in enumerate(RECEIVERS.items()):
        population.hits.append(build_event("hits", id=id_, timestamp=to_event_time(FIRST, hour), hash=None, **receiver))
    population.bad_events = [BadEvent("", "hits", to_event_time(FIRST, 7), 156, None, raw) for raw in BROKEN]
    with RudeServer(population) as server:
        deployment = build_deployment(server, instance, tmp_path / "data", "keep")
        deployment.materialize("hits", FIRST)
        yield deployment


def rebuild_deployment(deployment: Deployment, server: RudeServer, **settings: str) -> Deployment:
    return Deployment(deployment.data, server, deployment.instance, lambda: NOW, **settings)


def read_ids(deployment: Deployment) -> list[str]:
    return [row["event_id"] for row in deployment.rows("hits", FIRST)]


def test_erasure_matches_a_line_in_any_form_and_sweeps_the_folder(
    small_deployment: Deployment, server: RudeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, stored = small_deployment.data, small_deployment.path("hits", FIRST)
    assert stat.S_IMODE(stored.stat().st_mode) == 0o640
    left = stored.with_name(".part-0.parquet.0123456789abcdef0123456789abcdef.tmp")
    alone = small_deployment.path("quarantine/hits", LAST).with_name(left.name)
    others = ("event_date=__HIVE_DEFAULT_PARTITION__", "event_date=2026-3-1", "event_date=20260301", "notes")
    for file in (left, alone, *(data / "hits" / name / "part-0.parquet" for name in others)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(UNICODE_ADDRESS.encode() if file in (left, alone) else b"somebody else's")
    lines = [
        f"\ufeff{UNICODE_ADDRESS}",
        f"{UNICODE_ADDRESS.upper()}\r",
        f'"{UNICODE_ADDRESS}"',
        f"  \u00ab {UNICODE_ADDRESS} \u00bb ",
        unicodedata.normalize("NFD", UNICODE_ADDRESS.lower()),
        "000ZOE",
        "'000ZOE'",
    ]
    umask = os.umask(0o077)
    try:
        receipt = run_erasure(small_deployment, tmp_path, *lines, "", "nobody@example.com")
    finally:
        os.umask(umask)
    # the address is also in an event that cannot be parsed
    assert receipt["events_by_line"] == {**dict.fromkeys("12345", 3), **dict.fromkeys("67", 2), "9": 0}
    assert receipt["events_removed"] == {"hits": 2, "quarantine/hits": 1}
    assert read_ids(small_deployment) == ["other", "empty", "empty too", "missing"]
    [row] = small_deployment.quarantine("hits", FIRST)
    assert "another" in row["event"]
    assert stat.S_IMODE(stored.stat().st_mode) == 0o640
    assert receipt["swept"] == [str(one.relative_to(data)) for one in (left, alone)]
    secrets = {"the unicity": UNICODE_ADDRESS.encode()}
    assert find_leaks([stored.parent, data / "quarantine", data / ".erased"], secrets) == []
    printed = "".join(capfd.readouterr())
    assert printed.count("is passed over") == 4
    assert "hits/event_date=__HIVE_DEFAULT_PARTITION__ is passed over" in printed
    # the check of all days' files skips other programs' folders as well
    found = rebuild_deployment(small_deployment, server).check("hits", FIRST)
    assert str(found["events_as_expected", f"{FIRST}"].description).endswith(f"(launch treat_contact_data): {FIRST}")


def test_erasure_of_a_receiver_without_an_id_removes_nobody_else(small_deployment: Deployment, tmp_path: Path) -> None:
    receipt = run_erasure(small_deployment, tmp_path, "000ZOF", "empty@example.com", "000ZOF")
    assert receipt["events_by_line"] == {"1": 1, "2": 1, "3": 1}
    assert receipt["events_removed"] == {"hits": 2}
    left = ["first", "second", "empty too", "missing"]
    assert read_ids(small_deployment) == left
    # an activation's and an event's id are no receivers
    receipt = run_erasure(small_deployment, tmp_path, "156", "first", "contact")
    assert receipt["events_by_line"] == {"1": 0, "2": 0, "3": 0}
    small_deployment.materialize("hits", FIRST, run_config={"ops": {"hits": {"config": {"full_refresh": True}}}})
    assert read_ids(small_deployment) == left
    assert small_deployment.metadata("hits", FIRST)["events_of_erased"] == 2


def test_fetch_and_erasure_require_the_tombstones_and_their_key(
    small_deployment: Deployment, server: RudeServer, tmp_path: Path
) -> None:
    run_erasure(small_deployment, tmp_path, UNICODE_ADDRESS)
    tombstones = small_deployment.data / ".erased" / "tombstones.json"
    content = tombstones.read_text()
    for text, key, message in (
        (content, "", "NP6_TOMBSTONE_KEY is not set"),
        (content, TOMBSTONE_KEY[::-1], "NP6_TOMBSTONE_KEY is not the key"),
        ("{", TOMBSTONE_KEY, r"\S+tombstones\.json is broken: restore it from a backup"),
        (None, TOMBSTONE_KEY, r"\S+tombstones\.json is gone, though receivers were erased"),
    ):
        tombstones.unlink() if text is None else tombstones.write_text(text)
        before = read_files(small_deployment.data)
        locked = rebuild_deployment(small_deployment, server, NP6_CONTACT_DATA="keep", NP6_TOMBSTONE_KEY=key)
        with pytest.raises(dg.Failure, match=f"^{message}"):
            run_erasure(locked, tmp_path, "000ZOF")
        with pytest.raises(dg.Failure, match=f"^{message}"):
            locked.materialize("hits", FIRST)
        assert read_files(small_deployment.data) == before


def test_erasure_refuses_a_file_without_names(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    deployment = build_deployment(server, instance, tmp_path / "data", "drop")
    file = tmp_path / "named.txt"
    for content, message in ((None, "cannot be read"), (b"\n \n", "names none"), (b"\xff", "Unicode")):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(dg.Failure, match=message):
            deployment.run_job("erase_receiver", erase={"file": str(file)})
        assert read_files(tmp_path / "data") == {}
