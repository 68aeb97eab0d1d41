"""The schedule `daily_ingest`: each night yesterday in full, the days before it again, and older days once more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import dagster as dg

from np6_assets.contact.days import first_kept
from np6_assets.partition_checks import Records
from np6_assets.partitions import consecutive
from np6_assets.refresh import jobs, unanswered
from np6_assets.refresh.lateness import confirmation_age, days_old_enough, unconfirmed
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

CRON = "30 3 * * *"
"""Half past three: yesterday has ended by more than the default overlap, and no clock change skips or repeats it."""


def daily_ingest(settings: Settings) -> dg.ScheduleDefinition:
    """The schedule. It does not run until it is turned on: it spends the account's rate limit."""

    def ask(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if settings.missing is not None:
            yield dg.SkipReason(settings.missing)
            return
        yesterday = context.scheduled_execution_time.date() - timedelta(days=1)
        if yesterday < settings.start_date:
            yield dg.SkipReason(f"{yesterday} is before NP6_START_DATE, which is {settings.start_date}.")
            return

        def ask_for(first: date, last: date, why: str) -> dg.RunRequest:
            key = f"{yesterday} {first}"  # Dagster wants one where there are several
            return jobs.request(settings, str(first), str(last), why, full_refresh=True, run_key=key)

        first = max(yesterday - timedelta(days=settings.trailing_days), settings.start_date)
        why = f"{yesterday} in full" + (f", and again the days from {first} on" if first < yesterday else "")
        yield ask_for(first, yesterday, why)
        today = yesterday + timedelta(days=1)
        kept = first_kept(settings, context.scheduled_execution_time)
        folder = Folder(settings.data_dir)
        old = days_old_enough(folder, settings, today)
        if old := [day for day in old if kept <= day < first]:
            old = unconfirmed(old, Records(context.instance, settings), settings)
        for run in consecutive(old):
            why = f"once more, as no fetch was made since it was {confirmation_age(settings)} days old"
            yield ask_for(run[0], run[-1], why)
        from np6_assets.refresh.event_files import EventFiles

        files = EventFiles(settings)
        files.look(folder)
        again = [
            day for day in unanswered.incomplete(files, folder, settings) if kept <= day < first and day not in old
        ]
        if again:
            again = unanswered.due(
                again, Records(context.instance, settings), settings, context.scheduled_execution_time
            )
        for run in consecutive(again):
            days, key = (str(run[0]), str(run[-1])), f"{yesterday} {run[0]} missing"
            yield jobs.request(settings, *days, unanswered.WHY, missing_only=True, run_key=key)

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
        execution_fn=ask,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=(
            f"At half past three at night ({settings.timezone}): fetches yesterday and the {settings.trailing_days} "
            "days before it in full, the names of the notifications, and each older day once more when its window has "
            "closed."
        ),
    )
