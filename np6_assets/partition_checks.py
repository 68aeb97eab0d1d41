"""Build asset checks that give each partition of a run, also of a range, its own evaluation.

`events/checks.py` and `rates/examine.py` find what is wrong with a partition; this module records it in Dagster.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

from np6_assets.dagster_private import CheckTarget, get_materialized_partitions
from np6_assets.partitions import daily
from np6_assets.resources import STORE, get_store, list_resource_keys
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

WARN = dg.AssetCheckSeverity.WARN
ERROR = dg.AssetCheckSeverity.ERROR

_RECORDS_PER_PAGE = 1000
_MOST_NAMED = 12
"""How many partitions a summary names."""


@dataclass(frozen=True)
class Check:
    """A check of each partition. `blocking`: its errors fail the run, so that downstream assets do not run."""

    name: str
    description: str
    severity: dg.AssetCheckSeverity = WARN
    blocking: bool = False


@dataclass(frozen=True)
class Finding:
    """The result of a check in one line, with figures. `tolerated`: a failure is a warning, whatever the severity."""

    passed: bool
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tolerated: bool = False


class Records:
    """Reads the newest materialization of each partition, and caches it for the run."""

    def __init__(self, instance: dg.DagsterInstance, settings: Settings) -> None:
        self._instance = instance
        self._settings = settings
        self._known: dict[tuple[str, tuple[str, ...]], dict[str, dg.EventLogRecord]] = {}

    def newest(self, asset: str, partitions: Sequence[str]) -> Mapping[str, dg.EventLogRecord]:
        """Return the newest record by partition; none for partitions that were never materialized."""
        asked = asset, tuple(partitions)
        if asked in self._known:
            return self._known[asked]
        wanted = dg.AssetRecordsFilter(dg.AssetKey(self._settings.key(asset)), asset_partitions=list(partitions))
        found = self._known[asked] = {}
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


def read_metadata(record: dg.EventLogRecord | None, name: str) -> Any:
    """Return a value of a materialization's metadata; None where there is none."""
    materialization = None if record is None else record.asset_materialization
    found = None if materialization is None else materialization.metadata.get(name)
    return None if found is None else found.value


Examine = Callable[[Folder, Sequence[str], Records], Iterator[tuple[str, Mapping[str, Finding]]]]
"""Examines partitions of an asset: yields each partition key with its findings by check name."""

NOT_THERE = Finding(False, "was never materialized; materialize it first", tolerated=True)


def _define_step(
    name: str, specs: Sequence[dg.AssetCheckSpec], settings: Settings
) -> Callable[[Callable[..., Iterator[Any]]], dg.AssetChecksDefinition]:
    keys = list_resource_keys(settings, STORE)
    return dg.multi_asset_check(name=settings.named(name), specs=specs, can_subset=True, required_resource_keys=keys)


