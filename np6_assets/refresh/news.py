"""Which days to ask for, and why, in words: the decision of the sensor `np6_refresh`, without Dagster and HTTP.

What is stored says what is missing. The memory that is carried from tick to tick saves looking at every day again, and
counts the tries; without it nothing is lost but the counts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from np6_assets.partitions import Day, consecutive

RUNS_UNDER_WAY = 2
"""How many runs that were asked for here may be under way at once, however much is missing."""

DAYS_PER_RUN = 31
"""How many days one run is asked for at most."""

DAYS_TOGETHER = 3
"""How many days one run may hold that people wait for: those of today and yesterday."""

DAYS_PER_TICK = 62
"""How many days that were never looked at are looked at in one tick."""

UNANSWERED_LOOKS = timedelta(hours=1)
"""How often it is looked for closed days whose notifications did not all answer."""

FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=6)


@dataclass(frozen=True)
class Stored:
    """What is there of a day: until when it was fetched and recorded, by asset; None where it never was."""

    day: Day
    until: Mapping[str, datetime | None]

    @property
    def is_closed(self) -> bool:
        """Whether nothing of the day is missing."""
        return not self.lacking

    @property
    def is_there(self) -> bool:
        """Whether all assets have the day, closed or not."""
        return None not in self.until.values()

    @property
    def lacking(self) -> set[str]:
        """The assets of which something is missing."""
        return {asset for asset, until in self.until.items() if until is None or until < self.day.end}

    def progress(self, asset: str) -> str:
        """What changes when a run has fetched the day of an asset: until when that has it."""
        until = self.until[asset]
        return "" if until is None else until.isoformat()

    def fetched_since(self, moment: datetime, now: datetime) -> set[str]:
        """The assets that were fetched between two moments."""
        return {asset for asset, until in self.until.items() if until is not None and moment < until <= now}


@dataclass(frozen=True)
class Try:
    """How often something was asked for in vain: `progress` is what was there each time; `at` is the last time."""

    times: int
    at: str
    progress: str

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Try:
        """From a cursor. Raises ValueError, TypeError or AttributeError where it is not one of a sensor's here."""
        tried = cls(**values)
        _ = tried.next_at - datetime.max.replace(tzinfo=UTC)  # a time without its zone is none of theirs
        return tried

    @property
    def next_at(self) -> datetime:
        """When it is asked for again: after 1, 4, 16, 64 minutes, then more rarely, but never never."""
        return datetime.fromisoformat(self.at) + min(FIRST_PAUSE * 4.0 ** min(self.times - 1, 8), LONGEST_PAUSE)


@dataclass(frozen=True)
class Memory:
    """What is carried from one tick to the next, as the sensor's cursor.

    Attributes:
        closed_through: every day that is watched is closed up to and with this one, but for `still_open`.
        still_open: the days up to `closed_through` that are not closed.
        tries: by day and asset, what was asked for and has not brought anything yet.
        last_probed: the notification whose activations were probed last; the others have their turn first.
        looked_unanswered_at: when it was looked for notifications that did not answer.
        said: what the last tick said.
        first_day: the first day that was watched.
    """

    closed_through: str = ""
    still_open: tuple[str, ...] = ()
    tries: Mapping[str, Mapping[str, Try]] = field(default_factory=dict)
    last_probed: int = 0
    looked_unanswered_at: str = ""
    said: str = ""
    first_day: str = ""

    @classmethod
    def read(cls, cursor: str | None) -> Memory:
        """From a cursor; a new one where there is none, or where it is not one of this sensor's."""
        try:
            values: dict[str, Any] = json.loads(cursor or "{}")
            tries = {
                day: {asset: Try.read(one) for asset, one in assets.items()}
                for day, assets in values.pop("tries", {}).items()
            }
            memory = cls(**values | {"tries": tries, "still_open": tuple(values.get("still_open", ()))})
            for day in (memory.closed_through or "2000-01-01", *memory.still_open):
                date.fromisoformat(day)
            return memory
        except (ValueError, TypeError, AttributeError):
            return cls()

    def may_look_unanswered(self, now: datetime) -> bool:
        """Whether it is time to look for notifications that did not answer."""
        last = self.looked_unanswered_at
        return not last or now - datetime.fromisoformat(last) >= UNANSWERED_LOOKS

    def write(self) -> str:
        """The cursor: JSON that a person can read."""
        return json.dumps(asdict(self), indent=1)


@dataclass(frozen=True)
class Ask:
    """One run that is asked for: the days from `first` to `last`, why, and of which assets; of all where it is None.

    `missing_only`: of the notifications alone that did not answer.
    """

    first: str
    last: str
    why: str
    assets: frozenset[str] | None = None
    missing_only: bool = False


def days_to_look_at(memory: Memory, today: date) -> list[date]:
    """The days of which it has to be known what is stored, oldest first; today is always one of them."""
    new = date.fromisoformat(memory.closed_through) + timedelta(days=1)
    days = {date.fromisoformat(day) for day in memory.still_open}
    days |= {new + timedelta(days=ahead) for ahead in range(min(DAYS_PER_TICK, (today - new).days + 1))}
    return sorted(days | {today, today - timedelta(days=1)} if new < today else days | {today})


