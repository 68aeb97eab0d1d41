"""The schedule `daily_ingest`: each night yesterday in full, the days before it again, and older days once more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from np6_assets.contact.days import get_first_allowed
from np6_assets.partition_checks import Records
from np6_assets.partitions import consecutive
from np6_assets.refresh import jobs, missing_notifications
from np6_assets.refresh.confirmation import confirmation_age, list_days_to_confirm, select_unconfirmed
from np6_assets.refresh.planner import PlannedRun
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

CRON = "30 3 * * *"
"""Half past three: yesterday has ended by more than the default lookback, and no clock change skips or repeats it."""


def daily_ingest(settings: Settings) -> dg.ScheduleDefinition:
    """Define the schedule. It is off until somebody turns it on: it uses the account's rate limit."""

    def request_runs(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if settings.missing is not None:
            yield dg.SkipReason(settings.missing)
            return
        yesterday = context.scheduled_execution_time.date() - timedelta(days=1)
        if yesterday < settings.start_date:
            yield dg.SkipReason(f"{yesterday} is before NP6_START_DATE, which is {settings.start_date}.")
            return
        for run in plan_night(context, settings):
            # Dagster requires a key where there are several runs
            key = f"{yesterday} {run.first}{' missing' if run.missing_only else ''}"
            yield jobs.build_run_request(settings, run, full_refresh=not run.missing_only, run_key=key)

    return dg.ScheduleDefinition(
        name=settings.named(jobs.DAILY_INGEST),
        job=dg.define_asset_job(
            settings.named(jobs.FETCH_DAILY),
            selection=dg.AssetSelection.assets(*map(settings.key, (*jobs.EVENT_ASSETS, "notifications"))),
            description="Fetches event days, and the list of notifications, in one run.",
            executor_def=dg.in_process_executor,
        ),
        cron_schedule=CRON,
        execution_timezone=settings.timezone,
        execution_fn=request_runs,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=(
            f"At half past three at night ({settings.timezone}): fetches yesterday and the {settings.trailing_days} "
            "days before it in full, the names of the notifications, and each older day once more when its window has "
            "closed."
        ),
    )


def plan_night(context: dg.ScheduleEvaluationContext, settings: Settings) -> Iterator[PlannedRun]:
    """Plan a night's runs: the trailing days, the days to confirm, the notifications to retry."""
    night = context.scheduled_execution_time
    yesterday = night.date() - timedelta(days=1)
    first = max(yesterday - timedelta(days=settings.trailing_days), settings.start_date)
    more = f", and again the days from {first} on" if first < yesterday else ""
    yield PlannedRun(str(first), str(yesterday), f"{yesterday} in full{more}")

    kept = get_first_allowed(settings, night)
    folder = Folder(settings.data_dir).cache_listing()
    records = Records(context.instance, settings)
    old = [day for day in list_days_to_confirm(folder, settings, night.date()) if kept <= day < first]
    old = select_unconfirmed(old, records, settings)
    reason = f"once more, as no fetch was made since it was {confirmation_age(settings)} days old"
    for run in consecutive(old):
        yield PlannedRun(str(run[0]), str(run[-1]), reason)

    from np6_assets.refresh.event_files import EventFiles

    files = EventFiles(settings)
    files.list_files(folder)
    incomplete = missing_notifications.find_days_to_retry(
        files, folder, records, settings, night, lambda day: kept <= day < first and day not in old
    )
    for run in consecutive(incomplete):
        yield PlannedRun(str(run[0]), str(run[-1]), missing_notifications.REASON, missing_only=True)
