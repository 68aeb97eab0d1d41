"""Plan which days the sensor `np6_refresh` requests, and say why, without Dagster and HTTP.

The files' watermarks say what is missing. The memory that a tick hands to the next one saves reading every day again
and counts the attempts; if it is lost, only the counts are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from np6_assets.partitions import Day, consecutive

MOST_ACTIVE_RUNS = 2
"""How many runs of the sensor may be in progress at once, however much is missing."""

DAYS_PER_RUN = 31

RECENT_DAYS_PER_RUN = 3
"""The longest run that may hold today and yesterday, for which people wait."""

NEW_DAYS_PER_TICK = 62
"""How many days that no tick has read yet one tick reads at most."""

MISSING_CHECK_INTERVAL = timedelta(hours=1)
"""How often closed days are searched for notifications that did not answer."""

FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=6)


@dataclass(frozen=True)
class DayWatermarks:
    """Until when a day is fetched and recorded, by asset; None where it never was."""

    day: Day
    watermarks: Mapping[str, datetime | None]

    @property
    def is_closed(self) -> bool:
        """Whether all assets are fetched to the end of the day."""
        return not self.open_assets

    @property
    def is_stored(self) -> bool:
        """Whether all assets have the day, closed or not."""
        return None not in self.watermarks.values()

    @property
    def open_assets(self) -> set[str]:
        """The assets that are not fetched to the end of the day."""
        return {asset for asset, until in self.watermarks.items() if until is None or until < self.day.end}

    def state_of(self, asset: str) -> str:
        """Return the watermark of an asset as text; it changes when a run has fetched the day."""
        until = self.watermarks[asset]
        return "" if until is None else until.isoformat()

    def assets_fetched_between(self, start: datetime, end: datetime) -> set[str]:
        """Return the assets whose watermark is after `start` and not after `end`."""
        return {asset for asset, until in self.watermarks.items() if until is not None and start < until <= end}


@dataclass(frozen=True)
class Attempt:
    """How often something was requested without effect, and when last. `state` is what was stored each time."""

    count: int
    last_at: AwareDatetime
    state: str

    @property
    def next_at(self) -> datetime:
        """When to request again: 1, 4, 16, 64 minutes after the last attempt, and so on up to LONGEST_PAUSE."""
        return self.last_at + min(FIRST_PAUSE * 4.0 ** min(self.count - 1, 8), LONGEST_PAUSE)


@dataclass(frozen=True)
class Memory:
    """What a tick hands to the next one, as the sensor's cursor.

    Attributes:
        closed_through: every watched day up to this one is closed, except `still_open`.
        still_open: the days up to `closed_through` that are not closed.
        attempts: by day and asset, what was requested and has not changed since.
        last_probed: the notification whose activations were probed last; the next tick probes the following ones.
        missing_checked_at: when closed days were last searched for notifications that did not answer.
        summary: the last tick's summary.
        first_day: the first watched day.
    """

    closed_through: date = date.min
    still_open: tuple[date, ...] = ()
    attempts: Mapping[str, Mapping[str, Attempt]] = field(default_factory=dict)
    last_probed: int = 0
    missing_checked_at: AwareDatetime | None = None
    summary: str = ""
    first_day: date = date.min

    @classmethod
    def read(cls, cursor: str | None) -> Memory:
        """Read it from a cursor; a new one where there is no cursor, or another sensor's."""
        try:
            return _MEMORY.validate_json(cursor or "{}")
        except ValidationError:
            return cls()

    def is_missing_check_due(self, now: datetime) -> bool:
        """Whether to search for notifications that did not answer."""
        return self.missing_checked_at is None or now - self.missing_checked_at >= MISSING_CHECK_INTERVAL

    def write(self) -> str:
        """Write the cursor: JSON that a person can read."""
        return _MEMORY.dump_json(self, indent=1).decode()


_MEMORY = TypeAdapter(Memory)


@dataclass(frozen=True)
class PlannedRun:
    """A run to request: first and last day, why, and the assets; None for all.

    `missing_only`: only the notifications that did not answer.
    """

    first: str
    last: str
    reason: str
    assets: frozenset[str] | None = None
    missing_only: bool = False

    def has_day(self, day: str) -> bool:
        """Whether a day is one of the run's."""
        return self.first <= day <= self.last


def select_days_to_read(memory: Memory, today: date) -> list[date]:
    """List the days whose watermarks a tick needs, oldest first; today is always one of them."""
    new = memory.closed_through + timedelta(days=1)
    days = {*memory.still_open}
    days |= {new + timedelta(days=ahead) for ahead in range(min(NEW_DAYS_PER_TICK, (today - new).days + 1))}
    return sorted(days | {today, today - timedelta(days=1)} if new < today else days | {today})


def update_memory(
    memory: Memory, days: Sequence[DayWatermarks], now: datetime, lookback: timedelta, unread: Collection[str] = ()
) -> Memory:
    """Note which days are closed, and drop the attempts that had an effect.

    `days` were read, oldest first; for those in `unread` no time was left.
    """
    through = memory.closed_through
    still_open = [day for day in memory.still_open if str(day) in unread]
    for one in days:
        if one.day.date == through + timedelta(days=1) and can_close(one.day, now, lookback):
            through = one.day.date
        if one.day.date <= through and not one.is_closed:
            still_open.append(one.day.date)
    by_key = {one.day.key: one for one in days}
    attempts = {
        day: {
            asset: attempt
            for asset, attempt in by_asset.items()
            if day in unread or (asset in by_key[day].open_assets and by_key[day].state_of(asset) == attempt.state)
        }
        for day, by_asset in memory.attempts.items()
        if day in unread or day in by_key
    }
    attempts = {day: by_asset for day, by_asset in attempts.items() if by_asset}
    return replace(memory, closed_through=through, still_open=tuple(sorted(still_open)), attempts=attempts)


