"""The check of late-arriving events: whether anything fetches them, and what fetches of closed days gained."""

import math
from collections.abc import Callable
from datetime import date, datetime, timedelta

import dagster as dg

from np6_assets.contact.days import get_today
from np6_assets.dagster_private import list_running_instigators
from np6_assets.partition_checks import Finding, Records, build_asset_checks, read_metadata
from np6_assets.partitions import parse_day
from np6_assets.refresh.confirmation import OLDEST, read_fetch_time
from np6_assets.refresh.jobs import EVENT_ASSETS, name_late_event_fetchers
from np6_assets.settings import Settings

CHECK = "late_events"

_EARLIER_RECORDS = 5


def build_lateness_checks(settings: Settings, now: Callable[[], datetime]) -> dg.AssetChecksDefinition:
    """Define the checks, in one step."""
    description = (
        "A sensor or a schedule that fetches late-arriving events is on, and no fetch of a closed day of the last "
        f"{OLDEST} brought any. Where one did, the result names the lookback that would have included them."
    )
    fetchers = name_late_event_fetchers(settings)

    def examine(context: dg.AssetCheckExecutionContext) -> Callable[[str], Finding]:
        is_on = bool(list_running_instigators(context.instance, fetchers))

        def check(asset: str) -> Finding:
            finding = find_gains(context.instance, settings, asset, get_today(settings, now()))
            if is_on:
                return finding
            text = f"neither {fetchers[0]} nor {fetchers[1]} is on: nothing fetches late events; turn one on"
            return Finding(False, text if finding.passed else f"{text}; {finding.text}", finding.metadata)

        return check

    return build_asset_checks("lateness", CHECK, EVENT_ASSETS, description, settings, examine)


def find_gains(instance: dg.DagsterInstance, settings: Settings, asset: str, newest: date) -> Finding:
    """Find the late events that the newest fetches of closed days brought, and the lookback that would include them.

    Days up to OLDEST days old count.
    """
    days = [str(newest - timedelta(days=ago)) for ago in range(OLDEST, 0, -1)]
    gained: dict[str, int] = {}
    lookback = timedelta()
    for day, record in Records(instance, settings).newest(asset, days).items():
        number = int(read_metadata(record, "events_gained") or 0)
        earlier = _find_fetch_before(instance, settings, asset, day, record) if number > 0 else None
        if earlier is None or _read_missing(earlier) - _read_missing(record):
            continue  # the events of a notification that had not answered before are not late
        before = read_fetch_time(earlier, day, settings.timezone)
        end = parse_day(day, settings.timezone).end
        if before is not None and before >= end + settings.lookback:
            gained[day] = number
            lookback = max(lookback, before - end)
    if not gained:
        return Finding(True, "no fetch of a closed day brought late events")
    days_text = ", ".join(f"{day}: {number}" for day, number in sorted(gained.items()))
    minutes = math.ceil(lookback.total_seconds() / 60)
    text = f"late events came after their day was closed ({days_text}); set NP6_LOOKBACK_MINUTES above {minutes}"
    return Finding(False, text, {"events_gained": gained, "lookback_minutes": minutes})


def _find_fetch_before(
    instance: dg.DagsterInstance, settings: Settings, asset: str, day: str, record: dg.EventLogRecord
) -> dg.EventLogRecord | None:
    key = dg.AssetKey(settings.key(asset))
    earlier = dg.AssetRecordsFilter(key, asset_partitions=[day], before_storage_id=record.storage_id)
    newest = read_fetch_time(record, day, settings.timezone)
    for one in instance.fetch_materializations(earlier, limit=_EARLIER_RECORDS).records:
        # of a range, each day's record is written twice
        if read_fetch_time(one, day, settings.timezone) not in (None, newest):
            return one
    return None


def _read_missing(record: dg.EventLogRecord) -> set[int]:
    return set(read_metadata(record, "notifications_missing") or ())
