"""One tick of the sensor `np6_refresh`: looks at what is stored, what is under way and what is new, and asks for days.

What belongs here: the looking, which needs Dagster's records, the files and the API. The decision is in `news.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from np6_assets.contact.days import DAY_TAG, FIRST_DAY_TAG, LAST_DAY_TAG, first_kept
from np6_assets.dagster_private import days_of_backfills
from np6_assets.events import notifications
from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.events.store import EventStore
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import CancelledError, NP6Error
from np6_assets.np6.request import Request
from np6_assets.np6.resource import NP6Resource
from np6_assets.partitions import Day, day_of, milliseconds
from np6_assets.refresh import jobs, news
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

NOTIFICATIONS_PER_TICK = 4
"""How many notifications' activations are probed in one tick. A send soon has reactions, and these are seen at once."""

DAYS_PROBED = 2
"""Today, and yesterday as long as it cannot be closed."""

BACKFILLS = 20
"""How many of the newest backfills are looked at for days that they are about to fetch."""


@dataclass
class _Probed:
    """What the probes found.

    `new`: by day, the asset with something new; `late`: by closed day, the event after which there is something new;
    `answers`: how many answered; `trouble`: in words, what went wrong.
    """

    last_probed: int
    new: dict[str, str] = field(default_factory=dict)
    late: dict[str, str] = field(default_factory=dict)
    answers: int = 0
    trouble: str = ""


