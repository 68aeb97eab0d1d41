"""Invented NP6 events: builders in the exact shape of the API, seeded populations of them, and misfits.

Everything is made up and on example.com. What is random comes from a seed alone, so a failure repeats.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Event = dict[str, Any]

KINDS = {
    "hits": "hit",
    "optouts": "optout",
    "bounces": "bounce",
    "impressions": "impression",
    "activations": "activation",
}
REACTIVITIES = ("hits", "optouts", "bounces", "impressions")

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING", "__deepcopy__": lambda self, _: self})()
NO_EXPIRATION = "0001-01-01T00:00:00Z"

_DETAIL = ("source", "detail")
_ACTIVATION = (*_DETAIL, "activation")
_RECEIVER = (*_ACTIVATION, "receiver")
_STAMP = (*_ACTIVATION, "stamp")

# The short name of every field of an event, and where it is.
PATHS: dict[str, tuple[str, ...]] = {
    "type": ("type",),
    "id": ("id",),
    "timestamp": ("timestamp",),
    "identity": ("identity",),
    "agency": ("identity", "agency"),
    "customer": ("identity", "customer"),
    "source": ("source",),
    "detail": _DETAIL,
    "activation": _ACTIVATION,
    "activation_id": (*_ACTIVATION, "id"),
    "version": (*_ACTIVATION, "version"),
    "kind": (*_ACTIVATION, "kind"),
    "application": (*_ACTIVATION, "application"),
    "subscription": (*_ACTIVATION, "subscription"),
    "channel": (*_ACTIVATION, "channel"),
    "urgent": (*_ACTIVATION, "urgent"),
    "expiration": (*_ACTIVATION, "expiration"),
    "receiver": _RECEIVER,
    "receiver_type": (*_RECEIVER, "type"),
    "receiver_value": (*_RECEIVER, "value"),
    "receiver_id": (*_RECEIVER, "value", "id"),
    "unicity": (*_RECEIVER, "value", "unicity"),
    "hash": (*_RECEIVER, "value", "hash"),
    "stamp": _STAMP,
    "stamp_id": (*_STAMP, "id"),
    "stamp_time": (*_STAMP, "time"),
    "thread": (*_STAMP, "thread"),
    "link": (*_DETAIL, "link"),
    "link_type": (*_DETAIL, "link", "type"),
    "link_label": (*_DETAIL, "link", "label"),
    "link_uri": (*_DETAIL, "link", "uri"),
    "optout": (*_DETAIL, "optout"),
    "optout_type": (*_DETAIL, "optout", "type"),
    "optout_channel": (*_DETAIL, "optout", "channel"),
    "bounce": (*_DETAIL, "bounce"),
    "status": (*_DETAIL, "bounce", "status"),
    "analysis": (*_DETAIL, "bounce", "analysis"),
    "verdict": (*_DETAIL, "bounce", "analysis", "verdict"),
    "subject": (*_DETAIL, "bounce", "analysis", "subject"),
    "subject_type": (*_DETAIL, "bounce", "analysis", "subject", "type"),
    "subject_detail": (*_DETAIL, "bounce", "analysis", "subject", "detail"),
    "reason": (*_DETAIL, "bounce", "analysis", "subject", "detail", "type"),
}

# What stands beside the activation in an event of each kind.
_BESIDE: dict[str, dict[str, Any]] = {
    "hits": {"link": {"type": "redirection", "label": None, "uri": "deeplink://product?id=594"}},
    "optouts": {"optout": {"type": "channel", "channel": "channel"}},
    "bounces": {
        "bounce": {
            "status": None,
            "analysis": {
                "verdict": "hard",
                "subject": {"type": "token", "detail": {"type": "unregistered"}},
            },
        }
    },
    "impressions": {},
    "activations": {},
}


def put(event: Event, name: str, value: Any) -> None:
    """Set the field called `name` (see PATHS), or take it away when the value is MISSING."""
    *parents, last = PATHS[name]
    box: Any = event
    for parent in parents:
        box = box.setdefault(parent, {})
        if not isinstance(box, dict):
            return  # a container that was made something else on purpose stays so
    if value is MISSING:
        box.pop(last, None)
    else:
        box[last] = value


def event(kind: str, /, *, id: str, timestamp: int, **fields: Any) -> Event:
    """An event of the kind ("hits", ...), as the API's reference shows it, with some fields set otherwise.

    Args:
        kind: one of KINDS.
        id: uuid of the event.
        timestamp: when it was published, ms since epoch; its stamp is a second earlier unless given.
        fields: other values by their names in PATHS; MISSING takes a field away.
    """
    activation = {
        "id": 156,
        "version": "ecce4585-1627-4495-90fc-7bbc27d2ae26",
        "kind": "application",
        "receiver": {
            "type": "contact",
            "value": {
                "type": "footprint",
                "id": "000R4M0T",
                "unicity": "someone@example.com",
                "hash": "16d113840f999444259f73bac9ab8b10",
            },
        },
        "application": "076db4f8-4304-4b8e-b232-4820f2639a8a",
        "subscription": "65b51edb-0cc2-4fed-a6d0-2aa5a722d39a",
        "stamp": {
            "time": timestamp - 1000,
            "id": "d52055cd-e854-4177-8ef5-b10fd8d568a7",
            "thread": "a3078b19-b379-4bc2-b29a-e8229a9c9332",
        },
        "channel": "notification_channel",
        "urgent": True,
        "expiration": NO_EXPIRATION,
    }
    detail = {"activation": activation, **copy.deepcopy(_BESIDE[kind])}
    made = {
        "type": KINDS[kind],
        "id": id,
        "timestamp": timestamp,
        "identity": {"type": "customer", "agency": "DEMO", "customer": "028"},
        "source": {"type": "notification", "detail": detail},
    }
    # Containers before what is in them, what is taken away last.
    for name in sorted(fields, key=lambda name: (fields[name] is MISSING, len(PATHS[name]))):
        put(made, name, fields[name])
    return made


# --- populations -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Misfit:
    """An event that cannot be given the contract's shape, and where the server keeps it.

    `placed_ms` is the server's own idea of when it was published (the event may not say, or not rightly).
    """

    name: str
    kind: str
    placed_ms: int
    notification_id: int
    event: Any


@dataclass
class Population:
    """Everything an account knows: what it has sent, what came back, and what fits nowhere."""

    notifications: list[Event] = field(default_factory=list)
    activations: list[Event] = field(default_factory=list)
    hits: list[Event] = field(default_factory=list)
    optouts: list[Event] = field(default_factory=list)
    bounces: list[Event] = field(default_factory=list)
    impressions: list[Event] = field(default_factory=list)
    misfits: list[Misfit] = field(default_factory=list)

    def feed(self, kind: str) -> list[Event]:
        """The events of one kind, misfits not among them."""
        events: list[Event] = getattr(self, kind)
        return events

    def merged(self, other: Population) -> Population:
        """This population and another one of the same notifications."""
        return Population(
            notifications=self.notifications,
            activations=self.activations + other.activations,
            hits=self.hits + other.hits,
            optouts=self.optouts + other.optouts,
            bounces=self.bounces + other.bounces,
            impressions=self.impressions + other.impressions,
            misfits=self.misfits + other.misfits,
        )


TEXTS = (
    "plain",
    'with "quotes" inside',
    "back\\slash and trailing one \\",
    "}{][ braces",
    '"},{"id":"not an event"}],[',
    "line\nbreak, tab\t, return\r",
    "control \u0001 and \u007f",
    "éàü ß ŵ",
    "日本語の題",
    "emoji 🎉👩‍👩‍👧",
    "\u2028 separators \u2029",
    "it's, comma, % {0} $1",
    "\\u0041 literally",
    "null",
    "</script><!--",
    " ",
    "",
    "long " * 300,
)
EXPIRATIONS = (
    *[NO_EXPIRATION] * 6,
    "2026-04-30T12:00:00Z",
    "2026-05-01T00:00:00+02:00",
    "2026-05-01T00:00:00-05:30",
    "2026-04-30T12:00:00.250Z",
    "2026-04-30T12:00:00.5000000Z",
    None,
    MISSING,
)
LINK_TYPES = (*["redirection"] * 8, "dismissal", "dismissal", "", "Redirection", None, MISSING)
VERDICTS = ("hard", "hard", "hard", "soft", "soft", "soft", "blocked", "", None, MISSING)
STATUSES: tuple[Any, ...] = (
    *[None] * 5,
    MISSING,
    "5.1.1 user unknown",
    'quoted "550"',
    {},
    {"code": 550, "text": 'no such "user" é 🎉', "more": [1, None, True]},
    [550, "5.1.1"],
    550,
    True,
)
SUBJECTS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"reason": "quota"},
    {"subject": "mailbox é"},
    {"subject": None},
    {"subject": MISSING},
    {"subject_detail": None},
    {"subject_detail": MISSING},
    {"subject_type": None, "reason": MISSING},
)
# What may be null or missing without an event being any less of one.
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

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def _day_start_ms(day: date, timezone: str) -> int:
    """The first instant of a calendar day, ms since epoch (both sides in UTC before they are subtracted)."""
    start = datetime.combine(day, time(), ZoneInfo(timezone)).astimezone(UTC)
    return (start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


@dataclass(frozen=True)
class _Sender:
    """One notification and how it behaves."""

    id: int
    accounts: tuple[tuple[str, str], ...]
    versions: tuple[str, ...]
    applications: tuple[str, ...]
    hit: float
    bounce: float
    optout: float


def _senders(count: int) -> list[_Sender]:
    """The notifications of every population alike, whatever its seed, so that populations can be merged."""
    rng = random.Random("senders")
    accounts = (("DEMO", "028"), ("DEMO", "029"), ('AGENCE "É"', "A\\B"), ("DEMO", ""))
    return [
        _Sender(
            # One id that a double cannot hold.
            id=2**53 + 1 if number == 1 else 100 + 7 * number,
            accounts=(accounts[number % 4], *rng.sample(accounts, number % 2)),
            versions=tuple(_uuid(rng) for _ in range(1 + number % 3)),
            applications=tuple(_uuid(rng) for _ in range(1 + (number + 1) % 2)),
            hit=rng.uniform(0.1, 0.7),
            bounce=rng.uniform(0.02, 0.3),
            optout=rng.uniform(0.02, 0.2),
        )
        for number in range(count)
    ]


def _listing(senders: Sequence[_Sender]) -> list[Event]:
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


def population(
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
    misfit_days: Iterable[date] = (),
) -> Population:
    """A seeded account whose sends go out on `lead_days` before `first_day` and on `days` days from it on.

    Reactions follow within minutes or weeks, some on the last and the first millisecond that matters to a
    window of `window_days`. Events of the days before and after are among them.

    Args:
        seed: the same seed, the same population.
        first_day: first day of interest.
        days: days of sends from `first_day` on.
        timezone: IANA name, for where days begin (edges of days are populated on purpose).
        notifications: how many are listed; one more is not listed any more and has reactions alone.
        sends_per_day: about how many.
        lead_days: days of sends before `first_day`.
        window_days: the reaction window whose edges get reactions.
        holes: share of events in which an optional field is null or missing.
        repeats: share of events that are there twice.
        misfit_days: days on which every misfit of every kind is placed.
    """
    maker = _Maker(seed, timezone, notifications, window_days, holes)
    for number in range(-lead_days, days):
        maker.day(first_day + timedelta(days=number), sends_per_day)
    made = maker.made
    for kind in KINDS:
        feed = made.feed(kind)
        feed.extend(copy.deepcopy(one) for one in maker.rng.sample(feed, int(len(feed) * repeats)))
        maker.rng.shuffle(feed)
    for day in misfit_days:
        noon = _day_start_ms(day, timezone) + 12 * HOUR_MS
        for kind in KINDS:
            made.misfits.extend(misfits(kind, f"{seed} {day}", noon, maker.senders[0].id))
    return made


class _Maker:
    """Makes one population, a day of sends at a time."""

    def __init__(self, seed: int, timezone: str, notifications: int, window_days: int, holes: float) -> None:
        self.rng = random.Random(seed)
        self.timezone = timezone
        self.window_days = window_days
        self.holes = holes
        everyone = _senders(notifications + 1)
        self.senders, self.deleted = everyone[:-1], everyone[-1]
        self.made = Population(notifications=_listing(self.senders))

    def day(self, day: date, sends: int) -> None:
        start, end = _day_start_ms(day, self.timezone), _day_start_ms(day + timedelta(days=1), self.timezone)
        rng = self.rng
        moments = [start, end - 1, end - 300]
        moments += [rng.randrange(start, end) // 1000 * 1000 for _ in range(sends // 3)]
        left = sends
        while left > 0:
            left -= self.stamp(day, rng.choice(moments) if rng.random() < 0.3 else rng.randrange(start, end))
        for kind in KINDS:
            # Ties on the first, the last and some other millisecond of the day.
            for edge in (start, end - 1, rng.randrange(start, end)):
                for _ in range(rng.choice((2, 2, 3))):
                    send = self.send(rng.choice(self.senders), _uuid(rng), edge - rng.randrange(5000))
                    self.add(kind, edge, send)

    def stamp(self, day: date, moment: int) -> int:
        """One stamp, that is one to four sends; returns how many."""
        rng = self.rng
        sender = self.deleted if rng.random() < 0.04 else rng.choice(self.senders)
        stamp_id = _uuid(rng)
        shared = rng.choice((1, 1, 1, 2, 4))
        for _ in range(shared):
            send = self.send(sender, stamp_id, moment)
            orphan = rng.random() < 0.04 or sender is self.deleted
            if not orphan:
                self.add("activations", moment + self.publication_delay(moment), send)
            self.react(sender, send, day, moment)
        return shared

    def send(self, sender: _Sender, stamp_id: str, moment: int) -> dict[str, Any]:
        """What all events of one send have in common."""
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
            "subscription": None if rng.random() < 0.02 else _uuid(rng),
            "stamp_id": stamp_id,
            "stamp_time": moment,
            "thread": rng.choice(TEXTS) if rng.random() < 0.2 else _uuid(rng),
            "channel": rng.choice(TEXTS) if rng.random() < 0.2 else "notification_channel",
            "urgent": rng.choice((True, False, False, None, MISSING)),
            "expiration": rng.choice(EXPIRATIONS),
            "receiver_id": f"000R{contact:05X}",
            "unicity": unicity,
            "hash": hashlib.md5(unicity.encode(), usedforsecurity=False).hexdigest(),
        }

    def publication_delay(self, moment: int) -> int:
        """How long after its stamp an activation event is published, in ms."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.86:
            return rng.randrange(5000)
        if chance < 0.95:
            return rng.randrange(20 * HOUR_MS)
        if chance < 0.98:
            return rng.randrange(26 * HOUR_MS, 60 * HOUR_MS)  # too late for its cohort
        return -rng.randrange(2000)  # a clock that is slow

    def reaction_delay(self, day: date, moment: int) -> int:
        rng = self.rng
        chance = rng.random()
        if chance < 0.8:
            delay = int(rng.expovariate(1 / (5 * HOUR_MS)))
            # Whole seconds now and then: events tie on the same millisecond.
            return delay // 1000 * 1000 if rng.random() < 0.3 else delay
        if chance < 0.9:
            return rng.randrange((self.window_days + 4) * DAY_MS)
        if chance < 0.98:
            after = _day_start_ms(day + timedelta(days=self.window_days + 1), self.timezone)
            return after + rng.choice((-1, 0, -1, 0, 1, -1000)) - moment
        return -rng.randrange(3000)

    def react(self, sender: _Sender, send: dict[str, Any], day: date, moment: int) -> None:
        rng = self.rng

        def at() -> int:
            return moment + self.reaction_delay(day, moment)

        if rng.random() < sender.bounce:
            for _ in range(rng.choice((1, 1, 2, 3))):
                fields = {
                    "verdict": rng.choice(VERDICTS),
                    "status": rng.choice(STATUSES),
                    **rng.choice(SUBJECTS),
                }
                self.add("bounces", at(), {**send, **fields})
            if rng.random() < 0.8:
                return
        if rng.random() < sender.optout:
            for _ in range(rng.choice((1, 1, 2))):
                self.add("optouts", at(), {**send, "optout_type": rng.choice(("channel", "application", None))})
        elif rng.random() < 0.8:
            self.add("impressions", at(), send)
        if rng.random() < sender.hit:
            for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
                fields = {"link_type": rng.choice(LINK_TYPES), "link_label": rng.choice((None, *TEXTS))}
                self.add("hits", at(), {**send, **fields})

    def add(self, kind: str, timestamp: int, fields: dict[str, Any]) -> None:
        """Publish one event, with a hole or something unknown in it now and then."""
        rng = self.rng
        made = event(kind, id=_uuid(rng), timestamp=timestamp, **fields)
        if rng.random() < self.holes:
            hole = rng.choice((*OPTIONAL, *_OPTIONAL_OF_KIND[kind]))
            put(made, hole, rng.choice((None, MISSING)))
        if rng.random() < 0.1:
            _add_unknown(rng, made)
        if rng.random() < 0.02:
            put(made, "type", rng.choice(("sneeze", "reply", None, MISSING)))
        self.made.feed(kind).append(made)


