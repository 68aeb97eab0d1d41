"""The asset `reactivity_report`: one HTML file that anybody can open."""

from collections.abc import Callable
from datetime import datetime

import dagster as dg
from pydantic import Field

from np6_assets import markdown
from np6_assets.partitions import day_at
from np6_assets.resources import IO_MANAGER, STORE, get_store, list_resource_keys
from np6_assets.settings import Settings
from np6_assets.storage.io_manager import ALLOW_MISSING, Dataset

REPORT = "reactivity_report/report.html"
"""The report's path below the data folder."""


class ReportConfig(dg.Config):
    """The config of a run."""

    days: int = Field(
        default=90, ge=1, le=3660, description="How many days of sends the report is on, up to yesterday."
    )


def build_report_asset(settings: Settings, now: Callable[[], datetime]) -> dg.AssetsDefinition:
    """Define the report on the newest cohorts."""

    def every_day(asset: str) -> dg.AssetIn:
        mapping = dg.AllPartitionMapping()
        return dg.AssetIn(settings.key(asset), partition_mapping=mapping, metadata={ALLOW_MISSING: True})

    @dg.asset(
        key=settings.key("reactivity_report"),
        description=(
            "The rates as one HTML page for people who never open Dagster: what changed, the rates over time, the best "
            f"time to send, notifications, versions, applications and bounces. It is written to `{REPORT}` in the data "
            "folder each morning, needs no network and holds no data of a receiver."
        ),
        group_name=settings.named("rates"),
        kinds={"python", "duckdb", "html"},
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys=list_resource_keys(settings, STORE),
        io_manager_key=settings.named(IO_MANAGER),
        ins={
            "notifications": dg.AssetIn(settings.key("notifications")),
            **{asset: every_day(asset) for asset in ("reactivity_rates", "activations", "hits", "bounces")},
        },
    )
    def reactivity_report(
        context: dg.AssetExecutionContext, config: ReportConfig, **stored: Dataset
    ) -> dg.MaterializeResult[None]:
        try:
            from np6_assets.report.page import render_page
            from np6_assets.report.queries import read_report_data
            from np6_assets.report.sentences import write_opening
        except ModuleNotFoundError as error:
            text = f"the report needs {error.name}, which is not installed: pip install 'np6-assets[report]'"
            raise dg.Failure(text, allow_retries=False) from None

        made_at = now()
        today = day_at(made_at, settings.timezone).date
        report = read_report_data(stored, settings.timezone, today, config.days)
        sentences = write_opening(report)
        page = render_page(report, sentences, made_at, settings.timezone).encode()
        folder = get_store(context, settings).open_folder()
        with folder.replace(REPORT) as file:
            file.write(page)
        rates = {measure.column: report.total.shares[measure.column].rate for measure in report.measures}
        return dg.MaterializeResult(
            metadata={
                "what_changed": dg.MetadataValue.md("\n".join(f"- {markdown.escaped(one.text)}" for one in sentences)),
                "sends": report.total.sends,
                **{f"{name}_percent": round(rate * 100, 2) for name, rate in rates.items() if rate is not None},
                "first_cohort": str(report.first),
                "last_cohort": str(report.last),
                "notifications": len(report.notifications),
                "provisional_cohorts": len(report.provisional),
                "incomplete_cohorts": len(report.incomplete),
                "never_loaded_cohorts": len(report.never_loaded),
                "path": dg.MetadataValue.path(folder.path(REPORT)),
                "bytes": len(page),
            }
        )

    return reactivity_report
