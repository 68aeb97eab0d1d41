"""Serve an account for a month as an API that forgets, sends nothing, hides, renames, and sends wrong dates."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from np6_assets_tests.support.events import DAY_MS, HOUR_MS, KINDS, Population, build_event, render
from np6_assets_tests.support.rude_server import Act, Request, RudeServer, parse_time

LIST, ACCOUNT, CLOCK = "notifications", "account", "clock"
"""Subjects of faults, besides feeds and ids of notifications."""

BLANKS = ("blank 200", "blank 204")
REFUSALS = ("hidden 404", "hidden 410", "hidden 403", "hidden 500")
HIDES = ("hidden from the list", *REFUSALS)
UNLISTED = ("hidden from the list", "hidden 404", "hidden 410")
"""Faults in which the list does not have the notification."""
DATES = ("Date ahead", "Date behind", "no Date")
FORGETS, OTHER_ACCOUNT = "forgets", "another account"
FAULTS = (FORGETS, *BLANKS, *HIDES, OTHER_ACCOUNT, *DATES)

MAX_BLANK_MS = 24 * HOUR_MS
MAX_HIDE_MS = 48 * HOUR_MS
MIN_PAUSE_MS = 6 * DAY_MS
"""Least time between two faults of one subject, so that every day has a nightly fetch without faults."""

KEPT_DAYS = (7, 9, 14, 21)
"""How many days of events an API that forgets may keep: no fewer than the nightly fetches go back."""

FOREIGN_EVENTS = 20
"""Events of another account in each response: so many, and no others, are refused."""


@dataclass(frozen=True)
class Outage:
    """A fault of a subject from `start` to `end` (ms since epoch).

    `amount` is the number of days that an API that forgets keeps, or of hours that a date is wrong by.
    """

    fault: str
    subject: str
    start: int
    end: int
    amount: int = 0


def draw_outages(rng: random.Random, ids: list[int], start: int, end: int) -> list[Outage]:
    """Draw the outages of a month; each ends before `end`."""
    subjects = [
        *((kind, BLANKS, MAX_BLANK_MS) for kind in KINDS if kind != "activations"),
        *((str(id_), (*HIDES, *BLANKS), MAX_HIDE_MS) for id_ in ids),
        (LIST, BLANKS, MAX_BLANK_MS),
        (ACCOUNT, (OTHER_ACCOUNT,), MAX_BLANK_MS),
    ]
    outages: list[Outage] = []
    for subject, faults, max_ms in subjects:
        begin = start + rng.randrange(MIN_PAUSE_MS)
        while (until := begin + rng.randrange(HOUR_MS, max_ms)) < end:
            outages.append(Outage(rng.choice(faults), subject, begin, until))
            begin = until + MIN_PAUSE_MS + rng.randrange(MIN_PAUSE_MS)
    for begin in range(start, end, 3 * DAY_MS):
        until = min(begin + 3 * DAY_MS, end)
        if rng.random() < 0.7:
            outages.append(Outage(FORGETS, ACCOUNT, begin, until, rng.choice(KEPT_DAYS)))
        if rng.random() < 0.7:
            outages.append(Outage(rng.choice(DATES), CLOCK, begin, rng.randrange(begin, until), rng.randrange(1, 7)))
    return outages


@dataclass(frozen=True)
class Renaming:
    """A notification's new name from a time (ms since epoch) on."""

    ms: int
    id: int
    name: str


class MonthServer(RudeServer):
    """Serves what was published before `until_ms`, its clock, with the outages of that time.

    `injected` counts by fault how many responses it changed.
    """

    def __init__(
        self, population: Population, outages: Sequence[Outage], renamings: Sequence[Renaming], seed: int, key: str
    ) -> None:
        super().__init__(population, key=key, seed=seed)
        self.until_ms = 0
        self.injected: Counter[str] = Counter()
        self._outages = outages
        self._renamings = renamings

    def get_date(self) -> datetime | None:
        """Return the time of the Date header, None for no header."""
        outage = self._meet_outage(CLOCK, DATES)
        if outage is None:
            hours = 0
        elif outage.fault == "no Date":
            return None
        else:
            hours = outage.amount if outage.fault == "Date ahead" else -outage.amount
        return datetime.fromtimestamp((self.until_ms + hours * HOUR_MS) / 1000, UTC)

    def choose_act(self, request: Request) -> Act | None:
        """Choose the fault of a response without a body, if any."""
        outage = self._meet_outage(_get_subject(request.path), (*REFUSALS, "blank 204"))
        return None if outage is None else Act(outage.fault.split()[1])

    def select_items(self, request: Request, **options: Any) -> list[Any]:
        """Return the array elements that the API has for the request."""
        published = [item for item in super().select_items(request, **options) if item.ms < self.until_ms]
        if self._meet_outage(ACCOUNT, (OTHER_ACCOUNT,)) is not None:
            return self._build_foreign_events(request)
        if self._meet_outage(_get_subject(request.path), ("blank 200",)) is not None:
            return []
        outage = self._find_outage(ACCOUNT, (FORGETS,))
        kept = [item for item in published if outage is None or item.ms >= self.until_ms - outage.amount * DAY_MS]
        if len(kept) < len(published):
            self._count(FORGETS)
        return kept

    def list_notifications(self, request: Request) -> list[bytes]:
        """Return the elements of /notifications."""
        if self._meet_outage(LIST, ("blank 200",)) is not None:
            return []
        names = {renaming.id: {"name": renaming.name} for renaming in self._renamings if renaming.ms < self.until_ms}
        return [
            render(entry | names.get(entry["id"], {})).encode()
            for entry in self._notifications
            if self._meet_outage(str(entry["id"]), UNLISTED) is None
        ]

    def _find_outage(self, subject: str, faults: Sequence[str]) -> Outage | None:
        for outage in self._outages:
            if outage.start <= self.until_ms < outage.end and outage.subject == subject and outage.fault in faults:
                return outage
        return None

    def _meet_outage(self, subject: str, faults: Sequence[str]) -> Outage | None:
        """Find the current outage with one of the faults, and count it."""
        outage = self._find_outage(subject, faults)
        if outage is not None:
            self._count(outage.fault)
        return outage

    def _count(self, fault: str) -> None:
        with self.lock:
            self.injected[fault] += 1

    def _build_foreign_events(self, request: Request) -> list[Any]:
        start = parse_time(request.query.get("start") or request.query["reactivityStart"])
        kind = request.path.rpartition("/")[2]
        events = [
            build_event(kind, id=f"other {start} {number}", timestamp=start + number, agency="OTHER")
            for number in range(FOREIGN_EVENTS)
        ]
        return [replace(self._items[kind][0], ms=each["timestamp"], body=render(each).encode()) for each in events]


def _get_subject(path: str) -> str:
    """Return the asset, or the id of the notification, that a request is about."""
    parts = path.split("/")
    return parts[2] if len(parts) > 2 and parts[2].isdigit() else parts[-1]
