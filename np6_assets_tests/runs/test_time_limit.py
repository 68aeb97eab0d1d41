"""Test the time limit that a run sets itself by its tags."""

from pathlib import Path

import dagster as dg

from np6_assets.runs.run_watch import TIME_LIMIT, watch_run
from np6_assets.storage.io_manager import ParquetStore
from np6_assets_tests.support.deployment import tag_range


@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2024-01-01"), backfill_policy=dg.BackfillPolicy.single_run())
def daily(store: dg.ResourceParam[ParquetStore]) -> None: ...


@dg.asset
def whole(store: dg.ResourceParam[ParquetStore]) -> None: ...


def test_run_sets_its_time_limit(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    store = ParquetStore(data_dir=str(tmp_path)).build_definition(watch_run)
    four_days = tag_range("2024-02-27", "2024-03-01")  # one of them the 29th
    for asset, tags, expected in (
        (daily, {"dagster/partition": "2024-02-29"}, "4200"),
        (daily, four_days, "6000"),
        (daily, four_days | {TIME_LIMIT: "60"}, "60"),  # launched with another
        (whole, {}, None),
    ):
        key = tags.get("dagster/partition")
        result = dg.materialize([asset], resources={"store": store}, instance=instance, partition_key=key, tags=tags)
        assert instance.get_run_by_id(result.run_id).tags.get(TIME_LIMIT) == expected
