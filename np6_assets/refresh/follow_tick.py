"""One tick of the sensor `rates_follow`: which cohorts' events are not those that their rates were computed from.

Rates record what they were computed from (`rates/inputs.py`), so what is due is seen from the files alone, whoever
fetched the events or computed the rates. The cursor holds back what was asked for lately, and counts the tries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from np6_assets.contact.days import first_kept, today
from np6_assets.dagster_private import materialized_partitions
from np6_assets.events.kinds import KINDS
from np6_assets.events.store import newest_of
from np6_assets.partitions import ACTIVATION_DATE, EVENT_DATE, event_days
from np6_assets.rates.feeds import StoredDay, stored_day
from np6_assets.rates.inputs import INPUTS, CurrentInputs, Inputs
from np6_assets.refresh import jobs, news
from np6_assets.refresh.under_way import under_way
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.footers import Footers, read_in_time

LOOKING = timedelta(seconds=20)
"""How long a tick may read files: Dagster gives it a minute."""

COHORTS_PER_RUN = 366
"""How many cohorts one run computes at most."""

_RATES = "reactivity_rates"


class StoredFiles:
    """What the files of events and rates say, from tick to tick."""

    def __init__(self, settings: Settings) -> None:
        self.events: dict[str, Footers[StoredDay]] = {
            kind.asset: Footers(kind.asset, EVENT_DATE, lambda footer, day: stored_day(footer, day, settings.timezone))
            for kind in KINDS
        }
        self.rates: Footers[Inputs | None] = Footers(
            _RATES, ACTIVATION_DATE, lambda footer, _: Inputs.read((footer.metadata or {}).get(INPUTS))
        )

    def look(self, folder: Folder, is_time_up: Callable[[], bool]) -> int:
        """Look at what is there; gives how many files, of the oldest days, are still to be read when time is up."""
        files: list[Footers[Any]] = [*self.events.values(), self.rates]
        for footers in files:
            footers.look(folder)
        days = sorted({day for footers in files for day in footers.days}, reverse=True)
        read_in_time(files, folder, days, is_time_up)
        return sum(not footers.is_known(day) for footers in files for day in footers.days)

    def stored(self, asset: str, day: str) -> StoredDay | None:
        """What is stored of an asset's day."""
        return self.events[asset].get(day)

    @property
    def newest_watermark(self) -> datetime | None:
        """That of the newest day of any event asset; None where nothing is there. As `feeds.due` has it."""
        return newest_of(
            (one.watermark for day in sorted(footers.days, reverse=True) if (one := footers.get(day)) is not None)
            for footers in self.events.values()
        )


def due_cohorts(
    files: StoredFiles, settings: Settings, now: datetime, recorded: set[str]
) -> dict[str, tuple[str, str]]:
    """The cohorts that are to be computed: what from, in short, and why. `recorded` are those that Dagster knows of.

    A cohort waits for its own day of activations, but for those before the first such day.
    """
    watermark = files.newest_watermark
    current = CurrentInputs(files.stored, settings.timezone, watermark and watermark - settings.lookback)
    sent = set(files.events["activations"].days)
    first_sent = min(sent, default="9999")
    due = {}
    for cohort in _cohorts(files, settings, now):
        if cohort in sent or cohort < first_sent:
            inputs = current.of(event_days(cohort, settings.window_days))
            if why := _why(files.rates.get(cohort), inputs, is_recorded=cohort in recorded):
                due[cohort] = (inputs.digest, why)
    return due


def _cohorts(files: StoredFiles, settings: Settings, now: datetime) -> list[str]:
    """The cohorts that have an event day in their window and whose events are kept, in order."""
    stored = set[str]().union(*(footers.days for footers in files.events.values()))
    first, last = str(first_kept(settings, now)), str(today(settings, now))
    cohorts = {
        str(date.fromisoformat(day) - timedelta(days=before))
        for day in stored
        for before in range(settings.window_days + 1)
    }
    return sorted(cohort for cohort in cohorts if first <= cohort <= last)


