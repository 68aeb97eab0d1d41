"""Retention: event days older than `NP6_RETENTION_DAYS` are removed, and neither fetched nor computed again.

Rates hold no data of a receiver, and stay.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from np6_assets.privacy.files import day_files
from np6_assets.settings import Settings
from np6_assets.storage.io_manager import ParquetStore

CRON = "30 4 * * *"


def first_kept(settings: Settings, now: datetime) -> date:
    """The first day whose events are kept: NP6_START_DATE, or later where there is a retention."""
    if settings.retention_days is None:
        return settings.start_date
    today = now.astimezone(ZoneInfo(settings.timezone)).date()
    return max(settings.start_date, today - timedelta(days=settings.retention_days))


def refuse_retired(partitions: Sequence[str], settings: Settings, now: datetime) -> None:
    """Raise a Failure that nobody retries where one of the days is not kept any more."""
    first = first_kept(settings, now)
    if retired := [key for key in partitions if date.fromisoformat(key) < first]:
        raise dg.Failure(
            f"NP6_RETENTION_DAYS={settings.retention_days}: events before {first} are not kept, so {min(retired)} is "
            f"neither fetched nor computed again ({len(retired)} such days in this run); launch days from {first} on",
            allow_retries=False,
        )


def apply_retention(settings: Settings, now: Callable[[], datetime]) -> dg.JobDefinition:
    """The job that removes what is not kept. It can be killed and repeated: each file is there or gone."""

    @dg.op(name="remove_retired_days", out=dg.Out(dg.Nothing), pool=settings.pool)
    def remove(context: dg.OpExecutionContext, store: ParquetStore) -> None:
        if settings.retention_days is None:
            context.log.info("NP6_RETENTION_DAYS is 0: everything is kept")
            return
        first = first_kept(settings, now())
        folder = store.folder()
        with folder.alone(lambda: context.log.info("a run is using the data folder; this one goes on once it ends")):
            removed = [file for file in day_files(folder) if file.day < first]
            for file in removed:
                folder.remove(file.path)
        counts = Counter(file.asset for file in removed)
        context.log.info(f"kept from {first} on; removed {len(removed)} files: {dict(counts)}")
        context.add_output_metadata(
            {
                "first_kept": str(first),
                "removed": dg.MetadataValue.json(dict(counts)),
                "files": dg.MetadataValue.json([file.path for file in removed]),
            }
        )

    @dg.job(
        name=settings.named("apply_retention"),
        description=(
            "Removes the event files, and the quarantine, of days older than NP6_RETENTION_DAYS. Rates stay. The "
            "metadata of the run says which files were removed."
        ),
    )
    def job() -> None:
        remove()

    return job


def retention_schedule(job: dg.JobDefinition, settings: Settings) -> dg.ScheduleDefinition:
    """Each night; it does not run until it is turned on, as what it removes is gone."""
    return dg.ScheduleDefinition(
        name="retention",
        job=job,
        cron_schedule=CRON,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="At half past four at night: removes event days older than NP6_RETENTION_DAYS.",
    )
