"""Assets with this project's names and partitions that do nothing: what the records of a backfill take in Dagster.

With VERSIONS each partition's data version is recorded as well: Dagster gives those of a range one between them.
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
                yield dg.AssetMaterialization(name, partition=key, tags={"dagster/data_version": key})

    return asset


defs = dg.Definitions(
    assets=[*map(_nothing, EVENTS), _nothing("reactivity_rates", EVENTS)], executor=dg.in_process_executor
)
