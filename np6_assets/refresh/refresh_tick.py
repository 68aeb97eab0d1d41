"""One tick of the sensor `np6_refresh`: reads watermarks, finds active runs, probes the API, requests days.

Whatever needs Dagster's records, the files and the API is here; the decisions are in `planner.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from np6_assets.contact.days import get_first_allowed
from np6_assets.dagster_private import get_materialized_partitions
from np6_assets.events.kinds import KINDS
from np6_assets.np6.resource import NP6Resource
from np6_assets.partition_checks import Records
from np6_assets.partitions import parse_day
from np6_assets.refresh import jobs, missing_notifications, planner
from np6_assets.refresh.active_runs import find_active_runs
from np6_assets.refresh.event_files import EventFiles
from np6_assets.refresh.planner import Attempt, DayWatermarks, Memory, PlannedRun
from np6_assets.refresh.probes import Probes
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

DAYS_PROBED = 2
"""Today, and yesterday as long as it cannot be closed."""

READ_TIME = timedelta(seconds=20)
"""How long a tick may read files and records: Dagster gives it a minute, and the probes have their own limit."""


@dataclass
class Needs:
    """What idle days need, by day: `reasons` and `assets` of those to fetch, `probes` the assets to probe first."""

    reasons: dict[str, str] = field(default_factory=dict)
    assets: dict[str, set[str]] = field(default_factory=dict)
    probes: dict[str, set[str]] = field(default_factory=dict)

    def add(self, day: str, reason: str, assets: set[str]) -> None:
        """Fetch these assets of the day too, for this reason."""
        self.reasons[day] = reason
        self.assets[day] = self.assets.get(day, set()) | assets

    @property
    def selections(self) -> dict[str, frozenset[str]]:
        """The assets of the days that do not need all."""
        return {day: frozenset(some) for day, some in self.assets.items() if some != set(jobs.EVENT_ASSETS)}


class RefreshTick:
    """One tick. `files` is what earlier ticks read."""

    def __init__(
        self,
        context: dg.SensorEvaluationContext,
        settings: Settings,
        folder: Folder,
        files: EventFiles,
        now: Callable[[], datetime],
    ) -> None:
        self._context = context
        self._instance = context.instance
        self._settings = settings
        self._folder = folder
        self._files = files
        self._clock = now
        self._now = now()
        self._today = self._now.astimezone(ZoneInfo(settings.timezone)).date()
        self._first = get_first_allowed(settings, self._now)

    def run(self, np6: NP6Resource) -> dg.SensorResult:
        """Request what is due."""
        memory = self._load_memory()
        if self._today < self._settings.start_date:
            return self._build_result(
                memory, f"Nothing to do before NP6_START_DATE, which is {self._settings.start_date}."
            )
        days, unread = self._read_days(memory)
        memory = planner.update_memory(memory, days, self._now, self._settings.lookback, unread)
        named = self._settings.named
        active_days, active = find_active_runs(
            self._instance, self._asset_keys, list(map(named, jobs.FETCHING)), named(jobs.SENSOR)
        )
        open_days = [one for one in days if not one.is_closed]
        fetching = {one.day.key for one in open_days} & active_days
        idle = [one for one in open_days if one.day.key not in fetching]
        backing_off = planner.select_backing_off(memory, (one.day.key for one in idle), self._now)
        needs = self._find_needs(idle, memory, backing_off)
        probed = self._probe(np6, idle, needs, memory.last_probed)
        memory = replace(memory, last_probed=probed.last_probed)
        if probed.is_cut and not probed.answers:
            return self._build_result(memory, f"Nothing requested, as the API failed: {probed.error_text}")
        runs = planner.plan_runs(needs.reasons, active, assets=needs.selections, today=self._today)
        memory = planner.record_attempts(memory, runs, days, self._now)
        if active + len(runs) < planner.MOST_ACTIVE_RUNS and memory.is_missing_check_due(self._now):
            runs += self._plan_retries(active_days | needs.reasons.keys(), active + len(runs))
            memory = replace(memory, missing_checked_at=self._now)
        rest = [f"{len(unread)} days could not be read in time; the next tick goes on."] if unread else []
        rest += [f"Not all could be probed: {probed.error_text}."] if probed.errors else []
        if not (runs or needs.reasons or fetching or backing_off or unread):
            rest.append("Nothing new was published, and every day that has ended is closed.")
        summary = planner.summarize_tick(runs, needs.reasons, fetching, backing_off, " ".join(rest))
        return self._build_result(memory, summary, runs)

    def _load_memory(self) -> Memory:
        """Load the memory; a new one watches from the first recorded day on, or else from today."""
        memory = Memory.read(self._context.cursor)
        through = memory.closed_through
        # where NP6_START_DATE has moved back, earlier days may be open
        if through == date.min or self._first < memory.first_day:
            recorded = set[str]().union(*(get_materialized_partitions(self._instance, key) for key in self._asset_keys))
            through = min(map(date.fromisoformat, recorded), default=self._today) - timedelta(days=1)
        return replace(memory, closed_through=max(through, self._first - timedelta(days=1)), first_day=self._first)

    def _read_days(self, memory: Memory) -> tuple[list[DayWatermarks], set[str]]:
        """Read the watermarks of the days that the tick needs, in order; also returns the days without time left.

        Today and yesterday are read first, then the oldest days: the cursor moves on from these.
        """
        days = [day for day in planner.select_days_to_read(memory, self._today) if day >= self._first]
        queue = [str(day) for day in [*reversed(days[-2:]), *days[:-2]]]
        self._files.list_files(self._folder)
        unread = self._files.read(self._folder, queue, lambda: self._clock() - self._now >= READ_TIME)
        return [self._find_watermarks(str(day)) for day in days if str(day) not in unread], unread

    def _find_watermarks(self, day: str) -> DayWatermarks:
        watermarks = {kind.asset: self._files.find_watermark(self._instance, kind.asset, day) for kind in KINDS}
        return DayWatermarks(parse_day(day, self._settings.timezone), watermarks)

    def _find_needs(
        self, idle: list[DayWatermarks], memory: Memory, backing_off: Mapping[str, Mapping[str, Attempt]]
    ) -> Needs:
        """Find what the idle days need.

        A day that can be closed is fetched without a probe. An open day is probed, except for assets that were
        fetched in the last NP6_REFRESH_MINUTES and those whose last attempt failed, which are fetched.
        """
        needs = Needs()
        for one in idle:
            key = one.day.key
            open_assets = one.open_assets - set(backing_off.get(key, ()))
            failed = open_assets & set(memory.attempts.get(key, ()))
            if planner.can_close(one.day, self._now, self._settings.lookback):
                reason = "ended since it was fetched" if one.is_stored else "ended and is not complete"
                to_fetch = open_assets
            else:
                reason, to_fetch = "the last run did not fetch it", failed
                recent = one.assets_fetched_between(self._now - self._settings.refresh_interval, self._now)
                needs.probes[key] = open_assets - failed - recent
            if to_fetch:
                needs.add(key, reason, to_fetch)
        return needs

    def _probe(self, np6: NP6Resource, idle: list[DayWatermarks], needs: Needs, last_probed: int) -> Probes:
        """Probe the newest of the idle days that need it; days with new events are added to the needs."""
        probes = Probes(self._folder, self._now, last_probed)
        days = [one for one in idle if needs.probes.get(one.day.key)][-DAYS_PROBED:]
        # the warnings of a tick: Dagster makes a file for each tick that has a log, and removes none
        probes.send(np6, self._context.log.warning, days, needs.probes)
        for day, asset in probes.new.items():
            needs.add(day, f"{asset} were published", needs.probes[day])
        return probes

    def _plan_retries(self, fetched: AbstractSet[str], active_runs: int) -> list[PlannedRun]:
        """Plan runs for closed days with notifications that did not answer, except days that are fetched anyway."""
        days = missing_notifications.find_days_to_retry(
            self._files,
            self._folder,
            Records(self._instance, self._settings),
            self._settings,
            self._now,
            lambda day: day >= self._first and str(day) not in fetched,
        )
        runs = planner.plan_runs({str(day): missing_notifications.REASON for day in days}, active_runs)
        return [replace(run, missing_only=True) for run in runs]

    def _build_result(self, memory: Memory, summary: str, runs: Sequence[PlannedRun] = ()) -> dg.SensorResult:
        if runs:
            self._context.log.info(summary)
        return dg.SensorResult(
            run_requests=[jobs.build_run_request(self._settings, run) for run in runs],
            skip_reason=None if runs else summary,
            cursor=replace(memory, summary=summary).write(),
        )

    @property
    def _asset_keys(self) -> set[dg.AssetKey]:
        return {dg.AssetKey(self._settings.key(asset)) for asset in jobs.EVENT_ASSETS}
