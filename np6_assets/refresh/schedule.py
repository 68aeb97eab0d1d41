"""The schedule `daily_ingest`: each night yesterday in full, and the days before it again."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from np6_assets.refresh import jobs
from np6_assets.settings import Settings

CRON = "30 3 * * *"
"""Half past three: yesterday has ended by more than the default overlap, and no clock change skips or repeats it."""


def daily_ingest(settings: Settings) -> dg.ScheduleDefinition:
    """The schedule. It does not run until it is turned on: it spends the account's rate limit."""

    def ask(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if settings.missing is not None:
            return dg.SkipReason(settings.missing)
        yesterday = context.scheduled_execution_time.date() - timedelta(days=1)
        if yesterday < settings.start_date:
            return dg.SkipReason(f"{yesterday} is before NP6_START_DATE, which is {settings.start_date}.")
        first = max(yesterday - timedelta(days=settings.trailing_days), settings.start_date)
        why = f"{yesterday} in full" + (f", and again the days from {first} on" if first < yesterday else "")
        return jobs.request(settings, str(first), str(yesterday), why, full_refresh=True)

    return dg.ScheduleDefinition(
        name="daily_ingest",
        job=dg.define_asset_job(
            settings.named(jobs.DAILY_INGEST),
            selection=dg.AssetSelection.assets(*map(settings.key, (*jobs.EVENT_ASSETS, "notifications"))),
            description="Fetches event days, and the list of notifications, in one run.",
        ),
        cron_schedule=CRON,
        execution_timezone=settings.timezone,
        execution_fn=ask,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=(
            f"At half past three at night ({settings.timezone}), in one run: yesterday in full, the names of the "
            f"notifications, and the {settings.trailing_days} days before yesterday in full again. How many events "
            "those days gained (events_gained), and how long after their end (hours_after_end), is in the metadata of "
            "each: what a gain shows is an overlap that is too short. A night that was missed is not made up for, as "
            "np6_refresh closes every day."
        ),
    )