def can_close(day: Day, now: datetime, lookback: timedelta) -> bool:
    """Tell whether a fetch of the day would close it."""
    return now >= day.end + lookback


def select_backing_off(memory: Memory, days: Iterable[str], now: datetime) -> dict[str, dict[str, Attempt]]:
    """Select the assets of the days whose next attempt is not due yet."""
    found = {
        day: {asset: attempt for asset, attempt in memory.attempts.get(day, {}).items() if now < attempt.next_at}
        for day in days
    }
    return {day: by_asset for day, by_asset in found.items() if by_asset}


def plan_runs(
    reasons: Mapping[str, str],
    active_runs: int,
    days_per_run: int = DAYS_PER_RUN,
    assets: Mapping[str, frozenset[str]] | None = None,
    today: date | None = None,
) -> list[PlannedRun]:
    """Plan the runs for the days that need one, given with their reasons: consecutive days in one run, newest first.

    At most MOST_ACTIVE_RUNS with those in progress; the other days wait. `assets` are those of a day that needs not
    all: days of different assets are different runs. Of a long run, `today` and yesterday become a run of their own.
    """
    of_day = assets or {}
    runs: list[list[date]] = []
    for day in sorted(map(date.fromisoformat, reasons), reverse=True):
        if (
            runs
            and len(runs[-1]) < days_per_run
            and runs[-1][-1] - day == timedelta(days=1)
            and of_day.get(str(runs[-1][-1])) == of_day.get(str(day))
        ):
            runs[-1].append(day)
        else:
            runs.append([day])
    recent = [day for day in runs[0] if day >= today - timedelta(days=1)] if runs and today else []
    if recent and len(runs[0]) > RECENT_DAYS_PER_RUN:
        runs[:1] = [recent, runs[0][len(recent) :]]
    free = max(MOST_ACTIVE_RUNS - active_runs, 0)
    return [
        PlannedRun(str(run[-1]), str(run[0]), _join_reasons(run[::-1], reasons), of_day.get(str(run[0])))
        for run in runs[:free]
    ]


def record_attempts(memory: Memory, runs: Sequence[PlannedRun], days: Sequence[DayWatermarks], now: datetime) -> Memory:
    """Count the runs as attempts at their days and assets."""
    attempts = {day: dict(by_asset) for day, by_asset in memory.attempts.items()}
    for one in days:
        for run in runs:
            if run.has_day(one.day.key):
                by_asset = attempts.setdefault(one.day.key, {})
                for asset in one.watermarks if run.assets is None else run.assets:
                    count = by_asset[asset].count if asset in by_asset else 0
                    by_asset[asset] = Attempt(count + 1, now, one.state_of(asset))
    return replace(memory, attempts=attempts)


def summarize_tick(
    runs: Sequence[PlannedRun],
    reasons: Mapping[str, str],
    fetching: AbstractSet[str],
    backing_off: Mapping[str, Mapping[str, Attempt]],
    rest: str,
) -> str:
    """Say what a tick requested, what it did not and why; `rest` comes last."""
    lines = [
        f"Requested {_format_assets(run.assets)}{_format_range(run.first, run.last)}: {run.reason}." for run in runs
    ]
    waiting = sorted(day for day in reasons if not any(run.has_day(day) for run in runs))
    if waiting:
        lines.append(f"Not requested yet, as enough runs are in progress: {format_days(waiting)}.")
    if fetching:
        lines.append(f"Being fetched already: {format_days(sorted(fetching))}.")
    groups: dict[tuple[int, datetime], dict[str, set[str]]] = {}
    for day, by_asset in backing_off.items():
        for asset, attempt in by_asset.items():
            groups.setdefault((attempt.count, attempt.next_at), {}).setdefault(day, set()).add(asset)
    lines += [
        f"{_format_assets(frozenset().union(*days.values()))}{format_days(sorted(days))}: {count} failed attempts; the "
        f"runs say why. Next attempt from {next_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC on."
        for (count, next_at), days in sorted(groups.items())
    ]
    return " ".join([*lines, rest] if rest else lines)


def _format_assets(assets: frozenset[str] | None) -> str:
    return "" if assets is None else f"{', '.join(sorted(assets))} of "


def _join_reasons(days: Sequence[date], reasons: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for day in days:
        by_reason.setdefault(reasons[str(day)], []).append(str(day))
    if len(by_reason) == 1:
        return next(iter(by_reason))
    return "; ".join(f"{format_days(of_reason)}: {reason}" for reason, of_reason in by_reason.items())


def format_days(days: Sequence[str]) -> str:
    """Write days, given in order, as ranges: `2026-03-20 to 2026-03-22, 2026-03-25`."""
    return ", ".join(_format_range(str(run[0]), str(run[-1])) for run in consecutive(map(date.fromisoformat, days)))


def _format_range(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"
