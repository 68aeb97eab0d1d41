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


def test_broken_identity_is_reported_in_one_line(tmp_path: Path):
    for content in (b"", b"[]", b"{}", b'{"source": "api"}', b'{"source": "x", "timezone": "UTC"}', b"\xff"):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(IdentityError, match=r"^\S+/np6.json is broken: [^\n]+$"):
            Identity.read(Folder(str(tmp_path)))


def test_identity_refuses_another_account_and_accepts_another_address(tmp_path: Path):
    folder = Folder(str(tmp_path))
    PARIS.check_run(folder, replace(PARIS, address="http://127.0.0.1:8000", agencies={}))
    for run, sides in (
        (replace(PARIS, source="sandbox"), ("the API's events", "the simulated account's events")),
        (replace(PARIS, timezone="UTC"), ("days of Europe/Paris", "NP6_TIMEZONE is UTC")),
        (replace(PARIS, asset_key_prefix="brand_b"), ("the account without a prefix", "account brand_b")),
    ):
        with pytest.raises(IdentityError) as refused:
            PARIS.check_run(folder, run)
        assert all(side in str(refused.value) for side in sides)
        assert "\n" not in str(refused.value)
        assert not refused.value.allow_retries


def test_identity_adds_agencies_and_customers():
    seen = PARIS.add_customers([("DEMO", "028"), ("DEMO", "029"), ("DEMO", None), (None, "1"), ("NEW", None)])
    assert seen.agencies == {"DEMO": ["028", "029"], "NEW": []}
    assert seen.find_new_customers(PARIS) == ["DEMO/029"]
    assert PARIS.add_customers([("DEMO", "028"), (None, None)]) == PARIS
