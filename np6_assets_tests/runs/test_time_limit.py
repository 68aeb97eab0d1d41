"""Test the time limit that a run sets itself by its tags."""

import dagster as dg
import pytest

from np6_assets.runs.run_watch import watch_run
from np6_assets.runs.time_limit import TAG
from np6_assets.storage.io_manager import ParquetStore
from np6_assets_tests.support.deployment import tag_range


@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2024-01-01"), backfill_policy=dg.BackfillPolicy.single_run())
def daily(store: dg.ResourceParam[ParquetStore]) -> None: ...


@dg.asset
def whole(store: dg.ResourceParam[ParquetStore]) -> None: ...


RANGE = tag_range("2024-02-27", "2024-03-01")  # four days, one of them the 29th


@pytest.mark.parametrize(
    ("asset", "tags", "expected"),
    [
        (daily, {"dagster/partition": "2024-02-29"}, "4200"),
        (daily, RANGE, "6000"),
        (daily, RANGE | {TAG: "60"}, "60"),
        (whole, {}, None),
    ],
    ids=["a day", "a range", "launched with another", "no days"],
)
def test_run_sets_its_time_limit(
    asset: dg.AssetsDefinition, tags: dict[str, str], expected: str | None, tmp_path
) -> None:
    store = ParquetStore(data_dir=str(tmp_path)).build_definition(watch_run)
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize(
            [asset],
            instance=instance,
            partition_key=tags.get("dagster/partition"),
            tags=tags,
            resources={"store": store},
        )
        [run] = instance.get_runs()
        assert run.tags.get(TAG) == expected
