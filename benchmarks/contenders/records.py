"""Assets with this project's names and partitions that do nothing: what the records of a backfill take in Dagster.

With VERSIONS each partition's data version, a line of progress and the results of its checks are recorded as well, as
this project does: Dagster gives the partitions of a range one version between them.
"""

import os
from collections.abc import Iterator

import dagster as dg

EVENTS = ("hits", "optouts", "bounces", "impressions", "activations")
DAYS = dg.DailyPartitionsDefinition(os.environ["NP6_START_DATE"])


def _nothing(name: str, deps: tuple[str, ...] = ()) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        deps=deps,
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        dagster_type=dg.Nothing,
    )
    def asset(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None] | dg.AssetMaterialization]:
        """Do nothing; Dagster records a planned and a made materialization of each partition."""
        yield dg.Output(None)
        if "VERSIONS" in os.environ:
            for key in context.partition_keys:
                context.log.info(f"{key} {name}: 0 events")
                yield dg.AssetMaterialization(name, partition=key, tags={"dagster/data_version": key})

    return asset


def _checks(asset: str, number: int) -> dg.AssetsDefinition:
    specs = [dg.AssetCheckSpec(f"check_{n}", asset=asset, partitions_def=DAYS) for n in range(number)]

    @dg.multi_asset_check(name=f"{asset}_checks", specs=specs)
    def look(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
        """Find nothing; Dagster records the result of each check of each partition."""
        for key in DAYS.get_partition_keys_in_range(context.op_execution_context.partition_key_range):
            for spec in specs:
                yield dg.AssetCheckEvaluation(
                    asset_key=spec.asset_key, check_name=spec.name, partition=key, passed=True, metadata={}
                )
        for spec in specs:
            yield dg.Output(None, spec.get_python_identifier())

    return look


CHECKS = {**dict.fromkeys(EVENTS, 3), "reactivity_rates": 5}
"""How many checks of each partition an asset has in this project, as a range of days records them."""

defs = dg.Definitions(
    assets=[*map(_nothing, EVENTS), _nothing("reactivity_rates", EVENTS)],
    asset_checks=[_checks(asset, number) for asset, number in CHECKS.items()] if "VERSIONS" in os.environ else [],
    executor=dg.in_process_executor,
)
