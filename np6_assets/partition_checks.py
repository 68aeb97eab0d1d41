"""Asset checks of partitions: each partition of a run, also of a run for a range, gets an evaluation of its own.

What is wrong with a partition, `events/checks.py` and `rates/examine.py` find; here it becomes what Dagster records.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from np6_assets.dagster_private import CheckTarget, materialized_partitions
from np6_assets.partitions import daily
from np6_assets.resources import STORE, keys_of, store_of
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

WARN = dg.AssetCheckSeverity.WARN
ERROR = dg.AssetCheckSeverity.ERROR

_RECORDS_PER_PAGE = 1000


@dataclass(frozen=True)
class Check:
    """A check of each partition. One that is `blocking` fails its run, and so stops what is downstream."""

    name: str
    description: str
    severity: dg.AssetCheckSeverity = WARN
    blocking: bool = False


@dataclass(frozen=True)
class Finding:
    """What a check found in a partition, in a line, with figures. `tolerated`: failed, and for once no error."""

    passed: bool
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tolerated: bool = False


class Records:
    """The newest materialization of each partition, as it was when it was first asked for."""

    def __init__(self, instance: dg.DagsterInstance, settings: Settings) -> None:
        self._instance = instance
        self._settings = settings
        self._known: dict[tuple[str, tuple[str, ...]], dict[str, dg.EventLogRecord]] = {}

    def newest(self, asset: str, partitions: Sequence[str]) -> Mapping[str, dg.EventLogRecord]:
        """The newest record of each of the partitions that were ever materialized."""
        asked = asset, tuple(partitions)
        if asked not in self._known:
            self._known[asked] = self._newest(asset, partitions)
        return self._known[asked]

    def _newest(self, asset: str, partitions: Sequence[str]) -> dict[str, dg.EventLogRecord]:
        wanted = dg.AssetRecordsFilter(dg.AssetKey(self._settings.key(asset)), asset_partitions=list(partitions))
        found: dict[str, dg.EventLogRecord] = {}
        cursor = None
        limit = min(len(partitions), _RECORDS_PER_PAGE)  # of a range that was just recorded these are all
        while len(found) < len(partitions):
            page = self._instance.fetch_materializations(wanted, limit=limit, cursor=cursor)
            for record in page.records:
                if record.partition_key is not None:
                    found.setdefault(record.partition_key, record)
            if not page.has_more:
                break
            cursor, limit = page.cursor, _RECORDS_PER_PAGE
        return found


Examine = Callable[[Folder, Sequence[str], Records], Iterator[tuple[str, Mapping[str, Finding]]]]
"""Looks at partitions of an asset: gives each one's key with what each check found, by the check's name."""


def partition_checks(asset: str, checks: Sequence[Check], settings: Settings, examine: Examine) -> dg.AssetsDefinition:
    """The checks of an asset, in one step. A partition that is not there is passed over."""
    days = daily(settings.start_date, settings.timezone)
    key = dg.AssetKey(settings.key(asset))
    severities = {check.name: check.severity for check in checks}
    specs = [
        dg.AssetCheckSpec(
            check.name, asset=key, description=check.description, blocking=check.blocking, partitions_def=days
        )
        for check in checks
    ]

    @dg.multi_asset_check(
        name=settings.named(f"{asset}_checks"),
        specs=specs,
        can_subset=True,
        required_resource_keys=keys_of(settings, STORE),
    )
    def look(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        records = Records(context.instance, settings)
        if context.op_execution_context.has_partition_key or context.op_execution_context.has_partition_key_range:
            keys = days.get_partition_keys_in_range(context.op_execution_context.partition_key_range)
        else:  # the UI can start a check without a partition
            keys = sorted(materialized_partitions(context.instance, key))[-1:]
        targets = records.newest(asset, keys)
        selected = [spec for spec in specs if spec.key in context.selected_asset_check_keys]
        for partition, findings in examine(store_of(context, settings).folder(), keys, records):
            for spec in selected:
                finding = findings[spec.name]
                severity = WARN if finding.tolerated else severities[spec.name]
                yield _evaluation(spec, severity, partition, finding, targets.get(partition))
        for spec in selected:
            yield dg.Output(None, spec.get_python_identifier())

    return look


def result_of(key: dg.AssetCheckKey, finding: Finding) -> dg.AssetCheckResult:
    """What a check of an asset as a whole has found; it warns."""
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=finding.passed,
        severity=WARN,
        description=finding.text,
        metadata=finding.metadata,
    )


def morning_schedule(
    name: str, checks: dg.AssetChecksDefinition, settings: Settings, description: str, job_description: str
) -> dg.ScheduleDefinition:
    """Looks once a day, at the hour by which yesterday must be there."""
    return dg.ScheduleDefinition(
        name=settings.named(name),
        description=description,
        job=dg.define_asset_job(
            settings.named(f"check_{name}"),
            dg.AssetSelection.checks(checks),
            description=job_description,
            executor_def=dg.in_process_executor,
        ),
        cron_schedule=f"0 {settings.fresh_by_hour} * * *",
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def _evaluation(
    spec: dg.AssetCheckSpec,
    severity: dg.AssetCheckSeverity,
    partition: str,
    finding: Finding,
    target: dg.EventLogRecord | None,
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        partition=partition,
        passed=finding.passed,
        severity=severity,
        blocking=spec.blocking,
        description=f"{partition}: {finding.text}",
        metadata=finding.metadata,
        target_materialization_data=target
        and CheckTarget(storage_id=target.storage_id, run_id=target.run_id, timestamp=target.timestamp),
    )