def _add_unknown(rng: random.Random, made: Event) -> None:
    """Fields that nobody has announced, some named like ones that mean something elsewhere."""
    made["novelty"] = {"id": 7, "timestamp": "never", "list": [{"id": None}, []], "text": rng.choice(TEXTS)}
    for box in (
        made.get("identity"),
        made["source"]["detail"]["activation"].get("stamp"),
        made["source"]["detail"],
    ):
        if isinstance(box, dict):
            box["set"] = rng.choice((3, None, "a", {"time": 1}, [1, 2], 1.5, True))


# --- misfits -----------------------------------------------------------------------------------------------


def _set(name: str, value: Any) -> Callable[[Event], Any]:
    def change(made: Event) -> Any:
        put(made, name, value)
        return made

    return change


def _from_timestamp(make: Callable[[int], Any]) -> Callable[[Event], Any]:
    def change(made: Event) -> Any:
        made["timestamp"] = make(made["timestamp"])
        return made

    return change


def _whole(value: Any) -> Callable[[Event], Any]:
    return lambda made: copy.deepcopy(value)


_MISFITS: dict[str, Callable[[Event], Any]] = {
    "no id": _set("id", MISSING),
    "null id": _set("id", None),
    "numeric id": _set("id", 12345),
    "no timestamp": _set("timestamp", MISSING),
    "null timestamp": _set("timestamp", None),
    "string timestamp": _from_timestamp(str),
    "ISO timestamp": _set("timestamp", "2026-03-20T12:00:00Z"),
    "fractional timestamp": _from_timestamp(lambda timestamp: timestamp + 0.5),
    "boolean timestamp": _set("timestamp", True),
    "no activation.id": _set("activation_id", MISSING),
    "null activation.id": _set("activation_id", None),
    "string activation.id": _set("activation_id", "156"),
    "fractional activation.id": _set("activation_id", 156.5),
    "activation.id beyond int64": _set("activation_id", 2**63),
    "no activation": _set("activation", MISSING),
    "null source": _set("source", None),
    "string source": _set("source", "notification"),
    "list activation": _set("activation", [{"id": 156}]),
    "numeric detail": _set("detail", 7),
    "string identity": _set("identity", "DEMO"),
    "list identity": _set("identity", ["DEMO", "028"]),
    "numeric agency": _set("agency", 28),
    "boolean version": _set("version", True),
    "object application": _set("application", {"id": "x"}),
    "list subscription": _set("subscription", ["x"]),
    "numeric channel": _set("channel", 1.5),
    "string urgent": _set("urgent", "true"),
    "numeric urgent": _set("urgent", 1),
    "bad expiration": _set("expiration", "tomorrow"),
    "impossible expiration": _set("expiration", "2026-02-30T00:00:00Z"),
    "numeric expiration": _set("expiration", 1774000000000),
    "numeric receiver": _set("receiver", 5),
    "list receiver.value": _set("receiver_value", [1]),
    "numeric receiver.value.id": _set("receiver_id", 5),
    "numeric unicity": _set("unicity", 5),
    "string stamp": _set("stamp", "stamp"),
    "list stamp": _set("stamp", []),
    "numeric stamp.id": _set("stamp_id", 9),
    "string stamp.time": _set("stamp_time", "1774000000000"),
    "fractional stamp.time": _set("stamp_time", 1774000000000.25),
    "element null": _whole(None),
    "element number": _whole(42),
    "element string": _whole('a text with "quotes", ],[ and {braces'),
    "element list": _whole([{"id": "x"}]),
    "element boolean": _whole(False),
    "element empty": _whole({}),
}
_MISFITS_OF_KIND: dict[str, dict[str, Callable[[Event], Any]]] = {
    "hits": {
        "string link": _set("link", "https://example.com/"),
        "list link": _set("link", []),
        "numeric link.type": _set("link_type", 3),
        "object link.label": _set("link_label", {"fr": "x"}),
    },
    "optouts": {"numeric optout": _set("optout", 1), "list optout.channel": _set("optout_channel", ["a"])},
    "bounces": {
        "list bounce": _set("bounce", [1]),
        "string analysis": _set("analysis", "hard"),
        "numeric verdict": _set("verdict", 5),
        "numeric subject": _set("subject", 5),
        "list subject": _set("subject", ["token"]),
        "string subject.detail": _set("subject_detail", "unregistered"),
        "numeric subject.type": _set("subject_type", 1),
    },
    "impressions": {},
    "activations": {},
}


