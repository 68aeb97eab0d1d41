"""Define assets with this project's names and partitions that do nothing: the cost of a backfill's records in Dagster.

With the environment variable BENCH_ALL_RECORDS they record all that this project records of each partition: its data
version (Dagster gives a range one version), a line of progress and the results of its checks.
"""

import os
from collections.abc import Iterator

import dagster as dg

EVENT_ASSETS = ("hits", "optouts", "bounces", "impressions", "activations")
DAYS = dg.DailyPartitionsDefinition(os.environ["NP6_START_DATE"])
RECORD_ALL = "BENCH_ALL_RECORDS" in os.environ
CHECK_COUNTS = {**dict.fromkeys(EVENT_ASSETS, 3), "reactivity_rates": 5}
"""How many checks of each partition an asset has in this project, as a range of days records them."""


def _build_asset(name: str, deps: tuple[str, ...] = ()) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        deps=deps,
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        dagster_type=dg.Nothing,
    )
    def asset(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None] | dg.AssetMaterialization]:
        """Do nothing; Dagster records each partition as planned and as materialized."""
        yield dg.Output(None)
        if RECORD_ALL:
            for key in context.partition_keys:
                context.log.info(f"{key} {name}: 0 events")
                yield dg.AssetMaterialization(name, partition=key, tags={"dagster/data_version": key})

    return asset


def _build_checks(asset: str, count: int) -> dg.AssetsDefinition:
    specs = [dg.AssetCheckSpec(f"check_{number}", asset=asset, partitions_def=DAYS) for number in range(count)]

    @dg.multi_asset_check(name=f"{asset}_checks", specs=specs)
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
        """Check nothing; Dagster records each check of each partition as passed."""
        for key in DAYS.get_partition_keys_in_range(context.op_execution_context.partition_key_range):
            for spec in specs:
                yield dg.AssetCheckEvaluation(
                    asset_key=spec.asset_key, check_name=spec.name, partition=key, passed=True, metadata={}
                )
        for spec in specs:
            yield dg.Output(None, spec.get_python_identifier())

    return checks


defs = dg.Definitions(
    assets=[*map(_build_asset, EVENT_ASSETS), _build_asset("reactivity_rates", EVENT_ASSETS)],
    asset_checks=[_build_checks(asset, count) for asset, count in CHECK_COUNTS.items()] if RECORD_ALL else [],
    executor=dg.in_process_executor,
)
