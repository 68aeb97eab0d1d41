"""Tombstones: who was erased stays away, in rows and in events of any shape, and nobody can read who it was."""

import stat
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from np6_assets.contact.tombstones import FILE, Tombstones, tombstones_of
from np6_assets.storage.files import Folder

ADDRESS = "gone@example.com"


def rows(**columns: list[str | None]) -> pa.Table:
    names = ("receiver_id", "receiver_unicity", "receiver_hash")
    return pa.table({name: pa.array(columns.get(name, [None] * 3), pa.string()) for name in names})


@pytest.mark.parametrize("name", ["receiver_id", "receiver_unicity", "receiver_hash"])
def test_rows_of_erased_receivers_are_named_by_each_column(name: str):
    erased = Tombstones(b"salt").covering([ADDRESS])
    table = rows(**{name: ["kept", ADDRESS, None]})
    assert erased.named(table).to_pylist() == [False, True, False]
    assert erased.without(table).column(name).to_pylist() == ["kept", None]
    assert Tombstones(b"salt").without(table) is table


def test_events_of_erased_receivers_are_named_in_any_shape():
    erased = Tombstones(b"salt").covering([ADDRESS, "13"])
    for event in ({"a": [{"b": ADDRESS}]}, [ADDRESS], ADDRESS, {"id": 13}, {"id": "13"}):
        assert erased.name(event)
        assert not Tombstones(b"other salt", erased.digests).name(event)
    for event in ({ADDRESS: 1}, {"a": [None, True, 1.5, "131"]}, None):
        assert not erased.name(event)


def test_tombstones_are_stored_without_names_for_their_owner_alone(tmp_path: Path):
    folder = Folder(str(tmp_path))
    made = Tombstones.read(folder).covering([ADDRESS])
    made.write(folder)
    assert tombstones_of(folder) == made
    path = tmp_path / FILE
    assert ADDRESS not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"salt": "x", "digests": []}', '{"salt": "00"}'])
def test_broken_tombstones_stop_the_run(tmp_path: Path, text: str):
    path = tmp_path / FILE
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(dg.Failure, match="broken") as raised:
        tombstones_of(Folder(str(tmp_path)))
    assert not raised.value.allow_retries
