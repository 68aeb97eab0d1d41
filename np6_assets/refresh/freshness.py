"""Freshness: yesterday must be complete by a set hour. A check of each daily asset, and its schedule.

Dagster's own freshness policies judge an asset and not its partitions: an old day fetched again makes it fresh.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg

from np6_assets.events.kinds import KINDS
from np6_assets.partition_checks import Finding, Records, build_asset_checks
from np6_assets.partitions import Day, parse_day
from np6_assets.rates.checks import ASSET as RATES
from np6_assets.resources import get_store
from np6_assets.settings import Settings

if TYPE_CHECKING:
    from np6_assets.events.store import EventStore

CHECK = "yesterday_there"


def build_freshness_checks(settings: Settings, now: Callable[[], datetime]) -> dg.AssetChecksDefinition:
    """Define the checks, in one step."""
    kinds = {kind.asset: kind for kind in KINDS}
    hour = f"{settings.fresh_by_hour:02}:00"
    description = f"By {hour} the day before is complete: it was materialized after it had ended."

    def examine(context: dg.AssetCheckExecutionContext) -> Callable[[str], Finding]:
        from np6_assets.events.store import EventStore

        day, folder = find_due_day(now(), settings), get_store(context, settings).open_folder()

        def check(asset: str) -> Finding:
            if day.date < settings.start_date:
                finding = Finding(True, "no day is due yet")
            elif asset in kinds:
                finding = _check_events(day, EventStore(folder, kinds[asset], settings))
            else:
                finding = _check_rates(day, Records(context.instance, settings))
            return replace(finding, metadata={"day": day.key})

        return check

    return build_asset_checks("freshness", CHECK, (*kinds, RATES), description, settings, examine)


def find_due_day(now: datetime, settings: Settings) -> Day:
    """Find the last day that must be complete by now."""
    local = now.astimezone(ZoneInfo(settings.timezone))
    days = 1 if local.time() >= time(settings.fresh_by_hour) else 2
    return parse_day((local.date() - timedelta(days=days)).isoformat(), settings.timezone)


def _check_events(day: Day, store: "EventStore") -> Finding:
    stored = store.read_day(day)
    if stored is None:
        return Finding(False, f"{day.key} is missing")
    # a day that is fetched after its end, and not late enough to be closed, says a millisecond before its end
    if stored.watermark is None or stored.watermark < day.end - timedelta(milliseconds=1):
        return Finding(False, f"{day.key} was fetched before it had ended, and not since")
    return Finding(True, f"{day.key} is complete")


def _check_rates(day: Day, records: Records) -> Finding:
    record = records.newest(RATES, [day.key]).get(day.key)
    if record is None:
        return Finding(False, f"{day.key} is missing")
    if record.timestamp < day.end.timestamp():
        return Finding(False, f"{day.key} was computed before it had ended, and not since")
    return Finding(True, f"{day.key} is complete")
