"""Define assets with this project's names and partitions that do nothing: the cost of a backfill's records in Dagster.

With the environment variable BENCH_RECORDS, a file of what this project recorded of one day, they record the same of
each day, and a line of progress.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster_shared.record import replace

EVENT_ASSETS = ("hits", "optouts", "bounces", "impressions", "activations")
DAYS = dg.DailyPartitionsDefinition(os.environ["NP6_START_DATE"])


@dataclass
class DayRecords:
    """What this project records of a day of an asset."""

    materializations: list[dg.AssetMaterialization] = field(default_factory=list)
    evaluations: list[dg.AssetCheckEvaluation] = field(default_factory=list)


def _read_records(path: str | None) -> dict[str, DayRecords]:
    """Read the records of a day, by asset."""
    found: dict[str, DayRecords] = defaultdict(DayRecords)
    for one in dg.deserialize_value(Path(path).read_text(), list) if path else []:
        of_asset = found[one.asset_key.to_user_string()]
        (of_asset.evaluations if isinstance(one, dg.AssetCheckEvaluation) else of_asset.materializations).append(one)
    return found


RECORDS = _read_records(os.environ.get("BENCH_RECORDS"))


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
        if name in RECORDS:
            for key in context.partition_keys:
                context.log.info(f"{key} {name}: 0 events")
                for one in RECORDS[name].materializations:
                    yield one._replace(partition=key)

    return asset


def _build_checks(asset: str) -> dg.AssetsDefinition:
    records = RECORDS[asset].evaluations
    specs = [dg.AssetCheckSpec(one.check_name, asset=asset, partitions_def=DAYS) for one in records]

    @dg.multi_asset_check(name=f"{asset}_checks", specs=specs)
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
        """Check nothing; record the same result of each check for each partition."""
        for key in DAYS.get_partition_keys_in_range(context.op_execution_context.partition_key_range):
            for one in records:
                yield replace(one, partition=key)
        for spec in specs:
            yield dg.Output(None, spec.get_python_identifier())

    return checks


defs = dg.Definitions(
    assets=[*map(_build_asset, EVENT_ASSETS), _build_asset("reactivity_rates", EVENT_ASSETS)],
    asset_checks=[_build_checks(asset) for asset in (*EVENT_ASSETS, "reactivity_rates") if asset in RECORDS],
    executor=dg.in_process_executor,
)
