"""Match erased receivers in rows and events, and store tombstones without their names."""

import hashlib
import json
import stat
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from np6_assets.contact.tombstones import FILE, Tombstones, TombstonesError
from np6_assets.storage.files import Folder

ADDRESS = "gone@example.com"
SECRET = "a secret for tombstones, long enough"


def build_rows(**columns: list[str | None]) -> pa.Table:
    names = ("receiver_id", "receiver_unicity", "receiver_hash")
    return pa.table({name: pa.array(columns.get(name, [None] * 3), pa.string()) for name in names})


def build_receiver_event(receiver: Any) -> dict[str, Any]:
    return {"id": "13", "source": {"detail": {"activation": {"id": 13, "receiver": receiver}}}}


def test_tombstones_match_rows_by_each_column():
    erased = Tombstones(b"key").add_values(["", ADDRESS])
    for name in ("receiver_id", "receiver_unicity", "receiver_hash"):
        table = build_rows(**{name: ["kept", ADDRESS, None]})
        assert erased.match_rows(table).to_pylist() == [False, True, False]
        assert erased.drop_erased(table).column(name).to_pylist() == ["kept", None]
        assert Tombstones(b"key").drop_erased(table) is table
    # an empty value is nobody's
    assert erased.match_rows(build_rows(receiver_id=["", None, "x"])).to_pylist() == [False] * 3
    assert not erased.match_event(build_receiver_event({"value": {"id": "", "unicity": None}}))
    salted = hashlib.blake2b(b"", key=b"salt", digest_size=16).hexdigest()  # of version 0.1
    assert not Tombstones(b"key", salt=b"salt", salted=frozenset({salted})).match("")


def test_tombstones_match_an_address_in_any_case_and_a_name_in_any_unicode_form():
    for value in ("GONE@example.com", "Gone@Example.COM"):
        assert Tombstones(b"key").add_values([ADDRESS]).match(value)
    composed = unicodedata.normalize("NFC", "Zoé-7")
    assert Tombstones(b"key").add_values([composed]).match(unicodedata.normalize("NFD", composed))
    assert not Tombstones(b"key").add_values([composed]).match(composed.lower())


def test_tombstones_match_only_the_receivers_fields():
    erased = Tombstones(b"key").add_values([ADDRESS, "13"])
    receivers = (
        *({"value": {"id": value}} for value in ("13", 13, ADDRESS)),
        *({"value": {name: ADDRESS}} for name in ("unicity", "hash")),
        *({"type": "contact", "value": ADDRESS}, ADDRESS, [ADDRESS], [[{"value": [ADDRESS]}]]),
        {"value": {"unicity": {"of": [ADDRESS]}}},
    )
    for receiver in receivers:
        assert erased.match_event(build_receiver_event(receiver)), receiver
        assert not Tombstones(b"other key", erased.digests).match_event(build_receiver_event(receiver))
    for other in ({"value": {"id": "131"}}, {"type": "13", "value": {"type": ADDRESS}}, {"value": {"id": True}}, None):
        assert not erased.match_event(build_receiver_event(other)), other
    for odd in (None, "13", ["13", ADDRESS], {"a": {"b": "13"}}, {"link": ADDRESS}):
        assert not erased.match_event(odd)
    assert erased.match_event({"odd": [{"unicity": ADDRESS}]})


def test_tombstones_match_a_deeply_nested_event():
    deep: Any = {"unicity": ADDRESS}
    for _ in range(10_000):
        deep = {"receiver": [deep]}
    assert Tombstones(b"key").add_values([ADDRESS]).match_event(deep)
    assert not Tombstones(b"key").add_values(["other"]).match_event(deep)


def test_tombstones_file_hides_names_and_is_private(tmp_path: Path):
    folder = Folder(str(tmp_path))
    tombstones = Tombstones.read(folder, SECRET).add_values([ADDRESS])
    tombstones.write(folder)
    assert Tombstones.read(folder, SECRET) == tombstones
    path = tmp_path / FILE
    assert ADDRESS not in path.read_text()
    assert SECRET not in path.read_text() + repr(tombstones)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_unusable_tombstones_fail_the_run(tmp_path: Path):
    folder, path = Folder(str(tmp_path)), tmp_path / FILE
    Tombstones.read(folder, SECRET).add_values([ADDRESS]).write(folder)
    for secret in ("", SECRET + "!"):
        with pytest.raises(TombstonesError, match=r"^NP6_TOMBSTONE_KEY .* set it to that one"):
            Tombstones.read(folder, secret)
    for text in ("", "{}", "[]", '{"salt": "x", "digests": []}', '{"salt": "00"}', '{"keyed": {}}'):
        path.write_text(text)
        with pytest.raises(TombstonesError, match="broken") as caught:
            Tombstones.read(folder, SECRET)
        assert not caught.value.allow_retries


def write_salted_tombstones(folder: Path, *values: str) -> None:
    """Write tombstones as version 0.1 did."""
    salt = bytes(range(32))
    digests = [hashlib.blake2b(value.encode(), key=salt, digest_size=16).hexdigest() for value in values]
    (folder / FILE).parent.mkdir()
    (folder / FILE).write_text(json.dumps({"salt": salt.hex(), "digests": digests}))


def test_salted_tombstones_require_a_secret_only_for_a_new_erasure(tmp_path: Path):
    write_salted_tombstones(tmp_path, ADDRESS)
    folder = Folder(str(tmp_path))
    old = Tombstones.read(folder, "")
    assert old.match_rows(build_rows(receiver_unicity=["kept", ADDRESS, None])).to_pylist() == [False, True, False]
    with pytest.raises(TombstonesError, match=r"^NP6_TOMBSTONE_KEY is not set: an erasure needs"):
        old.add_values(["other"])
    Tombstones.read(folder, SECRET).add_values(["other"]).write(folder)
    both = Tombstones.read(folder, SECRET)
    assert (both.match(ADDRESS), both.match("other"), both.match("kept")) == (True, True, False)
    with pytest.raises(TombstonesError, match=r"^NP6_TOMBSTONE_KEY is not set, and is"):
        Tombstones.read(folder, "")
