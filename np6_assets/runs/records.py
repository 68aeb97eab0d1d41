"""Remove what Dagster never removes itself: records of superseded runs, and logs of ticks.

The run of a partition's newest materialization stays: it says that the partition was fetched.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from np6_assets.dagster_private import get_home, list_event_files, remove_logs
from np6_assets.refresh.jobs import COMPUTE_RATES, FETCHING
from np6_assets.resources import STORE, list_resource_keys
from np6_assets.settings import Settings

CRON = "50 4 * * *"

KEPT = timedelta(days=7)
"""How long a run stays after all its partitions were materialized again; and the log of a tick."""

KEPT_FAILED = timedelta(days=30)
"""How long a failed or canceled run stays."""

_JOBS = (*FETCHING, COMPUTE_RATES, "check_freshness", "check_lateness", "recount_events", "remove_old_records")
"""Jobs whose runs are removed. Those of erasure, retention and treatment are receipts, and stay."""

_JOBS_OF_0_1 = ("daily_ingest", "freshness_job", "lateness_job")
"""Names of such jobs in version 0.1."""

_FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]

_RECORDS_PER_PAGE = 1000


def remove_old_records(
    settings: Settings, assets: Collection[dg.AssetKey], ticking: Sequence[str], now: Callable[[], datetime]
) -> dg.JobDefinition:
    """Build the job. `ticking` are the names of the sensors and schedules."""

    @dg.op(
        name=settings.named("remove_records"),
        out=dg.Out(dg.Nothing),
        required_resource_keys=list_resource_keys(settings, STORE),  # by which it is alive
    )
    def remove(context: dg.OpExecutionContext) -> None:
        instance, moment = context.instance, now().astimezone(UTC)
        removed = remove_runs(instance, assets, set(map(settings.named, (*_JOBS, *_JOBS_OF_0_1))), moment)
        logs = remove_tick_logs(get_home(instance), ticking, moment - KEPT)
        context.add_output_metadata({"runs": len(removed), "tick_logs": logs})

    @dg.job(
        name=settings.named("remove_old_records"),
        executor_def=dg.in_process_executor,
        description=(
            f"Removes Dagster's records of runs whose days were all made again more than {KEPT.days} days ago, and of "
            f"runs that failed or were canceled more than {KEPT_FAILED.days} days ago, with their logs; and the logs "
            f"of ticks after {KEPT.days} days. Of each partition the run that made it last stays, and so do the "
            "receipts of erasure, retention and treatment. No file of the data folder is touched."
        ),
    )
    def job() -> None:
        remove()

    return job


def remove_runs(
    instance: dg.DagsterInstance, assets: Collection[dg.AssetKey], jobs: Collection[str], now: datetime
) -> list[str]:
    """Remove the runs that are not needed at a time (UTC), with their events and logs; return their ids.

    Only runs of these assets or jobs: others may share the instance.
    """
    needed = _find_needed_runs(instance, assets, now - KEPT)
    removed = []
    for statuses, kept in (([dg.DagsterRunStatus.SUCCESS], KEPT), (_FAILED, KEPT_FAILED)):
        for record in instance.get_run_records(dg.RunsFilter(statuses=statuses, updated_before=now - kept)):
            run = record.dagster_run
            is_ours = run.job_name in jobs or (run.asset_selection and run.asset_selection <= set(assets))
            if is_ours and run.run_id not in needed:
                instance.delete_run(run.run_id)
                remove_logs(instance, run.run_id)
                for file in list_event_files(instance, run.run_id):
                    file.unlink(missing_ok=True)
                removed.append(run.run_id)
    return removed


def _find_needed_runs(instance: dg.DagsterInstance, assets: Iterable[dg.AssetKey], moment: datetime) -> set[str]:
    """Find the runs with the newest materialization of some partition before that time."""
    runs: set[str] = set()
    for asset in assets:
        wanted = dg.AssetRecordsFilter(asset, before_timestamp=moment.timestamp())
        newest: dict[str | None, str] = {}
        cursor, has_more = None, True
        while has_more:
            page = instance.fetch_materializations(wanted, limit=_RECORDS_PER_PAGE, cursor=cursor)
            for record in page.records:  # the newest first
                newest.setdefault(record.partition_key, record.run_id)
            cursor, has_more = page.cursor, page.has_more
        runs.update(newest.values())
    return runs


def remove_tick_logs(home: Path, names: Iterable[str], before: datetime) -> int:
    """Remove the logs of these sensors' and schedules' ticks before a time; return the number of files.

    Dagster removes a tick (`retention` in dagster.yaml) and leaves its log, a file for each.
    """
    logs = [log for name in names for log in home.glob(f"storage/*/{name}/*.err")]
    old = [log for log in logs if log.stat().st_mtime < before.timestamp()]
    for log in old:
        log.unlink()
    return len(old)


def build_records_schedule(job: dg.JobDefinition, settings: Settings) -> dg.ScheduleDefinition:
    """Build the nightly schedule. It runs by default: it removes only superseded records."""
    return dg.ScheduleDefinition(
        name=settings.named("old_records"),
        job=job,
        cron_schedule=CRON,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"At ten to five at night ({settings.timezone}): removes Dagster's records that are not needed.",
    )