def _why(stored: Inputs | None, inputs: Inputs, *, is_recorded: bool) -> str:
    """Why rates are due, in words; empty where they are not."""
    if stored is None:
        return "they are not there, or of an earlier version"
    changed = sorted(day for day, _ in set(stored.days.items()) ^ set(inputs.days.items()))
    if changed:
        return f"the events of {', '.join(dict.fromkeys(changed))} changed"
    if stored.status != inputs.status:
        return f"they are {inputs.status}, no longer {stored.status}"
    if stored.missing_ids != inputs.missing_ids:
        return "other notifications did not answer"
    return "" if is_recorded else "Dagster has no record of them"


def tick(
    context: dg.SensorEvaluationContext,
    settings: Settings,
    files: StoredFiles,
    folder: Folder,
    now: Callable[[], datetime],
) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    moment = now()
    if unread := files.look(folder, lambda: now() - moment >= LOOKING):
        return dg.SkipReason(f"{unread} files are still to be read; the next tick goes on.")
    rates = dg.AssetKey(settings.key(_RATES))
    due = due_cohorts(files, settings, moment, materialized_partitions(context.instance, rates))
    events = {dg.AssetKey(settings.key(kind.asset)) for kind in KINDS}
    fetching = under_way(
        context.instance, events, [settings.named(job) for job in jobs.FETCHING], settings.named(jobs.SENSOR)
    ).days
    computing = under_way(
        context.instance, {rates}, [settings.named(jobs.COMPUTE_RATES)], settings.named(jobs.RATES_SENSOR)
    )
    busy = {
        cohort
        for cohort in due
        if cohort in computing.days or not fetching.isdisjoint(event_days(cohort, settings.window_days))
    }
    asked = read_cursor(context.cursor)
    held = {
        cohort: at for cohort, at in _held(due, asked, settings.refresh_interval) if cohort not in busy and moment < at
    }
    reasons = {cohort: why for cohort, (_, why) in due.items() if cohort not in busy and cohort not in held}
    made = news.asks(reasons, computing.runs, COHORTS_PER_RUN)
    for ask in made:
        for cohort in (cohort for cohort in reasons if ask.first <= cohort <= ask.last):
            inputs, before = due[cohort][0], asked.get(cohort)
            times = before.times if before is not None and before.progress == inputs else 0
            asked[cohort] = news.Try(times + 1, moment.isoformat(), inputs)
    since = moment - settings.refresh_interval
    kept = {cohort: one for cohort, one in asked.items() if cohort in due or datetime.fromisoformat(one.at) > since}
    return dg.SensorResult(
        run_requests=[jobs.request(settings, ask.first, ask.last, ask.why) for ask in made],
        skip_reason=None if made else _words(reasons, busy, held),
        cursor=json.dumps({cohort: asdict(one) for cohort, one in sorted(kept.items())}),
    )


def _held(
    due: Mapping[str, tuple[str, str]], asked: Mapping[str, news.Try], interval: timedelta
) -> Iterator[tuple[str, datetime]]:
    """Until when cohorts are held back that were asked for: in vain, or not long before their events changed again."""
    for cohort, (inputs, _) in due.items():
        if (before := asked.get(cohort)) is not None:
            in_vain = before.progress == inputs
            yield cohort, before.next_at if in_vain else datetime.fromisoformat(before.at) + interval


def read_cursor(cursor: str | None) -> dict[str, news.Try]:
    """What was asked for, by cohort; nothing where the cursor is not one of this sensor's."""
    try:
        asked = json.loads(cursor or "{}").items()
        return {str(date.fromisoformat(cohort)): news.Try.read(one) for cohort, one in asked}
    except (ValueError, TypeError, AttributeError):
        return {}


def _words(reasons: Mapping[str, str], busy: set[str], held: Mapping[str, datetime]) -> str:
    """Why a tick asked for nothing."""
    lines = [
        f"{what}: {news.spans(sorted(days))}."
        for what, days in (
            ("Not asked for yet, as enough runs are under way", reasons),
            ("Being fetched or computed already", busy),
            ("Asked for lately, and held back", held),
        )
        if days
    ]
    if held:
        lines.append(f"The next from {min(held.values()).astimezone(UTC):%Y-%m-%d %H:%M} UTC on.")
    return " ".join(lines) or "All rates are those of the events that are there."
