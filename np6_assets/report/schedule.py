"""The schedule `morning_report`: writes the report each morning, when yesterday is complete."""

from __future__ import annotations

import dagster as dg

from np6_assets.settings import Settings

SCHEDULE = "morning_report"


def build_report_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Define the schedule. It is on unless somebody stops it: it reads what is stored and requests nothing."""
    rates, names = (dg.AssetKey(settings.key(asset)) for asset in ("reactivity_rates", "notifications"))

    def request_run(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        for key in (rates, names):
            if context.instance.get_latest_materialization_event(key) is None:
                return dg.SkipReason(f"{key.path[-1]} is not materialized yet: there is nothing to report on.")
        return dg.RunRequest()

    return dg.ScheduleDefinition(
        name=settings.named(SCHEDULE),
        job=dg.define_asset_job(
            settings.named("write_report"),
            selection=dg.AssetSelection.assets(settings.key("reactivity_report")),
            description="Writes the report anew from what is stored.",
            executor_def=dg.in_process_executor,
        ),
        cron_schedule=f"15 {settings.fresh_by_hour} * * *",
        execution_timezone=settings.timezone,
        execution_fn=request_run,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            f"At {settings.fresh_by_hour:02}:15 ({settings.timezone}), a quarter of an hour after the hour by which "
            "yesterday must be complete (NP6_FRESH_BY_HOUR): writes the report anew."
        ),
    )
