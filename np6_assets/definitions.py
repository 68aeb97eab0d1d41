"""Wiring: settings become Definitions. The only module that reads the environment; nothing else happens here."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
import pyarrow as pa

from np6_assets.accounts import environment_of, variable_of
from np6_assets.events.assets import event_asset, notifications_asset
from np6_assets.events.checks import event_checks
from np6_assets.events.kinds import KINDS
from np6_assets.freshness import freshness_checks, freshness_schedule
from np6_assets.np6.resource import NP6Resource
from np6_assets.privacy.erasure import erase_receiver
from np6_assets.privacy.retention import apply_retention, retention_schedule
from np6_assets.privacy.treatment import treat_contact_data
from np6_assets.rates.assets import rates_asset
from np6_assets.rates.checks import rates_checks
from np6_assets.refresh.follow import rates_follow
from np6_assets.refresh.late_checks import lateness_checks, lateness_schedule
from np6_assets.refresh.recount import recount_job
from np6_assets.refresh.schedule import daily_ingest
from np6_assets.refresh.sensor import np6_refresh
from np6_assets.report.assets import report_asset
from np6_assets.runs.alive import alive
from np6_assets.runs.dead import dead_runs_sensor
from np6_assets.runs.records import records_schedule, remove_old_records
from np6_assets.settings import Settings, SettingsError
from np6_assets.storage.io_manager import ParquetIOManager, ParquetStore

# Arrow's own allocator hands each large buffer back to the system and asks for it anew: a fifth of the time of writing
# Parquet, and 80 MB more at the peak.
pa.set_memory_pool(pa.system_memory_pool())
# glibc's would keep apart what each of a dozen threads has freed: 90 MB at the peak of a large day.
if hasattr(libc := ctypes.CDLL(None), "mallopt"):
    libc.mallopt(_M_ARENA_MAX := -8, 2)

# Beta in Dagster 1.13, and needed: single-run backfills, partition mappings that reach past the newest partition, and
# links from an asset to its code.
warnings.filterwarnings(
    "ignore",
    r"Parameter `(backfill_policy|allow_nonexistent_upstream_partitions)`"
    r"|Function `with_source_code_references`|Class `(LocalFileCodeReference|CodeReferencesMetadataValue)`",
    dg.BetaWarning,
)
# A preview, and needed: a check is of a partition.
warnings.filterwarnings("ignore", r"Specifying a partitions_def on an AssetCheckSpec", dg.PreviewWarning)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def build_definitions(settings: Settings, now: Callable[[], datetime] = _utc_now) -> dg.Definitions:
    """The definitions of one deployment. `now` tells the time, as an aware datetime."""
    store = ParquetStore(data_dir=settings.data_dir)
    assets = [
        *(event_asset(kind, settings, now) for kind in KINDS),
        notifications_asset(settings, now),
        rates_asset(settings, now),
        report_asset(settings, now),
    ]
    freshness = freshness_checks(settings, now)
    lateness = lateness_checks(settings, now)
    retention = apply_retention(settings, now)
    sensors = [np6_refresh(settings, now), rates_follow(settings, now), dead_runs_sensor()]
    schedules = [
        daily_ingest(settings),
        freshness_schedule(freshness, settings),
        lateness_schedule(lateness, settings),
        retention_schedule(retention, settings),
    ]
    ticking = [*(sensor.name for sensor in sensors), *(schedule.name for schedule in schedules)]
    records = remove_old_records(settings, {key for asset in assets for key in asset.keys}, ticking, now)
    return dg.Definitions(
        assets=dg.with_source_code_references(
            dg.map_asset_specs(lambda spec: spec.replace_attributes(owners=[settings.owner]), assets)
        ),
        asset_checks=[
            *(event_checks(kind, settings) for kind in KINDS),
            rates_checks(settings),
            freshness,
            lateness,
        ],
        jobs=[retention, erase_receiver(settings), treat_contact_data(settings), recount_job(settings), records],
        sensors=sensors,
        schedules=[*schedules, records_schedule(records, settings)],
        resources={
            "np6": NP6Resource(
                base_url=settings.base_url, max_concurrent_requests=settings.max_concurrent_requests
            ).definition(dg.EnvVar(variable_of("NP6_API_KEY", settings.account)) if settings.has_api_key else None),
            "store": store.definition(alive),
            "io_manager": ParquetIOManager(store=store).definition(),
        },
        # One process a run: the work is threaded, and a process for each step costs seconds and memory.
        executor=dg.in_process_executor,
    )


def account(name: str) -> dg.Definitions:
    """The definitions of one of several accounts. Raises SettingsError, with its name."""
    environment = environment_of(os.environ, name)
    try:
        return build_definitions(Settings.from_environment(environment, name))
    except SettingsError as error:
        own = variable_of("NP6_", name)
        raise SettingsError(f"account {name}: {error} (variables of its own begin with {own})") from None


defs = build_definitions(Settings.from_environment(os.environ))
