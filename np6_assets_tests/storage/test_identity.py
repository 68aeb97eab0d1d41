"""Test a folder's identity, and which runs it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from np6_assets.storage.files import Folder
from np6_assets.storage.identity import FILE, Identity, IdentityError

PARIS = Identity("api", "Europe/Paris", address="https://api.example.com", agencies={"DEMO": ["028"]})


def test_identity_can_be_read_and_edited(tmp_path: Path):
    folder = Folder(str(tmp_path / "data"))
    assert Identity.read(folder) is None
    PARIS.write(folder)
    assert Identity.read(folder) == PARIS

    content = json.loads((tmp_path / "data" / FILE).read_text())
    content["agencies"]["OTHER"] = []
    (tmp_path / "data" / FILE).write_text(json.dumps(content))
    assert Identity.read(folder) == replace(PARIS, agencies={"DEMO": ["028"], "OTHER": []})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"source": "api"}', '{"source": "x", "timezone": "UTC"}', "\xff"])
def test_broken_identity_is_reported_in_one_line(tmp_path: Path, text: str):
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(IdentityError, match=r"^\S+/np6.json is broken: [^\n]+$"):
        Identity.read(Folder(str(tmp_path)))


@pytest.mark.parametrize(
    ("run", "sides"),
    [
        (replace(PARIS, source="sandbox"), ("the API's events", "the simulated account's events")),
        (replace(PARIS, timezone="UTC"), ("days of Europe/Paris", "NP6_TIMEZONE is UTC")),
        (replace(PARIS, asset_key_prefix="brand_b"), ("the account without a prefix", "account brand_b")),
    ],
)
def test_identity_refuses_another_account(tmp_path: Path, run: Identity, sides: tuple[str, str]):
    with pytest.raises(IdentityError) as refused:
        PARIS.check_run(Folder(str(tmp_path)), run)
    assert all(side in str(refused.value) for side in sides)
    assert "\n" not in str(refused.value)


def test_identity_accepts_another_address_and_other_agencies(tmp_path: Path):
    PARIS.check_run(Folder(str(tmp_path)), replace(PARIS, address="http://127.0.0.1:8000", agencies={}))


def test_identity_adds_agencies_and_customers():
    seen = PARIS.add_customers([("DEMO", "028"), ("DEMO", "029"), ("DEMO", None), (None, "1"), ("NEW", None)])
    assert seen.agencies == {"DEMO": ["028", "029"], "NEW": []}
    assert seen.find_new_customers(PARIS) == ["DEMO/029"]
    assert PARIS.add_customers([("DEMO", "028"), (None, None)]) == PARIS
