"""One tick of the sensor `rates_follow`: requests the cohorts whose events changed since their rates were computed.

Rates record what they were computed from (`rates/inputs.py`), so the files alone show what is due, whoever fetched the
events or computed the rates. The cursor counts the attempts and keeps their pauses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import dagster as dg
from pydantic import TypeAdapter, ValidationError

from np6_assets.contact.days import get_first_allowed, get_today
from np6_assets.dagster_private import get_materialized_partitions
from np6_assets.events.kinds import KINDS
from np6_assets.events.store import pick_newest
from np6_assets.partitions import ACTIVATION_DATE, EVENT_DATE, event_days
from np6_assets.rates.feeds import EventDays, FeedDay, read_feed_day
from np6_assets.rates.inputs import INPUTS, Inputs
from np6_assets.refresh import jobs, planner
from np6_assets.refresh.active_runs import find_active_runs
from np6_assets.refresh.planner import Attempt
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.footers import FooterCache, read_until

READ_TIME = timedelta(seconds=20)
"""How long a tick may read files: Dagster gives it a minute."""

COHORTS_PER_RUN = 366

_RATES = "reactivity_rates"

_ATTEMPTS = TypeAdapter(dict[str, Attempt])
"""The cursor: the attempts by cohort."""


class DueCohort(NamedTuple):
    """A cohort whose rates are to be computed: the digest of its current inputs, and why."""

    inputs: str
    reason: str


class RateFiles:
    """The footers of event and rate files, read once while they stay unchanged."""

    def __init__(self, settings: Settings) -> None:
        self.events: dict[str, FooterCache[FeedDay]] = {
            kind.asset: FooterCache(
                kind.asset, EVENT_DATE, lambda footer, day: read_feed_day(footer, day, settings.timezone)
            )
            for kind in KINDS
        }
        self.rates: FooterCache[Inputs | None] = FooterCache(
            _RATES, ACTIVATION_DATE, lambda footer, _: Inputs.read((footer.metadata or {}).get(INPUTS))
        )

    def read(self, folder: Folder, is_time_up: Callable[[], bool]) -> int:
        """Read what is new, newest days first; returns how many files are left when time is up."""
        files: list[FooterCache[Any]] = [*self.events.values(), self.rates]
        for footers in files:
            footers.refresh(folder)
        days = sorted({day for footers in files for day in footers.days}, reverse=True)
        read_until(files, folder, days, is_time_up)
        return sum(not footers.is_known(day) for footers in files for day in footers.days)

    def stored(self, asset: str, day: str) -> FeedDay | None:
        """Return what is stored of an asset's day."""
        return self.events[asset].get(day)

    @property
    def newest_watermark(self) -> datetime | None:
        """That of the newest day of any event asset; None where nothing is stored. As `feeds.due` has it."""
        return pick_newest(
            (one.watermark for day in sorted(footers.days, reverse=True) if (one := footers.get(day)) is not None)
            for footers in self.events.values()
        )


def find_due_cohorts(files: RateFiles, settings: Settings, now: datetime, recorded: set[str]) -> dict[str, DueCohort]:
    """Find the cohorts to compute. `recorded` are those that Dagster has a materialization of.

    A cohort waits for its own day of activations, except those before the first stored one.
    """
    watermark = files.newest_watermark
    current = EventDays(files.stored, settings.timezone, watermark and watermark - settings.lookback)
    sent = set(files.events["activations"].days)
    first_sent = min(sent, default="9999")
    due = {}
    for cohort in _list_cohorts(files, settings, now):
        if cohort in sent or cohort < first_sent:
            inputs = current.read_inputs(event_days(cohort, settings.window_days))
            if reason := _explain_due(files.rates.get(cohort), inputs, is_recorded=cohort in recorded):
                due[cohort] = DueCohort(inputs.digest, reason)
    return due


def _list_cohorts(files: RateFiles, settings: Settings, now: datetime) -> list[str]:
    """List the cohorts that have a stored event day in their window and whose events are kept, in order."""
    stored = set[str]().union(*(footers.days for footers in files.events.values()))
    first, last = str(get_first_allowed(settings, now)), str(get_today(settings, now))
    cohorts = {
        str(date.fromisoformat(day) - timedelta(days=before))
        for day in stored
        for before in range(settings.window_days + 1)
    }
    return sorted(cohort for cohort in cohorts if first <= cohort <= last)