def looked_at(
    memory: Memory, stored: Sequence[Stored], now: datetime, overlap: timedelta, unread: Collection[str] = ()
) -> Memory:
    """The memory, after it was looked at what is stored of these days, oldest first. `unread`: no time was left."""
    through = memory.closed_through
    still_open = [day for day in memory.still_open if day in unread]
    for one in stored:
        follows = one.day.date == date.fromisoformat(through) + timedelta(days=1)
        if follows and can_be_closed(one.day, now, overlap):
            through = one.day.key
        if one.day.key <= through and not one.is_closed:
            still_open.append(one.day.key)
    keys = {one.day.key: one for one in stored}
    tries = {
        day: {
            asset: tried
            for asset, tried in tries.items()
            if day in unread or (asset in keys[day].lacking and keys[day].progress(asset) == tried.progress)
        }
        for day, tries in memory.tries.items()
        if day in unread or day in keys
    }
    tries = {day: of_day for day, of_day in tries.items() if of_day}
    return replace(memory, closed_through=through, still_open=tuple(sorted(still_open)), tries=tries)


def can_be_closed(day: Day, now: datetime, overlap: timedelta) -> bool:
    """Whether a fetch of the day would close it."""
    return now >= day.end + overlap


def waiting(memory: Memory, days: Iterable[str], now: datetime) -> dict[str, dict[str, Try]]:
    """The assets of the days that were asked for in vain and are not to be asked for again yet."""
    held = {
        day: {asset: tried for asset, tried in memory.tries.get(day, {}).items() if now < tried.next_at} for day in days
    }
    return {day: tries for day, tries in held.items() if tries}


def asks(
    reasons: Mapping[str, str],
    runs_under_way: int,
    days_per_run: int = DAYS_PER_RUN,
    assets: Mapping[str, frozenset[str]] | None = None,
    today: date | None = None,
) -> list[Ask]:
    """The runs for the days that need one: days that follow one another in one run, the newest first.

    Bounded, whatever is missing: what is left over is asked for once these runs are done. `assets` are those of each
    day, where they are not all: days of other assets are another run. After more than DAYS_TOGETHER days, `today` and
    yesterday have a run of their own, which comes first.
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
    if recent and len(runs[0]) > DAYS_TOGETHER:
        runs[:1] = [recent, runs[0][len(recent) :]]
    free = max(RUNS_UNDER_WAY - runs_under_way, 0)
    return [
        Ask(str(run[-1]), str(run[0]), _why(list(reversed(run)), reasons), of_day.get(str(run[0])))
        for run in runs[:free]
    ]


def asked(memory: Memory, made: Sequence[Ask], stored: Sequence[Stored], now: datetime) -> Memory:
    """The memory, after these runs were asked for."""
    tries = {day: dict(of_day) for day, of_day in memory.tries.items()}
    for one in stored:
        for ask in made:
            if ask.first <= one.day.key <= ask.last:
                of_day = tries.setdefault(one.day.key, {})
                for asset in one.until if ask.assets is None else ask.assets:
                    times = of_day[asset].times if asset in of_day else 0
                    of_day[asset] = Try(times + 1, now.isoformat(), one.progress(asset))
    return replace(memory, tries=tries)


def words(
    made: Sequence[Ask],
    reasons: Mapping[str, str],
    under_way: AbstractSet[str],
    held: Mapping[str, Mapping[str, Try]],
    probed: str,
) -> str:
    """What a tick did and did not do, and why."""
    lines = [f"Asked for {_of(ask.assets)}{_span(ask.first, ask.last)}: {ask.why}." for ask in made]
    left = sorted(day for day in reasons if not any(ask.first <= day <= ask.last for ask in made))
    if left:
        lines.append(f"Not asked for yet, as enough runs are under way: {spans(left)}.")
    if under_way:
        lines.append(f"Being fetched already: {spans(sorted(under_way))}.")
    together: dict[tuple[Try, frozenset[str]], list[str]] = {}
    for day, tries in sorted(held.items()):
        for tried in dict.fromkeys(replace(one, progress="") for one in tries.values()):
            assets = frozenset(asset for asset, one in tries.items() if replace(one, progress="") == tried)
            together.setdefault((tried, assets), []).append(day)
    lines += [
        f"{_of(assets)}{spans(days)}: asked for {_times(tried.times)} and not there; the runs say why. Asked for again "
        f"from {tried.next_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC on."
        for (tried, assets), days in together.items()
    ]
    if probed:
        lines.append(probed)
    return " ".join(lines)


def _of(assets: frozenset[str] | None) -> str:
    return "" if assets is None else f"{', '.join(sorted(assets))} of "


def _times(times: int) -> str:
    return "once" if times == 1 else f"{times} times"


def _why(run: Sequence[date], reasons: Mapping[str, str]) -> str:
    """The reasons for the days of a run, days with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for day in run:
        by_reason.setdefault(reasons[str(day)], []).append(str(day))
    if len(by_reason) == 1:
        return next(iter(by_reason))
    return "; ".join(f"{spans(days)}: {reason}" for reason, days in by_reason.items())


def spans(days: Sequence[str]) -> str:
    """Days in words, those that follow one another together."""
    return ", ".join(_span(str(run[0]), str(run[-1])) for run in consecutive(map(date.fromisoformat, days)))


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"
