"""Which data folder is which, and that two accounts of a process have one each."""

import gc
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.settings import Settings, SettingsError
from np6_assets.storage.places import claim_folder, normalize_location


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("data", "./data"),
        ("data", "data/"),
        ("data", "up/../data//"),
        ("s3://bucket/np6", "s3://bucket//np6/"),
        ("s3://bucket/np6", "s3a://bucket/x/../np6"),
        ("s3://bucket", "s3://bucket/"),
        ("gs://bucket/np6", "gcs://bucket/np6"),
    ],
)
def test_folder_locations_are_normalized(one: str, other: str) -> None:
    assert normalize_location(one) == normalize_location(other)


def test_links_and_absolute_paths_lead_to_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    written = (
        "data",
        str(tmp_path / "data"),
        "link",
        f"file://{tmp_path}/data",
        f"file:{tmp_path}/data",
        "link/../data",
    )
    assert {normalize_location(text) for text in written} == {str(tmp_path / "data")}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("data", "data/a"),
        ("s3://bucket/np6", "s3://bucket/NP6"),
        ("s3://a/np6", "s3://b/np6"),
        ("s3://a/b", "gs://a/b"),
    ],
)
def test_other_folders_are_others(one: str, other: str) -> None:
    assert normalize_location(one) != normalize_location(other)


def test_folder_is_claimed_as_long_as_the_accounts_definitions_exist(tmp_path: Path) -> None:
    def settings(account: str | None) -> Settings:
        return Settings.from_environment({"NP6_DATA_DIR": str(tmp_path)}, account)

    def store() -> dg.ResourceDefinition:
        return dg.ResourceDefinition(lambda _: None)

    first = store()
    claim_folder(settings("brand_a"), first)
    again = store()
    claim_folder(settings("brand_a"), again)  # the same account, loaded anew
    for other in (None, "brand_b"):
        with pytest.raises(SettingsError, match="is the folder of account brand_a; give each account its own"):
            claim_folder(settings(other), store())
    del first, again
    gc.collect()
    claim_folder(settings("brand_b"), store())
