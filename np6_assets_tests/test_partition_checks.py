"""What the checks look up of an asset's partitions."""

import dagster as dg
import pytest

from np6_assets import partition_checks
from np6_assets.partition_checks import Records
from np6_assets.settings import Settings


@pytest.mark.parametrize("per_page", [1, 2, 1000])
def test_newest_record_of_each_partition_is_found_behind_many_of_another(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, per_page: int
):
    monkeypatch.setattr(partition_checks, "_RECORDS_PER_PAGE", per_page)
    for number, day in enumerate(["2026-03-20", "2026-03-21", *["2026-03-22"] * 5]):
        materialization = dg.AssetMaterialization("hits", partition=day, metadata={"number": number})
        instance.report_runless_asset_event(materialization)
    records = Records(instance, Settings.from_environment({}))
    found = records.newest("hits", ["2026-03-20", "2026-03-22", "2026-03-23"])
    numbers = {day: one.asset_materialization.metadata["number"].value for day, one in found.items()}
    assert numbers == {"2026-03-20": 0, "2026-03-22": 6}
