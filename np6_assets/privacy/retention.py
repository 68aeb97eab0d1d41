"""Retention: event days older than `NP6_RETENTION_DAYS` are removed, and neither fetched nor computed again.

Rates hold no data of a receiver, and stay.
"""

from collections import Counter
from collections.abc import Callable
from datetime import datetime

import dagster as dg

from np6_assets.contact.days import first_retained
from np6_assets.privacy.files import day_files
from np6_assets.settings import Settings
from np6_assets.storage.io_manager import ParquetStore

CRON = "30 4 * * *"


def apply_retention(settings: Settings, now: Callable[[], datetime]) -> dg.JobDefinition:
    """The job that removes what is not kept. It can be killed and repeated: each file is there or gone."""

    @dg.op(name="remove_retired_days", out=dg.Out(dg.Nothing), pool=settings.pool)
    def remove(context: dg.OpExecutionContext, store: ParquetStore) -> None:
        first = first_retained(settings, now())
        if first is None:
            context.log.info("NP6_RETENTION_DAYS is 0: everything is kept")
            return
        folder = store.folder()
        with folder.alone(lambda: context.log.info("a run is using the data folder; this one goes on once it ends")):
            removed = [file for file in day_files(folder, context.log.warning) if file.day < first]
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
