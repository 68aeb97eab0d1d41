"""The check of late-arriving events: whether anything catches them, and what the fetches of closed days gained."""

import math
from collections.abc import Callable
from datetime import date, datetime, timedelta

import dagster as dg

from np6_assets.contact.days import today
from np6_assets.dagster_private import instigators_on
from np6_assets.partition_checks import Finding, Records, morning_schedule, whole_checks
from np6_assets.partitions import day_of
from np6_assets.refresh.jobs import EVENT_ASSETS, catchers_of_late_events
from np6_assets.refresh.lateness import OLDEST, fetched_at, number_of
from np6_assets.settings import Settings

CHECK = "late_events"

_EARLIER_RECORDS = 5


def lateness_checks(settings: Settings, now: Callable[[], datetime]) -> dg.AssetChecksDefinition:
    """The checks, in one step."""
    description = (
        "A sensor or a schedule that catches late-arriving events is on, and no fetch of a closed day of the last "
        f"{OLDEST} brought any. Where one did, the result names the lookback that would have had them."
    )

    catchers = catchers_of_late_events(settings)
    specs = [dg.AssetCheckSpec(CHECK, asset=settings.key(asset), description=description) for asset in EVENT_ASSETS]

    def examine(context: dg.AssetCheckExecutionContext) -> Callable[[str], Finding]:
        is_on = bool(instigators_on(context.instance, catchers))

        def look(asset: str) -> Finding:
            finding = gains(context.instance, settings, asset, today(settings, now()))
            if is_on:
                return finding
            text = f"neither {catchers[0]} nor {catchers[1]} is on: nothing catches late events; turn one on"
            return Finding(False, text if finding.passed else f"{text}; {finding.text}", finding.metadata)

        return look

    return whole_checks("lateness", specs, settings, examine)


def lateness_schedule(checks: dg.AssetChecksDefinition, settings: Settings) -> dg.ScheduleDefinition:
    """Looks once a day, with the schedule `freshness`, after the nightly fetches."""
    return morning_schedule(
        "lateness",
        checks,
        settings,
        "Checks once a day whether late events are caught, and whether closed days gained any.",
        "Checks whether late events are caught, and whether closed days gained any.",
    )


def gains(instance: dg.DagsterInstance, settings: Settings, asset: str, newest: date) -> Finding:
    """Whether fetches of days that had been closed brought events that came late, and the lookback that they ask for.

    Looked at are the newest fetches of the days up to OLDEST days old.
    """
    days = [newest - timedelta(days=ago) for ago in range(OLDEST, 0, -1)]
    gained: dict[str, int] = {}
    lookback = timedelta()
    for day, record in Records(instance, settings).newest(asset, [str(day) for day in days]).items():
        end = day_of(day, settings.timezone).end
        number = int(number_of(record, "events_gained") or 0)
        earlier = _fetched_before(instance, settings, asset, day, record) if number > 0 else None
        if earlier is None or _missing(earlier) - _missing(record):
            continue  # a notification that had not answered does now: its sends were not late
        before = fetched_at(earlier, date.fromisoformat(day), settings.timezone)
        if before is not None and before >= end + settings.lookback:
            gained[day] = number
            lookback = max(lookback, before - end)
    if not gained:
        return Finding(True, "no fetch of a closed day brought events that came late")
    told = ", ".join(f"{day}: {number}" for day, number in sorted(gained.items()))
    minutes = math.ceil(lookback.total_seconds() / 60)
    text = f"events came after their day was closed ({told}); set NP6_LOOKBACK_MINUTES above {minutes}"
    return Finding(False, text, {"events_gained": gained, "lookback_minutes": minutes})


def _fetched_before(
    instance: dg.DagsterInstance, settings: Settings, asset: str, day: str, record: dg.EventLogRecord
) -> dg.EventLogRecord | None:
    """The record of the fetch before a recorded one."""
    earlier = dg.AssetRecordsFilter(
        dg.AssetKey(settings.key(asset)), asset_partitions=[day], before_storage_id=record.storage_id
    )
    newest = fetched_at(record, date.fromisoformat(day), settings.timezone)
    for one in instance.fetch_materializations(earlier, limit=_EARLIER_RECORDS).records:
        at = fetched_at(one, date.fromisoformat(day), settings.timezone)
        if at is not None and at != newest:  # of a range, each day's record is written twice
            return one
    return None


def _missing(record: dg.EventLogRecord) -> set[int]:
    """The notifications that a fetch lacked."""
    materialization = record.asset_materialization
    found = materialization and materialization.metadata.get("notifications_missing")
    value = found.value if found else None
    return set(value) if isinstance(value, list) else set()
