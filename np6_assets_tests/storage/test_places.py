"""Test when two locations are one data folder, and that each account has its own."""

import gc
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.settings import Settings, SettingsError
from np6_assets.storage.places import claim_folder, normalize_location


def test_folder_locations_are_normalized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    data = f"{tmp_path}/data"
    # locations on one line are the same folder, those on two lines are not
    groups = (
        ("data", "./data", "data/", "up/../data//", "link", "link/../data", data, f"file://{data}", f"file:{data}"),
        ("data/a",),
        ("s3://bucket/np6", "s3://bucket//np6/", "s3a://bucket/x/../np6"),
        ("s3://bucket/NP6",),
        ("s3://bucket", "s3://bucket/"),
        ("s3://a/np6",),
        ("gs://bucket/np6", "gcs://bucket/np6"),
    )
    normalized = [{normalize_location(location) for location in group} for group in groups]
    assert [len(group) for group in normalized] == [1] * len(groups)
    assert len(set.union(*normalized)) == len(groups)
    assert normalized[0] == {data}


def test_folder_is_claimed_while_the_accounts_definitions_exist(tmp_path: Path) -> None:
    def build_settings(account: str | None) -> Settings:
        return Settings.from_environment({"NP6_DATA_DIR": str(tmp_path)}, account)

    def build_store() -> dg.ResourceDefinition:
        return dg.ResourceDefinition(lambda _: None)

    first = build_store()
    claim_folder(build_settings("brand_a"), first)
    again = build_store()
    claim_folder(build_settings("brand_a"), again)  # the same account, loaded anew
    for other in (None, "brand_b"):
        with pytest.raises(SettingsError, match="is the folder of account brand_a; give each account its own"):
            claim_folder(build_settings(other), build_store())
    del first, again
    gc.collect()
    claim_folder(build_settings("brand_b"), build_store())
