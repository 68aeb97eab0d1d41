"""Serve an account for a month by an API that forgets, blanks, hides, renames, and lies about the time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from np6_assets_tests.support.events import DAY_MS, HOUR_MS, KINDS, Population, event, render
from np6_assets_tests.support.rude_server import Act, Request, RudeServer, parse_time

LIST, ACCOUNT, CLOCK = "notifications", "account", "clock"
"""Subjects of spells, besides the feeds and the notifications' ids."""

BLANKS = ("blank 200", "blank 204")
REFUSALS = ("hidden 404", "hidden 410", "hidden 403", "hidden 500")
HIDES = ("hidden from the list", *REFUSALS)
DATES = ("Date ahead", "Date behind", "no Date")
UNLISTED = ("hidden from the list", "hidden 404", "hidden 410")
"""Spells in which the list leaves a notification out."""
FORGETS, OTHER_ACCOUNT = "forgets", "another account"
FAULTS = (FORGETS, *BLANKS, *HIDES, OTHER_ACCOUNT, *DATES)

LONGEST_BLANK = 24 * HOUR_MS
LONGEST_HIDE = 48 * HOUR_MS
WELL = 6 * DAY_MS
"""Least time between two spells of one feed, notification or account: so that each day has a night without any."""

KEPT_DAYS = (7, 9, 14, 21)
"""How many days of events an API keeps that forgets: at least as many as the nightly fetches go back."""

FOREIGN_EVENTS = 20
"""Events of another account in each of its answers: so many, and no others, are refused."""


@dataclass(frozen=True)
class Spell:
    """A fault of a subject that lasts from `start` to `end` (ms); `amount` is days that are kept or hours of a lie."""

    what: str
    subject: str
    start: int
    end: int
    amount: int = 0


def spells(rng: random.Random, ids: list[int], start: int, end: int) -> list[Spell]:
    """A month of spells, each over by `end`."""
    subjects = [
        *((kind, BLANKS, LONGEST_BLANK) for kind in KINDS if kind != "activations"),
        *((str(id_), (*HIDES, *BLANKS), LONGEST_HIDE) for id_ in ids),
        (LIST, BLANKS, LONGEST_BLANK),
        (ACCOUNT, (OTHER_ACCOUNT,), LONGEST_BLANK),
    ]
    drawn = [one for subject, whats, longest in subjects for one in _drawn(rng, subject, whats, longest, start, end)]
    for at in range(start, end, 3 * DAY_MS):
        until = min(at + 3 * DAY_MS, end)
        if rng.random() < 0.7:
            drawn.append(Spell(FORGETS, ACCOUNT, at, until, rng.choice(KEPT_DAYS)))
        if rng.random() < 0.7:
            drawn.append(Spell(rng.choice(DATES), CLOCK, at, rng.randrange(at, until), rng.randrange(1, 7)))
    return drawn


def _drawn(
    rng: random.Random, subject: str, whats: tuple[str, ...], longest: int, start: int, end: int
) -> Iterator[Spell]:
    at = start + rng.randrange(WELL)
    while (until := at + rng.randrange(HOUR_MS, longest)) < end:
        yield Spell(rng.choice(whats), subject, at, until)
        at = until + WELL + rng.randrange(WELL)


class ForgetfulServer(RudeServer):
    """Serve what was published until `until_ms`, its clock, as the spells have it. `injected` counts what they did.

    `names` are new names of notifications, by time (ms) and id.
    """

    def __init__(
        self, population: Population, spells: list[Spell], names: list[tuple[int, int, str]], seed: int, key: str
    ) -> None:
        super().__init__(population, key=key, seed=seed)
        self.until_ms = 0
        self.injected: Counter[str] = Counter()
        self._spells = spells
        self._names = names

    def date_now(self) -> datetime | None:
        """What the Date header says."""
        spell = self._spell(CLOCK, DATES)
        if spell is not None and spell.what == "no Date":
            return None
        hours = 0 if spell is None else spell.amount if spell.what == "Date ahead" else -spell.amount
        return datetime.fromtimestamp((self.until_ms + hours * HOUR_MS) / 1000, UTC)

    def decide(self, request: Request) -> Act | None:
        """What to do to this request."""
        spell = self._spell(_subject(request.path), (*REFUSALS, "blank 204"))
        return None if spell is None else Act(spell.what.split()[1])

    def elements(self, request: Request, **options: Any) -> list[Any]:
        """The array elements that the API has for the request."""
        published = [item for item in super().elements(request, **options) if item.ms < self.until_ms]
        if self._spell(ACCOUNT, (OTHER_ACCOUNT,)) is not None:
            return self._foreign(request)
        if self._spell(_subject(request.path), ("blank 200",)) is not None:
            return []
        forgets = next((spell for spell in self._now() if spell.what == FORGETS), None)
        kept = [item for item in published if forgets is None or item.ms >= self.until_ms - forgets.amount * DAY_MS]
        self._count(FORGETS, len(kept) < len(published))
        return kept

    def listing(self, request: Request) -> list[bytes]:
        """The elements of /notifications."""
        if self._spell(LIST, ("blank 200",)) is not None:
            return []
        names = {id_: {"name": name} for ms, id_, name in self._names if ms < self.until_ms}
        return [
            render(entry | names.get(entry["id"], {})).encode()
            for entry in self._notifications
            if self._spell(str(entry["id"]), UNLISTED) is None
        ]

    def _now(self) -> Iterator[Spell]:
        return (spell for spell in self._spells if spell.start <= self.until_ms < spell.end)

    def _spell(self, subject: str, whats: tuple[str, ...]) -> Spell | None:
        """The spell of a subject that is one of these, now; counted, as an answer meets it."""
        found = next((spell for spell in self._now() if spell.subject == subject and spell.what in whats), None)
        if found is not None:
            self._count(found.what)
        return found

    def _count(self, what: str, times: int = 1) -> None:
        with self.lock:
            self.injected[what] += times

    def _foreign(self, request: Request) -> list[Any]:
        start = parse_time(request.query.get("start") or request.query["reactivityStart"])
        kind = request.path.rpartition("/")[2]
        made = [
            event(kind, id=f"other {start} {number}", timestamp=start + number, agency="OTHER")
            for number in range(FOREIGN_EVENTS)
        ]
        return [replace(self._items[kind][0], ms=one["timestamp"], body=render(one).encode()) for one in made]


def _subject(path: str) -> str:
    """The asset or notification that a request is about."""
    parts = path.split("/")
    return parts[2] if len(parts) > 2 and parts[2].isdigit() else parts[-1]