class Tick:
    """One tick."""

    def __init__(
        self, context: dg.SensorEvaluationContext, settings: Settings, folder: Folder, moment: datetime
    ) -> None:
        self._instance = context.instance
        self._log = context.log
        self._settings = settings
        self._folder = folder
        self._now = moment
        self._today = moment.astimezone(ZoneInfo(settings.timezone)).date()
        self._first = first_kept(settings, moment)
        self._memory = news.Memory.read(context.cursor)

    def result(self, np6: NP6Resource) -> dg.SensorResult:
        """What to ask for."""
        memory = self._started()
        if self._today < self._settings.start_date:
            return self._said(memory, f"Nothing to do before NP6_START_DATE, which is {self._settings.start_date}.")
        stored = [self._stored(day) for day in news.days_to_look_at(memory, self._today) if day >= self._first]
        overlap = self._settings.lookback
        memory = news.looked_at(memory, stored, self._now, overlap)
        fetching, runs = self._under_way()
        missing = [one for one in stored if not one.is_closed]
        under_way = {one.day.key for one in missing} & fetching
        held = news.waiting(memory, (one.day.key for one in missing if one.day.key not in under_way), self._now)
        free = [one for one in missing if one.day.key not in under_way and one.day.key not in held]
        ended = [one for one in free if news.can_be_closed(one.day, self._now, overlap)]
        failed = [one for one in free if one not in ended and one.day.key in memory.tries]
        open_days = [one for one in free if one not in ended and one not in failed][-DAYS_PROBED:]
        closed_day = self._closed_day(memory, fetching)
        probed = self._probed(np6, open_days, closed_day, memory)
        memory = replace(memory, last_probed=probed.last_probed)
        if (closed_day is not None and not probed.trouble) or not memory.looked_late_at:
            late = {day: after for day, after in memory.late.items() if day >= str(self._first_trailing)}
            memory = replace(memory, looked_late_at=self._now.isoformat(), late=late | probed.late)
        if probed.trouble and not probed.answers:
            return self._said(memory, f"Nothing asked for, as the API does not answer as it should: {probed.trouble}")
        reasons = {one.day.key: _why_ended(one) for one in ended}
        reasons |= {one.day.key: "what it was asked for last is not all there" for one in failed}
        reasons |= {
            day: f"{asset} were published" + (" after it was closed" if day in probed.late else "")
            for day, asset in probed.new.items()
        }
        made = news.asks(reasons, runs, self._today)
        memory = news.asked(memory, made, stored, self._now)
        rest = [f"Not all could be looked at: {probed.trouble}."] if probed.trouble else []
        if not reasons and not under_way and not held:
            rest.append("Nothing new was published, and every day that has ended is closed.")
        return self._said(memory, news.words(made, reasons, under_way, held, " ".join(rest)), made)

    def _said(self, memory: news.Memory, words: str, made: list[news.Ask] | None = None) -> dg.SensorResult:
        self._log.info(words)
        return dg.SensorResult(
            run_requests=[jobs.request(self._settings, ask.first, ask.last, ask.why) for ask in made or []],
            skip_reason=None if made else words,
            cursor=replace(memory, said=words).write(),
        )

    def _started(self) -> news.Memory:
        """The memory; where there is none, one that watches from the first day that is recorded, or else from today."""
        memory = self._memory
        before = str(self._first - timedelta(days=1))
        if str(self._first) < memory.first_day:  # NP6_START_DATE has moved back: days were left open
            memory = replace(memory, closed_through="")
        if not memory.closed_through:
            recorded = set[str]().union(
                *(self._instance.get_materialized_partitions(self._key(kind.asset)) for kind in KINDS)
            )
            first = min(map(date.fromisoformat, recorded), default=self._today)
            memory = replace(memory, closed_through=str(first - timedelta(days=1)))
        return replace(memory, closed_through=max(memory.closed_through, before), first_day=str(self._first))

    def _key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey(self._settings.key(asset))

    @property
    def _keys(self) -> set[dg.AssetKey]:
        return set(map(self._key, jobs.EVENT_ASSETS))

    def _stored(self, day: date) -> news.Stored:
        whole = day_of(str(day), self._settings.timezone)
        return news.Stored(whole, {kind.asset: self._until(kind, whole) for kind in KINDS})

    def _until(self, kind: EventKind, day: Day) -> datetime | None:
        """Until when a day is known to be fetched: in its file, and in Dagster's records, which the rates follow."""
        stored = EventStore(self._folder, kind, self._settings).stored(day)
        if stored is None or stored.watermark is None:
            return None
        records = self._instance.fetch_materializations(
            dg.AssetRecordsFilter(self._key(kind.asset), asset_partitions=[day.key]), limit=1
        ).records
        materialization = records[0].asset_materialization if records else None
        said = materialization.metadata.get("fetched_until") if materialization else None
        if not isinstance(said, dg.TimestampMetadataValue):
            return None
        return min(stored.watermark, datetime.fromtimestamp(said.value, UTC))

    def _under_way(self) -> tuple[set[str], int]:
        """The days that are being fetched, and how many of the runs that fetch them were asked for here."""
        days: set[str] = set()
        runs = 0
        unfinished = dg.RunsFilter(statuses=[status for status in dg.DagsterRunStatus if status not in _FINISHED])
        for record in self._instance.get_run_records(unfinished):
            run = record.dagster_run
            assets = run.asset_selection
            if self._keys & set(assets or ()) or (not assets and run.job_name in map(self._settings.named, _JOBS)):
                days |= set(_days_of(run.tags))
                runs += run.tags.get("dagster/sensor_name") == jobs.SENSOR
        return days | days_of_backfills(self._instance, self._keys, BACKFILLS), runs

    @property
    def _first_trailing(self) -> date:
        return max(self._today - timedelta(days=self._settings.trailing_days), self._first)

    def _closed_day(self, memory: news.Memory, fetching: set[str]) -> news.Stored | None:
        """The closed day that is to be looked at for what was published late: once an hour one of the last, in turn."""
        days = (self._today - self._first_trailing).days
        if not days or not memory.may_look_late(self._now):
            return None
        hours = int(self._now.timestamp() // 3600)
        day = self._first_trailing + timedelta(days=hours % days)
        stored = self._stored(day)
        return stored if stored.is_closed and str(day) not in fetching else None

    def _probed(
        self, np6: NP6Resource, open_days: list[news.Stored], closed_day: news.Stored | None, memory: news.Memory
    ) -> _Probed:
        """Ask the API whether anything of these days was published since they were fetched: few bytes a feed."""
        probed = _Probed(memory.last_probed)
        days = open_days if closed_day is None else [closed_day, *open_days]
        if not days:
            return probed
        try:
            with np6.probing(self._log.warning) as client:
                for kind, path, one in self._probes(client, days, probed):
                    after = self._last_event(kind, one) if one is closed_day else one.until[kind.asset]
                    if self._has_news(client, kind, path, one.day, after):
                        self._note(kind, one, after, memory, probed)
                    probed.answers += 1
        except CancelledError:
            probed.trouble = "the API is slow"
        except NP6Error as error:
            probed.trouble = str(error)
        return probed

    def _note(
        self, kind: EventKind, one: news.Stored, after: datetime | None, memory: news.Memory, probed: _Probed
    ) -> None:
        """Note news of a day; of a closed one only what was not asked for already."""
        if one.is_closed:
            what = f"{kind.asset} after {after.isoformat() if after else 'its start'}"
            if memory.late.get(one.day.key) == what:
                return
            probed.late[one.day.key] = what
        probed.new[one.day.key] = kind.asset

    def _probes(
        self, client: NP6Client, days: list[news.Stored], probed: _Probed
    ) -> Iterator[tuple[EventKind, str, news.Stored]]:
        """The feeds to look at: those for all notifications, then, of the newest day, those of some notifications.

        None for a day of which something new is known, as all of it is fetched then.
        """
        for kind in KINDS:
            for one in days if not kind.per_notification else ():
                if one.day.key not in probed.new:
                    yield kind, kind.path, one
        newest = days[-1]
        if newest.is_closed or newest.day.key in probed.new:
            return
        turn = self._turn(client, probed.last_probed)
        for kind in KINDS:
            for id_ in turn if kind.per_notification else ():
                if newest.day.key not in probed.new:
                    probed.last_probed = id_
                    yield kind, kind.path.format(id=id_), newest

    def _turn(self, client: NP6Client, last_probed: int) -> list[int]:
        """The notifications whose turn it is: of those in the asset `notifications`, or else of the account's."""
        known = notifications.stored(self._folder) or notifications.listed(client)
        ids = [id_ for id_, one in sorted(known.items()) if one.unlisted_since is None]
        later = [id_ for id_ in ids if id_ > last_probed]
        return (later + ids[: len(ids) - len(later)])[:NOTIFICATIONS_PER_TICK]

    def _last_event(self, kind: EventKind, one: news.Stored) -> datetime | None:
        """Just after the last event of a day that is there; None where it has none."""
        stored = EventStore(self._folder, kind, self._settings).stored(one.day)
        last = stored.last_event if stored is not None else None
        return None if last is None else last + timedelta(milliseconds=1)

    def _has_news(self, client: NP6Client, kind: EventKind, path: str, day: Day, after: datetime | None) -> bool:
        start = max(after or day.start, day.start)
        if start >= min(day.end, self._now):
            return False
        edges = milliseconds(start), day.end_ms
        return client.has_events(Request(path, kind.start_parameter, kind.end_parameter, edges))


_JOBS = (jobs.FETCH_EVENTS, jobs.DAILY_INGEST)
_FINISHED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def _why_ended(one: news.Stored) -> str:
    return "it has ended since it was fetched" if one.is_there else "it has ended and is not all there"


def _days_of(tags: Mapping[str, str]) -> Iterator[str]:
    """The days that a run is for, by its tags."""
    first = tags.get(FIRST_DAY_TAG, tags.get(DAY_TAG, ""))
    last = tags.get(LAST_DAY_TAG, first)
    if first and last:
        day = date.fromisoformat(first)
        while day <= date.fromisoformat(last):
            yield str(day)
            day += timedelta(days=1)
