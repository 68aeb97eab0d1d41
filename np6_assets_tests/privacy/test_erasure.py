"""Erasure: a receiver is nowhere afterwards, does not come back, and all others' events stay as they were."""

from __future__ import annotations

import hashlib
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
from np6_assets_tests.support.events import KINDS, MISSING, Misfit, Population, build_event, build_population
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


def at(day: date, hour: int) -> int:
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp() * 1000)


def spread(made: Any, kind: str) -> None:
    """Put the receiver's contact data into an event's free text, links and unknown fields."""
    detail = made["source"]["detail"]
    made["seen"] = {UNICITY: 1, "by": f"{UNICITY} {HASH}"}
    detail["activation"]["receiver"]["value"][HASH] = UNICITY
    if kind == "hits":
        detail["link"] |= {
            "label": f"Hello {UNICITY}",
            "uri": f"https://a.example/{HASH}?id=594&email={quote(UNICITY)}",
        }
    if kind == "bounces":
        detail["bounce"]["status"] = f"550 <{UNICITY}> unknown"
        detail["bounce"]["analysis"]["subject"] = {"type": UNICITY, "detail": {"type": f"no {HASH}"}}


def canary(sender: int) -> Population:
    """The receiver's events: on two days one of each kind, and one that lacks its activation's id."""
    made = Population()
    for kind in KINDS:
        for day in (FIRST, LAST):
            who: dict[str, Any] = {"receiver_id": RECEIVER, "unicity": UNICITY, "hash": HASH}
            fits = build_event(kind, id=f"bird-{kind}-{day}", timestamp=at(day, 9), activation_id=sender, **who)
            odd = build_event(kind, id=f"odd-{kind}-{day}", timestamp=at(day, 10), activation_id=MISSING, **who)
            for one in (fits, odd):
                spread(one, kind)
            made.feed(kind).append(fits)
            made.misfits.append(Misfit("no activation.id", kind, at(day, 10), sender, odd))
    return made


def others() -> Population:
    return build_population(71, FIRST, 2, sends_per_day=4, misfit_days=[LAST])


@pytest.fixture
def server() -> Iterator[RudeServer]:
    known = others()
    with RudeServer(known.merged(canary(known.notifications[0]["id"]))) as running:
        yield running


def deployed(server: RudeServer, instance: dg.DagsterInstance, data: Path, mode: str) -> Deployment:
    return Deployment(data, server, instance, lambda: NOW, NP6_CONTACT_DATA=mode, NP6_PSEUDONYM_KEY=PSEUDONYM_KEY)


def fill(deployment: Deployment, kinds: Sequence[str] = tuple(KINDS)) -> None:
    deployment.materialize(kinds, FIRST, LAST)
    deployment.materialize("reactivity_rates", FIRST, LAST)


def erase(deployment: Deployment, tmp_path: Path, *named: str) -> dict[str, Any]:
    """A run of the job; what its receipt says."""
    file = tmp_path / "named.txt"
    file.write_bytes("\n".join([*named, ""]).encode())
    try:
        result = deployment.definitions.resolve_job_def("erase_receiver").execute_in_process(
            instance=deployment.instance,
            resources=deployment.definitions.resources,
            run_config={"ops": {"erase": {"config": {"file": str(file)}}}},
        )
    finally:
        file.unlink()
    [output] = [one.step_output_data for one in result.all_events if one.is_successful_output]
    return {name: value.value for name, value in output.metadata.items()}


def held(data: Path) -> dict[str, Any]:
    """The files of events and rates; of those in quarantine, whose text and order are the feed's, the events."""
    found: dict[str, Any] = {name: content for name, content in read_files(data).items() if "_date=" in name}
    for name in found:
        if name.startswith("quarantine/"):
            texts = pq.read_table(data / name, partitioning=None).column("event").to_pylist()
            found[name] = sorted(json.dumps(json.loads(text), sort_keys=True) for text in texts)
    return found