def _explain_due(stored: Inputs | None, inputs: Inputs, *, is_recorded: bool) -> str:
    if stored is None:
        return "not computed yet, or by an earlier version"
    changed = sorted(day for day, _ in set(stored.days.items()) ^ set(inputs.days.items()))
    if changed:
        return f"the events of {', '.join(dict.fromkeys(changed))} changed"
    if stored.status != inputs.status:
        return f"the status is {inputs.status}, was {stored.status}"
    if stored.missing_ids != inputs.missing_ids:
        return "the notifications that did not answer changed"
    return "" if is_recorded else "Dagster has no materialization of them"


def run_tick(
    context: dg.SensorEvaluationContext,
    settings: Settings,
    files: RateFiles,
    folder: Folder,
    now: Callable[[], datetime],
) -> dg.SensorResult | dg.SkipReason:
    """Request the cohorts that are due."""
    moment = now()
    if unread := files.read(folder, lambda: now() - moment >= READ_TIME):
        return dg.SkipReason(f"{unread} files are still to be read; the next tick goes on.")
    rates = dg.AssetKey(settings.key(_RATES))
    due = find_due_cohorts(files, settings, moment, get_materialized_partitions(context.instance, rates))
    events = {dg.AssetKey(settings.key(kind.asset)) for kind in KINDS}
    named = settings.named
    fetching, _ = find_active_runs(context.instance, events, list(map(named, jobs.FETCHING)), named(jobs.SENSOR))
    computing, active = find_active_runs(
        context.instance, {rates}, [named(jobs.COMPUTE_RATES)], named(jobs.RATES_SENSOR)
    )
    busy = {cohort for cohort in due if not fetching.isdisjoint(event_days(cohort, settings.window_days))}
    busy |= due.keys() & computing
    attempts = read_cursor(context.cursor)
    pauses = _find_pauses(due, attempts, settings.refresh_interval)
    pauses = {cohort: next_at for cohort, next_at in pauses.items() if cohort not in busy and moment < next_at}
    reasons = {cohort: one.reason for cohort, one in due.items() if cohort not in busy and cohort not in pauses}
    runs = planner.plan_runs(reasons, active, COHORTS_PER_RUN)
    requested = {cohort: due[cohort] for cohort in reasons if any(run.has_day(cohort) for run in runs)}
    kept = {
        cohort: one
        for cohort, one in (attempts | _count_attempts(requested, attempts, moment)).items()
        if cohort in due or one.last_at > moment - settings.refresh_interval
    }
    return dg.SensorResult(
        run_requests=[jobs.build_run_request(settings, run) for run in runs],
        skip_reason=None if runs else _explain_no_request(reasons, busy, pauses),
        cursor=_ATTEMPTS.dump_json(dict(sorted(kept.items()))).decode(),
    )


def _count_attempts(
    requested: Mapping[str, DueCohort], attempts: Mapping[str, Attempt], moment: datetime
) -> dict[str, Attempt]:
    """Count the attempts of cohorts that are requested now; the count starts again when their inputs changed."""
    counted = {}
    for cohort, one in requested.items():
        before = attempts.get(cohort)
        count = before.count if before is not None and before.state == one.inputs else 0
        counted[cohort] = Attempt(count + 1, moment, one.inputs)
    return counted


def _find_pauses(
    due: Mapping[str, DueCohort], attempts: Mapping[str, Attempt], interval: timedelta
) -> dict[str, datetime]:
    """Find when the cohorts may be requested again: with backoff while nothing changed, else after the interval."""
    return {
        cohort: before.next_at if before.state == one.inputs else before.last_at + interval
        for cohort, one in due.items()
        if (before := attempts.get(cohort)) is not None
    }


def read_cursor(cursor: str | None) -> dict[str, Attempt]:
    """Read the attempts by cohort; none where the cursor is not one of this sensor's."""
    try:
        return _ATTEMPTS.validate_json(cursor or "{}")
    except ValidationError:
        return {}


def _explain_no_request(reasons: Mapping[str, str], busy: set[str], pauses: Mapping[str, datetime]) -> str:
    lines = [
        f"{what}: {planner.format_days(sorted(days))}."
        for what, days in (
            ("Not requested yet, as enough runs are in progress", reasons),
            ("Being fetched or computed already", busy),
            ("Requested recently", pauses),
        )
        if days
    ]
    if pauses:
        lines.append(f"Next attempt from {min(pauses.values()).astimezone(UTC):%Y-%m-%d %H:%M} UTC on.")
    return " ".join(lines) or "All rates are up to date."