def misfits(kind: str, seed: object, at_ms: int, notification_id: int, names: Iterable[str] = ()) -> list[Misfit]:
    """Events of the kind that do not fit, one for each way not to (or each of `names`), from `at_ms` on."""
    rng = random.Random(f"{seed} {kind}")
    changes = {**_MISFITS, **_MISFITS_OF_KIND[kind]}
    wanted = list(names) or list(changes)
    made = []
    for number, name in enumerate(wanted):
        placed = at_ms + 1000 * number
        fitting = event(kind, id=_uuid(rng), timestamp=placed, activation_id=notification_id, stamp_id=_uuid(rng))
        made.append(Misfit(name, kind, placed, notification_id, changes[name](fitting)))
    return made


# --- JSON text ---------------------------------------------------------------------------------------------


def render(value: Any, rng: random.Random | None = None) -> str:
    """The value as JSON text; with `rng`, spaced, ordered and escaped in one of the many ways JSON allows."""
    if rng is None:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    style = rng.randrange(5)
    if style == 0:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if style == 1:
        return json.dumps(value)
    if style == 2:
        return json.dumps(value, ensure_ascii=False, indent=1)
    if style == 3:
        return json.dumps(_reordered(value, rng), separators=(",", ":"))
    return _escaped(value, rng)


def _reordered(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: _reordered(value[key], rng) for key in rng.sample(list(value), len(value))}
    if isinstance(value, list):
        return [_reordered(one, rng) for one in value]
    return value


def _escaped(value: Any, rng: random.Random) -> str:
    """JSON text in which any character of a text value may be written as its escape."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}: {_escaped(one, rng)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_escaped(one, rng) for one in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(_escape(char) if rng.random() < 0.1 else _plain(char) for char in value) + '"'
    return json.dumps(value)


def _escape(char: str) -> str:
    if char == "/":
        return "\\/"
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _plain(char: str) -> str:
    return json.dumps(char, ensure_ascii=False)[1:-1]
