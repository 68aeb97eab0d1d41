"""Build the definitions of an account from its settings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import dagster as dg

from np6_assets.events.assets import build_event_asset, build_notifications_asset
from np6_assets.events.checks import build_event_checks
from np6_assets.events.kinds import KINDS
from np6_assets.memory import reduce_memory
from np6_assets.np6.resource import NP6Resource, utc_now
from np6_assets.partition_checks import build_morning_schedule
from np6_assets.privacy.erasure import erase_receiver
from np6_assets.privacy.retention import apply_retention, build_retention_schedule
from np6_assets.privacy.treatment import treat_contact_data
from np6_assets.rates.assets import build_rates_asset
from np6_assets.rates.checks import build_rates_checks
from np6_assets.refresh.freshness import build_freshness_checks
from np6_assets.refresh.late_event_checks import build_lateness_checks
from np6_assets.refresh.recount import recount_job
from np6_assets.refresh.schedule import daily_ingest
from np6_assets.refresh.sensors import np6_refresh, rates_follow
from np6_assets.report.assets import build_report_asset
from np6_assets.report.schedule import build_report_schedule
from np6_assets.resources import IO_MANAGER, NP6, STORE
from np6_assets.runs.dead_runs import build_dead_runs_sensor
from np6_assets.runs.records import build_records_schedule, remove_old_records
from np6_assets.runs.run_watch import watch_run
from np6_assets.sandbox import simulated_account
from np6_assets.settings import OWNER, Settings
from np6_assets.storage.io_manager import ParquetIOManager, ParquetStore
from np6_assets.storage.places import claim_folder

# Beta in Dagster 1.13, and needed: single-run backfills, partition mappings that reach past the newest partition, and
# links from an asset to its code.
_BETA = (
    r"Parameter `(backfill_policy|allow_nonexistent_upstream_partitions)`"
    r"|Function `with_source_code_references`|Class `(LocalFileCodeReference|CodeReferencesMetadataValue)`"
)
# A preview, and needed: a check is of a partition.
_PREVIEW = r"Specifying a partitions_def on an AssetCheckSpec"


def build_definitions(
    settings: Settings,
    now: Callable[[], datetime] = utc_now,
    label: Callable[[dg.AssetSpec], dg.AssetSpec] | None = None,
) -> dg.Definitions:
    """Build the definitions of one account. `now` returns the time, as an aware datetime; `label` labels an asset.

    Every name begins with the account's prefix, so that they merge with other definitions. They hold no executor: the
    deployment chooses it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _BETA, dg.BetaWarning)
        warnings.filterwarnings("ignore", _PREVIEW, dg.PreviewWarning)
        return _build_definitions(settings, now, label or (lambda spec: spec.replace_attributes(owners=[OWNER])))


def _build_definitions(
    settings: Settings, now: Callable[[], datetime], label: Callable[[dg.AssetSpec], dg.AssetSpec]
) -> dg.Definitions:
    store = ParquetStore(data_dir=settings.data_dir)
    assets = [
        *(build_event_asset(kind, settings, now) for kind in KINDS),
        build_notifications_asset(settings, now),
        build_rates_asset(settings, now),
        build_report_asset(settings, now),
    ]
    freshness = build_freshness_checks(settings, now)
    lateness = build_lateness_checks(settings, now)
    retention = apply_retention(settings, now)
    sensors = [np6_refresh(settings, now), rates_follow(settings, now), build_dead_runs_sensor(settings)]
    schedules = [
        daily_ingest(settings),
        build_morning_schedule(
            "freshness", freshness, settings, "whether every daily asset has the day before, complete"
        ),
        build_morning_schedule(
            "lateness", lateness, settings, "whether late events are fetched, and whether closed days gained any"
        ),
        build_retention_schedule(retention, settings),
        build_report_schedule(settings),
    ]
    ticking = [*(sensor.name for sensor in sensors), *(schedule.name for schedule in schedules)]
    records = remove_old_records(settings, {key for asset in assets for key in asset.keys}, ticking, now)
    api = NP6Resource(base_url=settings.base_url, max_concurrent_requests=settings.max_concurrent_requests)
    folder = store.build_definition(_prepare_run)
    claim_folder(settings, folder)
    return dg.Definitions(
        assets=dg.with_source_code_references(dg.map_asset_specs(label, assets)),
        asset_checks=[
            *(build_event_checks(kind, settings) for kind in KINDS),
            build_rates_checks(settings),
            freshness,
            lateness,
        ],
        jobs=[retention, erase_receiver(settings), treat_contact_data(settings), recount_job(settings), records],
        sensors=sensors,
        schedules=[*schedules, build_records_schedule(records, settings)],
        resources={
            settings.named(NP6): api.build_definition(settings, simulated_account),
            settings.named(STORE): folder,
            settings.named(IO_MANAGER): ParquetIOManager(store=store).build_definition(),
        },
    )


@contextmanager
def _prepare_run(context: dg.InitResourceContext) -> Iterator[None]:
    """Watch the run and reduce its memory while the block runs; do nothing outside of a run."""
    if context.run is None:
        yield
        return
    with watch_run(context), reduce_memory():
        yield
