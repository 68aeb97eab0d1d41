"""One tick of the sensor `np6_refresh`: looks at what is stored, what is under way and what is new, and asks for days.

What belongs here: the looking, which needs Dagster's records, the files and the API. The decision is in `news.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from np6_assets.contact.days import first_kept
from np6_assets.dagster_private import materialized_partitions
from np6_assets.events.kinds import KINDS
from np6_assets.np6.resource import NP6Resource
from np6_assets.partition_checks import Records
from np6_assets.partitions import day_of
from np6_assets.refresh import jobs, news, unanswered
from np6_assets.refresh.event_files import EventFiles
from np6_assets.refresh.probes import Prober
from np6_assets.refresh.under_way import under_way
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.footers import AT_ONCE

DAYS_PROBED = 2
"""Today, and yesterday as long as it cannot be closed."""

LOOKING = timedelta(seconds=20)
"""How long a tick may read files and records: Dagster gives it a minute, and the probes have their own bound."""


class Tick:
    """One tick. `files` is what the ticks before it know."""

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
        self._first = first_kept(settings, self._now)
        self._memory = news.Memory.read(context.cursor)

    def result(self, np6: NP6Resource) -> dg.SensorResult:
        """What to ask for."""
        memory = self._started()
        if self._today < self._settings.start_date:
            return self._said(memory, f"Nothing to do before NP6_START_DATE, which is {self._settings.start_date}.")
        stored, unread = self._look(memory)
        overlap = self._settings.lookback
        memory = news.looked_at(memory, stored, self._now, overlap, unread)
        named = self._settings.named
        events = under_way(self._instance, self._keys, list(map(named, jobs.FETCHING)), named(jobs.SENSOR))
        missing = [one for one in stored if not one.is_closed]
        busy = {one.day.key for one in missing} & events.days
        free = [one for one in missing if one.day.key not in busy]
        held = news.waiting(memory, (one.day.key for one in free), self._now)
        reasons, assets, probes = self._missing(free, memory, held)
        open_days = [one for one in free if probes.get(one.day.key)][-DAYS_PROBED:]
        prober = Prober(np6, self._warn, self._folder, self._now)
        probed = prober.probe(open_days, probes, memory.last_probed)
        memory = replace(memory, last_probed=probed.last_probed)
        if probed.is_cut and not probed.answers:
            return self._said(memory, f"Nothing asked for, as the API does not answer as it should: {probed.words}")
        for day, asset in probed.new.items():
            reasons[day] = f"{asset} were published"
            assets[day] = assets.get(day, set()) | probes[day]
        some = {day: frozenset(of_day) for day, of_day in assets.items() if of_day != set(jobs.EVENT_ASSETS)}
        made = news.asks(reasons, events.runs, assets=some, today=self._today)
        memory = news.asked(memory, made, stored, self._now)
        if events.runs + len(made) < news.RUNS_UNDER_WAY and memory.may_look_unanswered(self._now):
            made += self._asked_again(events.days | reasons.keys(), events.runs + len(made))
            memory = replace(memory, looked_unanswered_at=self._now.isoformat())
        rest = [f"{len(unread)} days could not be looked at in time; the next tick goes on."] if unread else []
        rest += [f"Not all could be looked at: {probed.words}."] if probed.trouble else []
        if not made and not reasons and not busy and not held and not unread:
            rest.append("Nothing new was published, and every day that has ended is closed.")
        return self._said(memory, news.words(made, reasons, busy, held, " ".join(rest)), made)

    def _look(self, memory: news.Memory) -> tuple[list[news.Stored], set[str]]:
        """What is stored of the days to look at, in order, and those for which no time is left.

        Today and yesterday come first, and then the oldest days: the cursor goes on from these.
        """
        days = [day for day in news.days_to_look_at(memory, self._today) if day >= self._first]
        by_turn = [str(day) for day in [*reversed(days[-2:]), *days[:-2]]]
        self._files.look(self._folder)
        stored: list[news.Stored] = []
        for start in range(0, len(by_turn), AT_ONCE):
            some = by_turn[start : start + AT_ONCE]
            self._files.read(self._folder, some)
            stored += map(self._stored, some)
            if self._clock() - self._now >= LOOKING:
                break
        return sorted(stored, key=lambda one: one.day.key), set(by_turn[len(stored) :])

    def _missing(
        self, free: list[news.Stored], memory: news.Memory, held: Mapping[str, Mapping[str, news.Try]]
    ) -> tuple[dict[str, str], dict[str, set[str]], dict[str, set[str]]]:
        """By day, why it is to be asked for without a probe, and which assets; and which assets are to be probed.

        An open day is not probed for NP6_REFRESH_MINUTES after it was fetched, nor for what was asked for in vain.
        """
        reasons: dict[str, str] = {}
        assets: dict[str, set[str]] = {}
        probes: dict[str, set[str]] = {}
        for one in free:
            key = one.day.key
            lacking = one.lacking - set(held.get(key, ()))
            tried = lacking & set(memory.tries.get(key, ()))
            if news.can_be_closed(one.day, self._now, self._settings.lookback):
                reason, wanted = _why_ended(one), lacking
            else:
                reason, wanted = "what it was asked for last is not all there", tried
                recent = one.fetched_since(self._now - self._settings.refresh_interval, self._now)
                probes[key] = lacking - tried - recent
            if wanted:
                reasons[key], assets[key] = reason, wanted
        return reasons, assets, probes

    def _said(self, memory: news.Memory, words: str, made: Sequence[news.Ask] = ()) -> dg.SensorResult:
        if made:
            self._context.log.info(words)
        return dg.SensorResult(
            run_requests=[
                jobs.request(
                    self._settings, ask.first, ask.last, ask.why, missing_only=ask.missing_only, assets=ask.assets
                )
                for ask in made
            ],
            skip_reason=None if made else words,
            cursor=replace(memory, said=words).write(),
        )

    def _warn(self, text: str) -> None:
        self._context.log.warning(text)  # Dagster makes a file for each tick that has a log, and removes none

    def _asked_again(self, fetched: AbstractSet[str], runs_under_way: int) -> list[news.Ask]:
        """The runs for closed days whose notifications did not all answer, but for days that are fetched anyway."""
        days = [day for day in unanswered.incomplete(self._files, self._folder, self._settings) if day >= self._first]
        days = [day for day in days if str(day) not in fetched]
        if days:
            days = unanswered.due(days, Records(self._instance, self._settings), self._settings, self._now)
        made = news.asks({str(day): unanswered.WHY for day in days}, runs_under_way)
        return [replace(ask, missing_only=True) for ask in made]

    def _started(self) -> news.Memory:
        """The memory; where there is none, one that watches from the first day that is recorded, or else from today."""
        memory = self._memory
        before = str(self._first - timedelta(days=1))
        if str(self._first) < memory.first_day:  # NP6_START_DATE has moved back: days were left open
            memory = replace(memory, closed_through="")
        if not memory.closed_through:
            recorded = set[str]().union(
                *(materialized_partitions(self._instance, self._key(kind.asset)) for kind in KINDS)
            )
            first = min(map(date.fromisoformat, recorded), default=self._today)
            memory = replace(memory, closed_through=str(first - timedelta(days=1)))
        return replace(memory, closed_through=max(memory.closed_through, before), first_day=str(self._first))

    def _key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey(self._settings.key(asset))

    @property
    def _keys(self) -> set[dg.AssetKey]:
        return set(map(self._key, jobs.EVENT_ASSETS))

    def _stored(self, day: str) -> news.Stored:
        until = {kind.asset: self._files.until(self._instance, kind.asset, day) for kind in KINDS}
        return news.Stored(day_of(day, self._settings.timezone), until)


def _why_ended(one: news.Stored) -> str:
    return "it has ended since it was fetched" if one.is_there else "it has ended and is not all there"
