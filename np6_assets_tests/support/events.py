"""Build seeded populations of NP6 events, valid and not.

`builders` builds single events, `variants` and `poison` events with unexpected values; their names can be imported
from here as well. All randomness comes from the seed, so failures repeat.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from np6_assets_tests.support.builders import (
    DAY_MS,
    HOUR_MS,
    KINDS,
    MISSING,
    NO_EXPIRATION,
    REACTIVITIES,
    Event,
    RawEvent,
    build_event,
    draw_uuid,
    dump_json,
    render,
    set_field,
    to_ms,
)
from np6_assets_tests.support.poison import POISON, build_poison, is_bulky, list_field_poison
from np6_assets_tests.support.variants import (
    BadEvent,
    build_bad_events,
    build_coerced,
    coerce_at_random,
    compare_quarantine,
)

__all__ = [
    "DAY_MS",
    "HOUR_MS",
    "KINDS",
    "MISSING",
    "POISON",
    "REACTIVITIES",
    "BadEvent",
    "Event",
    "RawEvent",
    "build_bad_events",
    "build_coerced",
    "build_event",
    "build_poison",
    "compare_quarantine",
    "dump_json",
    "list_field_poison",
    "render",
    "set_field",
    "to_ms",
]


@dataclass
class Population:
    """The notifications and events of an account; `bad_events` are the events that are rejected."""

    notifications: list[Event] = field(default_factory=list)
    activations: list[Event] = field(default_factory=list)
    hits: list[Event] = field(default_factory=list)
    optouts: list[Event] = field(default_factory=list)
    bounces: list[Event] = field(default_factory=list)
    impressions: list[Event] = field(default_factory=list)
    bad_events: list[BadEvent] = field(default_factory=list)

    def feed(self, kind: str) -> list[Event]:
        """Return the events of one kind that are stored, some of them with coerced values."""
        events: list[Event] = getattr(self, kind)
        return events

    def merge(self, other: Population) -> Population:
        """Return the union with another population of the same notifications."""
        feeds = {kind: self.feed(kind) + other.feed(kind) for kind in (*KINDS, "bad_events")}
        return Population(notifications=self.notifications, **feeds)


TEXTS = (
    *("plain", 'with "quotes" inside', "back\\slash and trailing one \\", "}{][ braces"),
    *('"},{"id":"not an event"}],[', "line\nbreak, tab\t, return\r", "control \u0001 and \u007f"),
    *("éàü ß ŵ", "日本語の題", "emoji 🎉👩\u200d👩\u200d👧", "\u2028 separators \u2029"),
    *("it's, comma, % {0} $1", "\\u0041 literally", "null", "</script><!--", " ", "", "long " * 300),
)
EXPIRATIONS = (
    *([NO_EXPIRATION] * 6),
    *("2026-04-30T12:00:00Z", "2026-05-01T00:00:00+02:00", "2026-05-01T00:00:00-05:30"),
    *("2026-04-30T12:00:00.250Z", "2026-04-30T12:00:00.5000000Z", None, MISSING),
)
LINK_TYPES = (*["redirection"] * 8, "dismissal", "dismissal", "", "Redirection", None, MISSING)
VERDICTS = ("hard", "hard", "hard", "soft", "soft", "soft", "blocked", "", None, MISSING)
STATUSES: tuple[Any, ...] = (
    *(*[None] * 5, MISSING, "5.1.1 user unknown", 'quoted "550"', {}),
    {"code": 550, "text": 'no such "user" é 🎉', "more": [1, None, True]},
    *([550, "5.1.1"], 550, True),
)
SUBJECTS: tuple[dict[str, Any], ...] = (
    *({}, {}, {"reason": "quota"}, {"subject": "mailbox é"}, {"subject": None}, {"subject": MISSING}),
    *({"subject_detail": None}, {"subject_detail": MISSING}, {"subject_type": None, "reason": MISSING}),
)
# Fields that may be null or missing in an event that is stored.
OPTIONAL = (
    *("type", "identity", "agency", "customer", "version", "kind", "application", "subscription"),
    *("channel", "urgent", "receiver", "receiver_type", "receiver_value", "receiver_id", "unicity", "hash"),
    *("stamp", "stamp_id", "stamp_time", "thread", "stamp_id", "stamp_time"),
)
_OPTIONAL_OF_KIND = {
    "hits": ("link", "link_label", "link_uri"),
    "optouts": ("optout", "optout_type", "optout_channel"),
    "bounces": ("bounce", "analysis"),
    "impressions": (),
    "activations": (),
}


def _compute_day_start(day: date, timezone: str) -> int:
    """Compute the start of a calendar day, in ms since epoch."""
    start = datetime.combine(day, time(), ZoneInfo(timezone)).astimezone(UTC)
    return (start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@dataclass(frozen=True)
class _Sender:
    """A notification with its accounts, versions, applications and rates."""

    id: int
    accounts: tuple[tuple[str, str], ...]
    versions: tuple[str, ...]
    applications: tuple[str, ...]
    hit: float
    bounce: float
    optout: float


def _build_senders(count: int) -> list[_Sender]:
    """Build the same notifications for every seed, so that populations can be merged."""
    rng = random.Random("senders")
    accounts = (("DEMO", "028"), ("DEMO", "029"), ('AGENCE "É"', "A\\B"), ("DEMO", ""))
    return [
        _Sender(
            # One id that a double cannot hold.
            id=2**53 + 1 if number == 1 else 100 + 7 * number,
            accounts=(accounts[number % 4], *rng.sample(accounts, number % 2)),
            versions=tuple(draw_uuid(rng) for _ in range(1 + number % 3)),
            applications=tuple(draw_uuid(rng) for _ in range(1 + (number + 1) % 2)),
            hit=rng.uniform(0.1, 0.7),
            bounce=rng.uniform(0.02, 0.3),
            optout=rng.uniform(0.02, 0.2),
        )
        for number in range(count)
    ]


def _list_notifications(senders: Sequence[_Sender]) -> list[Event]:
    names: list[Any] = ["Spring sale", 'Soldes "d\'été" 🎉', None, MISSING, "日本語", "back\\slash"]
    types: list[Any] = ["push", "push", None, MISSING, "web"]
    listing = []
    for number, sender in enumerate(senders):
        entry = {
            "id": sender.id,
            "name": names[number % len(names)],
            "type": types[number % len(types)],
            "state": "active",
            "extra": {"id": "not this one", "name": [1]},
        }
        listing.append({key: value for key, value in entry.items() if value is not MISSING})
    return listing


def set_one_agency(population: Population) -> Population:
    """Give all events the same agency, as a data folder accepts one agency only."""
    for kind in KINDS:
        for one in population.feed(kind):
            if isinstance(one.get("identity"), dict) and "agency" in one["identity"]:
                one["identity"]["agency"] = "DEMO"
    return population


def build_population(
    seed: int,
    first_day: date,
    days: int,
    timezone: str = "UTC",
    notifications: int = 4,
    sends_per_day: int = 30,
    *,
    lead_days: int = 3,
    window_days: int = 7,
    holes: float = 0.06,
    repeats: float = 0.03,
    bad_event_days: Iterable[date] = (),
    poison_days: Iterable[date] = (),
    coerced_share: float = 0.0,
) -> Population:
    """Build an account with sends on `lead_days` days before `first_day` and on `days` days from it on.

    Reactions follow within minutes or weeks, some on the first and last millisecond of a window of `window_days`.

    Args:
        seed: of everything random.
        first_day: first day of interest.
        days: days of sends from `first_day` on.
        timezone: IANA name, for where days begin; events lie on the edges of days.
        notifications: how many are listed; one more is deleted and has only reactions.
        sends_per_day: about how many.
        lead_days: days of sends before `first_day`.
        window_days: the reaction window whose edges get reactions.
        holes: share of events in which an optional field is null or missing.
        repeats: share of events that occur twice.
        bad_event_days: days with every variant of every kind: coerced ones in the feeds from 10:00 on, rejected ones in
            `bad_events` from 12:00 on.
        poison_days: days with every poison of every kind whose outcome is known, from 14:00 on, in the feeds if stored,
            else in `bad_events`.
        coerced_share: share of the events in which one value is coerced.
    """
    builder = _PopulationBuilder(seed, timezone, notifications, window_days, holes)
    for number in range(-lead_days, days):
        builder.add_day(first_day + timedelta(days=number), sends_per_day)
    population = builder.population
    for kind in KINDS:
        feed = population.feed(kind)
        coercions = random.Random(f"{seed} {kind} coerced")
        for one in coercions.sample(feed, int(len(feed) * coerced_share)):
            coerce_at_random(kind, coercions, one)
        feed.extend(copy.deepcopy(one) for one in builder.rng.sample(feed, int(len(feed) * repeats)))
        builder.rng.shuffle(feed)
    sender = builder.senders[0].id
    for day in bad_event_days:
        start = _compute_day_start(day, timezone)
        for kind in KINDS:
            population.feed(kind).extend(
                one for _, one in build_coerced(kind, f"{seed} {day}", start + 10 * HOUR_MS, sender)
            )
            population.bad_events.extend(build_bad_events(kind, f"{seed} {day}", start + 12 * HOUR_MS, sender))
    for day in poison_days:
        for kind in KINDS:
            start = _compute_day_start(day, timezone)
            _add_poison(population, kind, f"{seed} {day}", start + 14 * HOUR_MS, sender)
    return population


def _add_poison(population: Population, kind: str, seed: object, at_ms: int, notification_id: int) -> None:
    """Add the small poison of a kind whose outcome is known, to its feed if it is stored."""
    for one in build_poison(kind, seed, at_ms, notification_id, [name for name in POISON if not is_bulky(name)]):
        if one.outcome == "either":
            continue
        if one.event is not None:
            population.feed(kind).append(RawEvent(one.event, one.raw))
        else:
            population.bad_events.append(BadEvent(one.name, kind, one.placed_ms, notification_id, None, one.raw))


class _PopulationBuilder:
    """Builds a population, one day of sends at a time."""

    def __init__(self, seed: int, timezone: str, notifications: int, window_days: int, holes: float) -> None:
        self.rng = random.Random(seed)
        self.timezone = timezone
        self.window_days = window_days
        self.holes = holes
        everyone = _build_senders(notifications + 1)
        self.senders, self.deleted = everyone[:-1], everyone[-1]
        self.population = Population(notifications=_list_notifications(self.senders))

    def add_day(self, day: date, sends: int) -> None:
        start, end = _compute_day_start(day, self.timezone), _compute_day_start(day + timedelta(days=1), self.timezone)
        rng = self.rng
        moments = [start, end - 1, end - 300]
        moments += [rng.randrange(start, end) // 1000 * 1000 for _ in range(sends // 3)]
        left = sends
        while left > 0:
            left -= self.add_stamp(day, rng.choice(moments) if rng.random() < 0.3 else rng.randrange(start, end))
        for kind in KINDS:
            # Ties on the first, the last and some other millisecond of the day.
            for edge in (start, end - 1, rng.randrange(start, end)):
                for _ in range(rng.choice((2, 2, 3))):
                    send = self.draw_send(rng.choice(self.senders), draw_uuid(rng), edge - rng.randrange(5000))
                    self.add_event(kind, edge, send)

    def add_stamp(self, day: date, moment: int) -> int:
        """Add a stamp of one to four sends; return how many."""
        rng = self.rng
        sender = self.deleted if rng.random() < 0.04 else rng.choice(self.senders)
        stamp_id = draw_uuid(rng)
        shared = rng.choice((1, 1, 1, 2, 4))
        for _ in range(shared):
            send = self.draw_send(sender, stamp_id, moment)
            orphan = rng.random() < 0.04 or sender is self.deleted
            if not orphan:
                self.add_event("activations", moment + self.draw_publication_delay(moment), send)
            self.add_reactions(sender, send, day, moment)
        return shared

    def draw_send(self, sender: _Sender, stamp_id: str, moment: int) -> dict[str, Any]:
        """Draw the fields that all events of a send share."""
        rng = self.rng
        agency, customer = rng.choice(sender.accounts)
        contact = rng.randrange(100_000)
        unicity = f"{rng.choice(('someone', 'zoé', 'o-brien+push'))}{contact}@example.com"
        return {
            "agency": agency,
            "customer": customer,
            "activation_id": sender.id,
            "version": rng.choice(sender.versions),
            "application": rng.choice(sender.applications),
            "subscription": None if rng.random() < 0.02 else draw_uuid(rng),
            "stamp_id": stamp_id,
            "stamp_time": moment,
            "thread": rng.choice(TEXTS) if rng.random() < 0.2 else draw_uuid(rng),
            "channel": rng.choice(TEXTS) if rng.random() < 0.2 else "notification_channel",
            "urgent": rng.choice((True, False, False, None, MISSING)),
            "expiration": rng.choice(EXPIRATIONS),
            "receiver_id": f"000R{contact:05X}",
            "unicity": unicity,
            "hash": hashlib.md5(unicity.encode(), usedforsecurity=False).hexdigest(),
        }

    def draw_publication_delay(self, moment: int) -> int:
        """Draw how long after its stamp an activation is published, in ms."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.86:
            return rng.randrange(5000)
        if chance < 0.95:
            return rng.randrange(20 * HOUR_MS)
        if chance < 0.98:
            return rng.randrange(26 * HOUR_MS, 60 * HOUR_MS)  # too late for its cohort
        return -rng.randrange(2000)  # a clock that is slow

    def draw_reaction_delay(self, day: date, moment: int) -> int:
        rng = self.rng
        chance = rng.random()
        if chance < 0.8:
            delay = int(rng.expovariate(1 / (5 * HOUR_MS)))
            # Whole seconds now and then: events tie on the same millisecond.
            return delay // 1000 * 1000 if rng.random() < 0.3 else delay
        if chance < 0.9:
            return rng.randrange((self.window_days + 4) * DAY_MS)
        if chance < 0.98:
            after = _compute_day_start(day + timedelta(days=self.window_days + 1), self.timezone)
            return after + rng.choice((-1, 0, -1, 0, 1, -1000)) - moment
        return -rng.randrange(3000)

    def add_reactions(self, sender: _Sender, send: dict[str, Any], day: date, moment: int) -> None:
        rng = self.rng

        def draw_time() -> int:
            return moment + self.draw_reaction_delay(day, moment)

        if rng.random() < sender.bounce:
            for _ in range(rng.choice((1, 1, 2, 3))):
                fields = {
                    "verdict": rng.choice(VERDICTS),
                    "status": rng.choice(STATUSES),
                    **rng.choice(SUBJECTS),
                }
                self.add_event("bounces", draw_time(), {**send, **fields})
            if rng.random() < 0.8:
                return
        if rng.random() < sender.optout:
            for _ in range(rng.choice((1, 1, 2))):
                self.add_event(
                    "optouts", draw_time(), {**send, "optout_type": rng.choice(("channel", "application", None))}
                )
        elif rng.random() < 0.8:
            self.add_event("impressions", draw_time(), send)
        if rng.random() < sender.hit:
            for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
                fields = {"link_type": rng.choice(LINK_TYPES), "link_label": rng.choice((None, *TEXTS))}
                self.add_event("hits", draw_time(), {**send, **fields})

    def add_event(self, kind: str, timestamp: int, fields: dict[str, Any]) -> None:
        """Add an event, at times with a null, missing or unknown field."""
        rng = self.rng
        event = build_event(kind, id=draw_uuid(rng), timestamp=timestamp, **fields)
        if rng.random() < self.holes:
            hole = rng.choice((*OPTIONAL, *_OPTIONAL_OF_KIND[kind]))
            set_field(event, hole, rng.choice((None, MISSING)))
        if rng.random() < 0.1:
            _add_unknown(rng, event)
        if rng.random() < 0.02:
            set_field(event, "type", rng.choice(("sneeze", "reply", None, MISSING)))
        self.population.feed(kind).append(event)


def _add_unknown(rng: random.Random, event: Event) -> None:
    """Add unknown fields, some with names of known fields."""
    event["novelty"] = {"id": 7, "timestamp": "never", "list": [{"id": None}, []], "text": rng.choice(TEXTS)}
    for box in (
        event.get("identity"),
        event["source"]["detail"]["activation"].get("stamp"),
        event["source"]["detail"],
    ):
        if isinstance(box, dict):
            box["set"] = rng.choice((3, None, "a", {"time": 1}, [1, 2], 1.5, True))
