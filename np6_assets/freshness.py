"""Freshness: yesterday, whole, must be there by a set hour. A check of each daily asset, and the schedule that looks.

Dagster's own freshness policies look at an asset and not at its partitions: an old day fetched again makes it fresh.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg

from np6_assets.events.kinds import KINDS
from np6_assets.partition_checks import Finding, Records, morning_schedule, whole_checks
from np6_assets.partitions import Day, day_of
from np6_assets.rates.checks import ASSET as RATES
from np6_assets.resources import store_of
from np6_assets.settings import Settings

if TYPE_CHECKING:
    from np6_assets.events.store import EventStore

CHECK = "yesterday_there"


def freshness_checks(settings: Settings, now: Callable[[], datetime]) -> dg.AssetChecksDefinition:
    """The checks, in one step."""
    kinds = {kind.asset: kind for kind in KINDS}
    hour = f"{settings.fresh_by_hour:02}:00"
    description = f"By {hour} the day before is there, and it was materialized after it had ended."

    specs = [dg.AssetCheckSpec(CHECK, asset=settings.key(asset), description=description) for asset in (*kinds, RATES)]

    def examine(context: dg.AssetCheckExecutionContext) -> Callable[[str], Finding]:
        from np6_assets.events.store import EventStore

        day, folder = due(now(), settings), store_of(context, settings).folder()

        def look(asset: str) -> Finding:
            if day.date < settings.start_date:
                finding = Finding(True, "no day is due yet")
            elif asset in kinds:
                finding = _fetched(day, EventStore(folder, kinds[asset], settings))
            else:
                finding = _computed(day, Records(context.instance, settings))
            return replace(finding, metadata={"day": day.key})

        return look

    return whole_checks("freshness", specs, settings, examine)


def freshness_schedule(checks: dg.AssetChecksDefinition, settings: Settings) -> dg.ScheduleDefinition:
    """Looks once a day, at the hour by which yesterday must be there."""
    return morning_schedule(
        "freshness",
        checks,
        settings,
        "Checks at the set hour whether the day before is there, whole, in every daily asset.",
        "Checks whether the day before is there, whole, in every daily asset.",
    )


def due(now: datetime, settings: Settings) -> Day:
    """The last day that must be there by now."""
    local = now.astimezone(ZoneInfo(settings.timezone))
    days = 1 if local.time() >= time(settings.fresh_by_hour) else 2
    return day_of((local.date() - timedelta(days=days)).isoformat(), settings.timezone)


def _fetched(day: Day, store: "EventStore") -> Finding:
    stored = store.stored(day)
    if stored is None:
        return Finding(False, f"{day.key} is not there")
    # a day that is fetched after its end, and not late enough to be closed, says a millisecond before its end
    if stored.watermark is None or stored.watermark < day.end - timedelta(milliseconds=1):
        return Finding(False, f"{day.key} was fetched before it had ended, and not since")
    return Finding(True, f"{day.key} is there")


def _computed(day: Day, records: Records) -> Finding:
    record = records.newest(RATES, [day.key]).get(day.key)
    if record is None:
        return Finding(False, f"{day.key} is not there")
    if record.timestamp < day.end.timestamp():
        return Finding(False, f"{day.key} was computed before it had ended, and not since")
    return Finding(True, f"{day.key} is there")
