"""What is used of Dagster beside its documented interface, with the reasons, and nowhere else.

Tests fail when a name moves, or when one is used elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import dagster as dg

# The type of AssetCheckEvaluation's `target_materialization_data`. Without it the UI takes a partition's evaluation for
# one of an older materialization; AssetCheckResult, which fills it in, has no partition (dagster #17005).
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as CheckTarget,
)

__all__ = [
    "CheckTarget",
    "end_run",
    "get_home",
    "get_materialized_partitions",
    "has_step_workers",
    "list_backfill_days",
    "list_event_files",
    "list_running_instigators",
    "remove_logs",
    "tag_run",
]


def list_backfill_days(instance: dg.DagsterInstance, assets: Iterable[dg.AssetKey], newest: int) -> set[str]:
    """List the partitions that the newest backfills have yet to materialize: their runs are not launched at once."""
    days: set[str] = set()
    for backfill in instance.get_backfills(limit=newest):
        data = backfill.asset_backfill_data
        if backfill.status.name == "REQUESTED" and data is not None:
            for key in assets:
                target = data.target_subset.partitions_subsets_by_asset_key.get(key)
                done = data.materialized_subset.partitions_subsets_by_asset_key.get(key)
                days |= set(target.get_partition_keys() if target else ())
                days -= set(done.get_partition_keys() if done else ())
    return days


def end_run(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """Report that a run has ended, as canceled if that was requested, else as failed: its process is gone."""
    is_canceling = run.status is dg.DagsterRunStatus.CANCELING
    (instance.report_run_canceled if is_canceling else instance.report_run_failed)(run, message)


def has_step_workers(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether steps of a run have processes of their own, as those of the multiprocess executor have."""
    started = dg.DagsterEventType.STEP_WORKER_STARTING
    return bool(instance.get_records_for_run(run_id, of_type=started, limit=1).records)


def get_home(instance: dg.DagsterInstance) -> Path:
    """Return DAGSTER_HOME of the process that made the instance."""
    return Path(instance.root_directory)


def get_materialized_partitions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> set[str]:
    """Return the partitions of an asset that were ever materialized."""
    return instance.get_materialized_partitions(asset)


def remove_logs(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove what a run's steps printed, which `delete_run` leaves."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])


def list_event_files(instance: dg.DagsterInstance, run_id: str) -> list[Path]:
    """List the files of a run's own event log, which `delete_run` empties and leaves; only SQLite has them."""
    storage: Any = instance.event_log_storage
    if not storage.is_run_sharded:
        return []
    path = Path(storage.path_for_shard(run_id))
    return [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]


def list_running_instigators(instance: dg.DagsterInstance, names: Collection[str]) -> set[str]:
    """List which of these sensors and schedules, all off by default, were turned on."""
    states = instance.all_instigator_state() if instance.schedule_storage is not None else ()  # one in memory has none
    return {state.instigator_name for state in states if state.is_running} & set(names)


def tag_run(instance: dg.DagsterInstance, run_id: str, name: str, value: str) -> None:
    """Set a tag of a run in progress."""
    instance.add_run_tags(run_id, {name: value})