def build_partition_checks(
    asset: str, checks: Sequence[Check], settings: Settings, examine: Examine
) -> dg.AssetsDefinition:
    """Build the checks of an asset as one step, with an evaluation for each partition and a summary of all."""
    days = daily(settings.start_date, settings.timezone)
    key = dg.AssetKey(settings.key(asset))
    severities = {check.name: check.severity for check in checks}
    specs = [
        dg.AssetCheckSpec(
            check.name, asset=key, description=check.description, blocking=check.blocking, partitions_def=days
        )
        for check in checks
    ]

    @_define_step(f"{asset}_checks", specs, settings)
    def look(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        records = Records(context.instance, settings)
        # the UI can start a check without a partition
        keys = list_run_partitions(context, settings) or sorted(get_materialized_partitions(context.instance, key))[-1:]
        targets = records.newest(asset, keys)
        selected = [spec for spec in specs if spec.key in context.selected_asset_check_keys]
        failed: dict[str, list[str]] = {spec.name: [] for spec in selected}
        for partition, findings in _each(
            keys, examine(get_store(context, settings).open_folder().cache_listing(), keys, records)
        ):
            for spec in selected:
                finding = findings.get(spec.name, NOT_THERE)
                severity = WARN if finding.tolerated else severities[spec.name]
                text = f"{partition}: {finding.text}"
                yield _evaluation(spec, severity, partition, replace(finding, text=text), targets.get(partition))
                failed[spec.name] += [] if finding.passed else [partition]
        for spec in selected:
            metadata = {"summary": summary(len(keys), failed[spec.name])}
            yield dg.Output(None, spec.get_python_identifier(), metadata=metadata)

    return look


def build_asset_checks(
    name: str,
    check: str,
    assets: Sequence[str],
    description: str,
    settings: Settings,
    examine: Callable[[dg.AssetCheckExecutionContext], Callable[[str], Finding]],
) -> dg.AssetChecksDefinition:
    """Build a check of whole assets as one step; it only warns. `examine` is called once a run.

    In a run of partitions each gets the same evaluation: Dagster shows a partition without one as skipped.
    """
    specs = [dg.AssetCheckSpec(check, asset=settings.key(asset), description=description) for asset in assets]

    @_define_step(name, specs, settings)
    def look(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        records = Records(context.instance, settings)
        keys = list_run_partitions(context, settings)
        examined = examine(context)
        for spec in specs:
            if spec.key not in context.selected_asset_check_keys:
                continue
            asset = spec.asset_key.path[-1]
            finding = examined(asset)
            if not keys:
                yield dg.AssetCheckResult(
                    asset_key=spec.asset_key,
                    check_name=spec.name,
                    passed=finding.passed,
                    severity=WARN,
                    description=finding.text,
                    metadata=finding.metadata,
                )
                continue
            targets = records.newest(asset, keys)
            for partition in keys:
                yield _evaluation(spec, WARN, partition, finding, targets.get(partition))
            yield dg.Output(None, spec.get_python_identifier(), metadata={"summary": finding.text})

    return look


def list_run_partitions(context: dg.AssetCheckExecutionContext, settings: Settings) -> list[str]:
    """Return the partitions of a check's run; none if it is for the whole asset."""
    op = context.op_execution_context
    if not (op.has_partition_key or op.has_partition_key_range):
        return []
    days = daily(settings.start_date, settings.timezone)
    return list(days.get_partition_keys_in_range(op.partition_key_range))


def summary(looked_at: int, failed: Sequence[str]) -> str:
    """Summarize the partitions of a run in one line."""
    days = f"{looked_at} day" if looked_at == 1 else f"{looked_at} days"
    if not failed:
        return f"{days}, all passed"
    more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
    return f"{days}, {len(failed)} failed: {', '.join(failed[:_MOST_NAMED])}{more}"


def _each(
    keys: Sequence[str], found: Iterator[tuple[str, Mapping[str, Finding]]]
) -> Iterator[tuple[str, Mapping[str, Finding]]]:
    """Yield the findings of each partition, empty for those that are not stored."""
    left = dict.fromkeys(keys)
    for partition, findings in found:
        left.pop(partition, None)
        yield partition, findings
    for partition in left:
        yield partition, {}


def build_morning_schedule(
    name: str, checks: dg.AssetChecksDefinition, settings: Settings, what: str
) -> dg.ScheduleDefinition:
    """Build a schedule that checks `what` daily, at the hour by which yesterday must be stored."""
    return dg.ScheduleDefinition(
        name=settings.named(name),
        description=f"Checks at {settings.fresh_by_hour:02}:00 {what}.",
        job=dg.define_asset_job(
            settings.named(f"check_{name}"),
            dg.AssetSelection.checks(checks),
            description=f"Checks {what}.",
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
        description=finding.text,
        metadata=finding.metadata,
        target_materialization_data=target
        and CheckTarget(storage_id=target.storage_id, run_id=target.run_id, timestamp=target.timestamp),
    )
