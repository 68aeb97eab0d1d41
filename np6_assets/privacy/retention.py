"""Retention: event days older than `NP6_RETENTION_DAYS` are removed, and neither fetched nor computed again.

Rates hold no personal data, and stay. As removal cannot be undone, our clock alone does not decide.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta

import dagster as dg
from pydantic import Field

from np6_assets.contact.days import get_first_retained
from np6_assets.privacy.files import DayFile, build_job, list_day_files, open_locked_folder, remove_unfinished
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

CRON = "30 4 * * *"

MOST_APART = timedelta(days=2)
"""The most that our clock and the newest stored watermark may differ."""

MOST_REMOVED = 1 / 3
"""The largest share of all days that is removed at once."""


class RetentionConfig(dg.Config):
    """Run config that confirms a removal which was refused."""

    first_kept: str = Field(
        default="",
        description=(
            "The first day that is kept, such as 2026-03-20: confirms it where the run refuses to remove so much, or "
            "where the clock is in doubt. The refusal says which day it would be."
        ),
    )


def apply_retention(settings: Settings, now: Callable[[], datetime]) -> dg.JobDefinition:
    """Build the job that removes old days. Killed at any time it can be repeated."""

    @build_job(
        settings,
        "apply_retention",
        op="remove_retired_days",
        description=(
            "Removes the event files, and the quarantine, of days older than NP6_RETENTION_DAYS. Rates stay. The "
            "metadata of the run says which files were removed."
        ),
    )
    def job(context: dg.OpExecutionContext, config: RetentionConfig) -> None:
        moment = now()
        first = get_first_retained(settings, moment)
        if first is None:
            context.log.info("NP6_RETENTION_DAYS is 0: everything is kept")
            return
        with open_locked_folder(context, settings) as folder:
            files = list_day_files(folder, context.log.warning)
            removed = [file for file in files if file.day < first]
            doubt = _find_objection(folder, files, first, moment) if removed else None
            if doubt is not None and config.first_kept != str(first):
                raise dg.Failure(
                    f"nothing was removed: {doubt}; if all days before {first} are to go, launch again with "
                    f"first_kept: '{first}' in the run's config",
                    allow_retries=False,
                )
            swept = remove_unfinished(folder)
            for file in removed:
                folder.remove(file.path)
        counts = Counter(file.asset for file in removed)
        context.log.info(f"kept from {first} on; removed {len(removed)} files: {dict(counts)}")
        context.add_output_metadata(
            {
                "first_kept": str(first),
                "removed": dg.MetadataValue.json(dict(counts)),
                "files": dg.MetadataValue.json([file.path for file in removed]),
                "swept": dg.MetadataValue.json(swept),
            }
        )

    return job


def _find_objection(folder: Folder, files: Sequence[DayFile], first: date, now: datetime) -> str | None:
    """Find why the removal of the days before `first` has to be confirmed; None if it has not."""
    from np6_assets.events.store import find_newest_watermark

    watermark = find_newest_watermark(folder)
    if watermark is None:
        return "no stored day says until when it was fetched, so that nothing confirms the clock"
    if abs(now - watermark) > MOST_APART:
        return (
            f"the clock says {now:%Y-%m-%d}, and the newest stored day was fetched until {watermark:%Y-%m-%d}: more "
            f"than {MOST_APART.days} days apart"
        )
    days = {file.day for file in files}
    gone = sum(day < first for day in days)
    if gone > MOST_REMOVED * len(days):
        return f"{gone} of {len(days)} stored days would go at once, more than a third"
    return None


def build_retention_schedule(job: dg.JobDefinition, settings: Settings) -> dg.ScheduleDefinition:
    """Build the nightly schedule, stopped by default, as removal cannot be undone."""
    return dg.ScheduleDefinition(
        name=settings.named("retention"),
        job=job,
        cron_schedule=CRON,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="At half past four at night: removes event days older than NP6_RETENTION_DAYS.",
    )