@pytest.mark.parametrize(
    ("mode", "named", "kinds"),
    [
        ("pseudonymize", "unicity", ("hits", "activations")),
        pytest.param("drop", "id", tuple(KINDS), marks=pytest.mark.slow),
        pytest.param("pseudonymize", "pseudonym", tuple(KINDS), marks=pytest.mark.slow),
        pytest.param("keep", "hash", tuple(KINDS), marks=pytest.mark.slow),
    ],
)
def test_erased_receiver_is_nowhere_and_all_others_stay(
    server: RudeServer,
    instance: dg.DagsterInstance,
    kept_instance: dg.DagsterInstance,
    home: Path,
    tmp_path: Path,
    mode: str,
    named: str,
    kinds: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (temporary := tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    data = tmp_path / "data"
    deployment = deployed(server, kept_instance, data, mode)
    fill(deployment, kinds)
    if mode == "keep":
        deployment.materialize(["notifications", "reactivity_report"])
    read = {name for name, secret in SECRETS.items() if find_leaks([data], {name: secret})}
    assert read == (set(SECRETS) if mode == "keep" else {"the id"})
    assert find_leaks([home, temporary], SECRETS) == []

    pseudonym = ContactPolicy("pseudonymize", PSEUDONYM_KEY).compute_pseudonym(UNICITY)
    receipt = erase(deployment, tmp_path, {**NAMES, "pseudonym": pseudonym}[named])
    assert receipt["receivers_named"] == 1
    assert receipt["events_removed"] == {**dict.fromkeys(kinds, 2), **{f"quarantine/{kind}": 2 for kind in kinds}}
    assert len(receipt["files"]) == len(set(receipt["files"])) == 4 * len(kinds)
    secrets = {**SECRETS, "the pseudonym": pseudonym.encode()}
    assert find_leaks([data, home, temporary], secrets) == []
    printed = "".join(capfd.readouterr()).encode()
    assert [name for name, secret in secrets.items() if secret in printed] == []

    # the rates' own checks say that they are to follow, and once they did all is as it is without that receiver
    found = deployment.check("reactivity_rates", FIRST, LAST)
    assert not found["counts_reconciled", f"{FIRST}"].passed
    assert found["counts_reconciled", f"{FIRST}"].severity == dg.AssetCheckSeverity.WARN
    deployment = deployed(server, instance, data, mode)
    deployment.materialize("reactivity_rates", FIRST, LAST)
    found = deployment.check("reactivity_rates", FIRST, LAST)
    assert found["counts_reconciled", f"{FIRST}"].passed
    after = held(data)
    with RudeServer(others()) as clean:
        fill(deployed(clean, instance, tmp_path / "clean", mode), kinds)
    assert after == held(tmp_path / "clean")

    # and it does not come back
    config = {"ops": {kind: {"config": {"full_refresh": True}} for kind in kinds}}
    deployment.materialize(kinds, FIRST, LAST, run_config=config)
    assert held(data) == after


def test_erased_unicity_that_is_not_stored_stays_out_of_later_fetches(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    deployment = deployed(server, instance, tmp_path / "data", "drop")
    assert erase(deployment, tmp_path, UNICITY)["events_removed"] == {}
    deployment.materialize(list(KINDS), FIRST, LAST)
    assert find_leaks([tmp_path / "data"], SECRETS) == []


@pytest.mark.slow
def test_erasure_covers_days_before_a_later_start_date(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    deployed(server, instance, data, "keep").materialize(["hits", "optouts"], FIRST, LAST)
    assert find_leaks([data], SECRETS)
    settings = {"NP6_CONTACT_DATA": "keep", "NP6_START_DATE": "2026-03-10"}
    erase(Deployment(data, server, instance, lambda: NOW, **settings), tmp_path, HASH)
    assert find_leaks([data], SECRETS) == []


def test_tombstones_are_digests_for_their_owner_alone(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    deployment = deployed(server, instance, tmp_path / "data", "drop")
    erase(deployment, tmp_path, RECEIVER)
    [(name, content)] = read_files(tmp_path / "data").items()
    assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
    digests = json.loads(content)["keyed"]["digests"]
    assert len(digests) == 1
    assert hashlib.blake2b(RECEIVER.encode(), digest_size=16).hexdigest() not in digests


@pytest.mark.slow
def test_killed_erasure_is_completed_by_the_next(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    deployment = deployed(server, instance, data, "drop")
    fill(deployment)
    write = parquet.write_file

    class KilledError(BaseException):
        pass

    def killed(*arguments: Any) -> Any:
        write(*arguments)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_file", killed)
        with pytest.raises(KilledError):
            erase(deployment, tmp_path, RECEIVER)
    receipt = erase(deployment, tmp_path, RECEIVER)
    assert receipt["events_removed"]["hits"] == 1  # the other was out already
    assert find_leaks([data], SECRETS) == []
    assert deployment.metadata("hits", FIRST)["rows_digest"] == content_of(deployment.path("hits", FIRST))
    assert deployment.fetched_until("hits", FIRST).timestamp() == deployment.metadata("hits", FIRST)["fetched_until"]
    assert erase(deployment, tmp_path, RECEIVER)["files"] == []


def content_of(file: Path) -> str:
    return str(pq.read_metadata(file).metadata[b"np6.content"].decode())


ODD = "Zoé.Martin@Example.com"
WHO = {"receiver_id": "000ZOE", "unicity": ODD, "hash": None}


@pytest.fixture
def small(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[Deployment]:
    """A day of hits as they are received: two of one receiver, one of another, three whose id is empty or missing."""
    made = Population(
        notifications=[{"id": 156}],
        hits=[
            build_event("hits", id="first", timestamp=at(FIRST, 1), **WHO),
            build_event("hits", id="second", timestamp=at(FIRST, 2), **WHO | {"unicity": "another@example.com"}),
            build_event("hits", id="other", timestamp=at(FIRST, 3), receiver_id="000ZOF", unicity=None, hash=None),
            build_event(
                "hits", id="empty", timestamp=at(FIRST, 4), receiver_id="", unicity="empty@example.com", hash=None
            ),
            build_event("hits", id="empty too", timestamp=at(FIRST, 5), receiver_id="", unicity=None, hash=None),
            build_event("hits", id="missing", timestamp=at(FIRST, 6), receiver_value=None),
        ],
    )
    with RudeServer(made) as server:
        deployment = deployed(server, instance, tmp_path / "data", "keep")
        deployment.materialize("hits", FIRST)
        yield deployment


def ids(deployment: Deployment) -> list[str]:
    return [row["event_id"] for row in deployment.rows("hits", FIRST)]


def test_line_is_matched_however_it_is_written(small: Deployment, tmp_path: Path) -> None:
    lines = [
        f"\ufeff{ODD}",
        f"{ODD.upper()}\r",
        f'"{ODD}"',
        f"  \u00ab {ODD} \u00bb ",
        unicodedata.normalize("NFD", ODD.lower()),
        "000ZOE",
        "'000ZOE'",
    ]
    receipt = erase(small, tmp_path, *lines, "", "nobody@example.com")
    assert receipt["events_by_line"] == {**{f"{number}": 2 for number in range(1, 8)}, "9": 0}
    assert ids(small) == ["other", "empty", "empty too", "missing"]


def test_erasure_of_a_receiver_without_an_id_erases_nobody_else_and_is_counted(
    small: Deployment, tmp_path: Path
) -> None:
    receipt = erase(small, tmp_path, "000ZOF", "empty@example.com", "000ZOF")
    assert receipt["events_by_line"] == {"1": 1, "2": 1, "3": 1}
    assert receipt["events_removed"] == {"hits": 2}
    left = ["first", "second", "empty too", "missing"]
    assert ids(small) == left
    # not a receiver: an activation's id, an event's
    assert erase(small, tmp_path, "156", "first", "contact")["events_by_line"] == {"1": 0, "2": 0, "3": 0}
    small.materialize("hits", FIRST, run_config={"ops": {"hits": {"config": {"full_refresh": True}}}})
    assert ids(small) == left
    assert small.metadata("hits", FIRST)["events_of_erased"] == 2


def test_erasure_removes_unfinished_files(small: Deployment, tmp_path: Path) -> None:
    left = small.path("hits", FIRST).with_name(".part-0.parquet.0123456789abcdef0123456789abcdef.tmp")
    left.write_bytes(ODD.encode())
    alone = small.path("quarantine/hits", LAST).with_name(left.name)
    alone.parent.mkdir(parents=True)
    alone.write_bytes(ODD.encode())
    receipt = erase(small, tmp_path, ODD)
    assert receipt["swept"] == [str(one.relative_to(small.data)) for one in (left, alone)]
    assert find_leaks([small.data], {"the unicity": ODD.encode()}) == []


def test_folders_of_others_are_passed_over_with_a_warning(
    small: Deployment, server: RudeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("event_date=__HIVE_DEFAULT_PARTITION__", "event_date=2026-3-1", "event_date=20260301", "notes"):
        (small.data / "hits" / name).mkdir()
        (small.data / "hits" / name / "part-0.parquet").write_bytes(b"somebody else's")
    assert erase(small, tmp_path, ODD)["events_removed"] == {"hits": 2}
    printed = "".join(capfd.readouterr())
    assert printed.count("is passed over") == 4
    assert "hits/event_date=__HIVE_DEFAULT_PARTITION__ is passed over" in printed
    # nor does what looks into every day's file stumble over them
    found = Deployment(small.data, server, small.instance, lambda: NOW).check("hits", FIRST)
    assert str(found["events_as_expected", f"{FIRST}"].description).endswith(f"(launch treat_contact_data): {FIRST}")


def test_unparsable_event_is_erased_if_its_text_holds_the_receiver(
    small: Deployment, server: RudeServer, tmp_path: Path
) -> None:
    broken = [b'{"broken" "' + ODD.encode() + b'"}', b'{"broken" "another"}']
    timed = build_event("hits", id="timed", timestamp=at(FIRST, 7))
    server.serve(Population(hits=[timed], misfits=[Misfit("", "hits", at(FIRST, 7), 156, None, one) for one in broken]))
    small = deployed(server, small.instance, small.data, "keep")
    small.materialize("hits", FIRST, run_config={"ops": {"hits": {"config": {"full_refresh": True}}}})
    assert len(small.quarantine("hits", FIRST)) == 2
    assert erase(small, tmp_path, ODD)["events_removed"] == {"hits": 2, "quarantine/hits": 1}
    [row] = small.quarantine("hits", FIRST)
    assert "another" in row["event"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NP6_TOMBSTONE_KEY": ""}, "NP6_TOMBSTONE_KEY is not set"),
        ({"NP6_TOMBSTONE_KEY": TOMBSTONE_KEY[::-1]}, "NP6_TOMBSTONE_KEY is not the key"),
    ],
)
def test_fetch_and_erasure_refuse_without_the_tombstones_key(
    small: Deployment, server: RudeServer, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    erase(small, tmp_path, ODD)
    before = read_files(small.data)
    locked = Deployment(small.data, server, small.instance, lambda: NOW, NP6_CONTACT_DATA="keep", **settings)
    with pytest.raises(dg.Failure, match=f"^{said}"):
        erase(locked, tmp_path, "000ZOF")
    with pytest.raises(dg.Failure, match=f"^{said}"):
        locked.materialize("hits", FIRST)
    assert read_files(small.data) == before


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_with_contact_data_are_for_their_owner_and_group(small: Deployment, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        small.materialize("hits", FIRST)
        assert stat.S_IMODE(small.path("hits", FIRST).stat().st_mode) == 0o640
        erase(small, tmp_path, ODD)
        assert stat.S_IMODE(small.path("hits", FIRST).stat().st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("\n \n", "names none"), (b"\xff", "Unicode")])
def test_erasure_refuses_a_file_that_names_nobody(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, content: str | bytes | None, said: str
) -> None:
    deployment = deployed(server, instance, tmp_path / "data", "drop")
    file = tmp_path / "named.txt"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(dg.Failure, match=said):
        deployment.definitions.resolve_job_def("erase_receiver").execute_in_process(
            instance=instance,
            resources=deployment.definitions.resources,
            run_config={"ops": {"erase": {"config": {"file": str(file)}}}},
        )
    assert read_files(tmp_path / "data") == {}


def test_broken_tombstones_stop_a_run(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    data = tmp_path / "data"
    deployment = deployed(server, instance, data, "drop")
    erase(deployment, tmp_path, RECEIVER)
    [name] = read_files(data)
    (data / name).write_text("{")
    with pytest.raises(dg.Failure, match=r"tombstones\.json is broken: restore it from a backup"):
        deployment.materialize("hits", FIRST)
    assert list(read_files(data)) == [name]


def test_folder_without_its_tombstones_is_refused(small: Deployment, tmp_path: Path) -> None:
    erase(small, tmp_path, ODD)
    (small.data / ".erased" / "tombstones.json").unlink()
    with pytest.raises(dg.Failure, match=r"tombstones\.json is gone, though receivers were erased"):
        small.materialize("hits", FIRST)
    with pytest.raises(dg.Failure, match=r"tombstones\.json is gone"):
        erase(small, tmp_path, "000ZOF")
