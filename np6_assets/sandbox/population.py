"""The simulated account: who sends what to whom, and how they react. Numbers alone: no JSON, HTTP or clock.

Every fact about a send is a hash of `(seed, UTC day, notification, index of the send)`, in integer arithmetic
alone. So any day can be generated without the days before it, and the same seed gives the same events for
ever, whatever the processor and the version of numpy, which promises no such thing for its own distributions.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import IntEnum
from itertools import accumulate
from typing import Self

import numpy as np
import numpy.typing as npt

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EPOCH = date(1970, 1, 1)

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Events = npt.NDArray[np.void]
"""Events, one a row, of dtype `EVENT`."""

EVENT = np.dtype(
    [
        ("timestamp", np.int64),  # when the event was published, ms since epoch
        ("stamp_time", np.int64),  # when its send went out, ms since epoch
        ("key", np.uint64),  # identifies the send; everything else about it is a hash of this
        ("notification", np.uint8),  # index into Account.notifications
        ("kind", np.uint8),  # a Kind
        ("variant", np.uint8),  # hit: index of the link, DISMISSAL for none; bounce: a Verdict
        ("repeat", np.uint8),  # 0 for the first event of this kind of the send, 1 for the second, ...
    ]
)


class Kind(IntEnum):
    """The kinds of event that a send causes. The lower-case name is the `type` of the event in the API."""

    ACTIVATION = 0
    IMPRESSION = 1
    OPTOUT = 2
    BOUNCE = 3
    HIT = 4


class Verdict(IntEnum):
    """The `variant` of a bounce."""

    HARD = 0
    SOFT = 1


DISMISSAL = 255
"""The `variant` of a hit that is not a click-through."""


# --- The account ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """Where a hit leads to."""

    uri: str
    label: str | None = None


@dataclass(frozen=True)
class Notification:
    """One notification and how its receivers behave. Rates are 0 to 1."""

    id: int
    name: str
    sends: int  # of 1000 sends of the account, on an average day
    hits: tuple[float, ...]  # for each version, the share of impressions that get a hit; versions get equal sends
    hard: float  # share of sends that bounce hard
    soft: float  # share of sends that bounce soft
    hours: tuple[int, ...]  # weight of each hour of the UTC day
    weekdays: tuple[int, ...] = (104, 106, 105, 107, 110, 88, 80)  # per cent of an average day, Monday first
    links: tuple[Link, ...] = (Link("deeplink://product?id=594"),)
    channel: str = "marketing"
    urgent: bool = False


_AWAKE = (1, 1, 0, 0, 0, 1, 4, 9, 12, 12, 11, 11, 14, 13, 11, 10, 11, 13, 16, 18, 17, 12, 7, 3)
_SHOPPING = (6, 3, 1, 1, 1, 1, 2, 4, 6, 7, 8, 9, 11, 10, 9, 9, 10, 12, 14, 17, 21, 22, 17, 11)
_WAREHOUSE = (0, 0, 0, 0, 0, 2, 9, 14, 16, 15, 13, 9, 7, 12, 15, 16, 12, 6, 1, 0, 0, 0, 0, 0)

NOTIFICATIONS = (
    Notification(101, "Welcome", 90, hits=(0.085, 0.14), hard=0.004, soft=0.006, hours=_AWAKE),
    Notification(
        118,
        "Cart reminder",
        220,
        hits=(0.115,),
        hard=0.012,
        soft=0.008,
        hours=_SHOPPING,
        links=(Link("deeplink://cart", "Back to my cart"), Link("deeplink://product?id=594")),
    ),
    Notification(
        127,
        "Flash sale",
        330,
        hits=(0.028, 0.046),
        hard=0.021,
        soft=0.012,
        hours=(0,) * 10 + (60, 6) + (0,) * 6 + (40, 4) + (0,) * 4,
        weekdays=(80, 85, 90, 100, 135, 120, 90),
        links=(
            Link("https://shop.example.com/sale?from=push", "See the sale"),
            Link("deeplink://product?id=594"),
        ),
    ),
    Notification(
        133,
        "Order shipped",
        210,
        hits=(0.26,),
        hard=0.007,
        soft=0.015,
        hours=_WAREHOUSE,
        weekdays=(130, 120, 118, 118, 122, 70, 22),
        links=(Link("deeplink://order/track", "Track my order"),),
        channel="orders",
        urgent=True,
    ),
    Notification(
        142,
        "Weekly digest",
        50,
        hits=(0.052, 0.061),
        hard=0.018,
        soft=0.009,
        hours=(0,) * 7 + (5, 20, 4) + (0,) * 14,
        weekdays=(700, 0, 0, 0, 0, 0, 0),
        links=(Link("https://shop.example.com/digest"), Link("deeplink://product?id=594")),
    ),
    Notification(156, "Win-back", 100, hits=(0.012, 0.007), hard=0.094, soft=0.021, hours=_AWAKE),
)


@dataclass(frozen=True)
class Account:
    """A simulated account. Two equal accounts have the same events, for ever.

    `sends_per_day` is the average over a week; a day's number varies with the weekday and by up to a tenth.
    Nothing is sent before `first_day` (UTC).
    """

    seed: int = 6
    agency: str = "DEMO"
    customer: str = "028"
    sends_per_day: int = 6_000
    first_day: date = date(2026, 1, 1)
    notifications: tuple[Notification, ...] = NOTIFICATIONS
    applications: int = 2

    @classmethod
    def small(cls) -> Self:
        """About 50 sends a day: enough to see every asset, and quick in a test."""
        return cls(sends_per_day=50)

    @property
    def contacts(self) -> int:
        """How many contacts there are: each gets something every few days, until memory says stop."""
        return min(max(self.sends_per_day * 5, 200), 100_000)


# --- Hashes and distributions ---------------------------------------------------------------------

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def mix(values: U64) -> U64:
    """SplitMix64's finalizer: a bijection of the 64-bit numbers whose result looks random."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(_MULTIPLIERS[0])
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_MULTIPLIERS[1])
    mixed ^= mixed >> np.uint64(31)
    return mixed


def fold(*values: int) -> int:
    """One 64-bit hash of several numbers."""
    state = 0
    for value in values:
        state = (state + value + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MULTIPLIERS[0]) & _MASK
        state = ((state ^ (state >> 27)) * _MULTIPLIERS[1]) & _MASK
        state ^= state >> 31
    return state


def sequence(base: int, indices: U64) -> U64:
    """The hashes number `indices` of the sequence that `base` names."""
    return mix(np.uint64(base) + indices * np.uint64(_GOLDEN))


class Trait(IntEnum):
    """What is drawn for a send or for a contact, each independent of the others."""

    CONTACT = 1
    VERSION = 2
    TIME_OF_DAY = 3
    PUBLISHING = 4
    BOUNCE = 5
    BOUNCE_DELAY = 6
    RETRY = 7
    RETRY_DELAY = 8
    REACHED = 9
    REACHED_DELAY = 10
    HIT = 11
    HIT_DELAY = 12
    HIT_COUNT = 13
    MUTED = 14
    APPLICATION = 15
    SUBSCRIPTION = 16
    STAMP = 17
    THREAD = 18
    REPEAT_DELAY = 20  # + repeat
    LINK = 30  # + repeat
    EVENT = 40  # + 5 * repeat + kind


def salted(keys: U64, trait: int) -> U64:
    """A hash of each key for one trait."""
    return mix(keys ^ np.uint64(fold(trait)))


def draw(keys: U64, trait: int) -> I64:
    """A uniform whole number from 0 to 2**32 - 1 for each key."""
    return (salted(keys, trait) >> np.uint64(32)).astype(np.int64)


def share(part: float) -> int:
    """The number below which a `draw` falls with probability `part`."""
    return int(part * 2**32)


def choose(drawn: I64, count: int | I64) -> I64:
    """A number from 0 to count - 1 for each draw."""
    return (drawn * count) >> 32


class Spread:
    """A distribution given by points of its quantile function, linear between them.

    `points` are `(share, ms)`, both rising, from share 0 to share 1: `(0.5, 3000)`: half are below 3 s.
    """

    def __init__(self, *points: tuple[float, int]) -> None:
        self._edges = np.array([share(part) for part, _ in points], dtype=np.int64)
        self._values = np.array([value for _, value in points], dtype=np.int64)
        self.longest = int(self._values[-1])

    @classmethod
    def of_day(cls, hours: Sequence[int]) -> Self:
        """Times of the day, in ms after midnight, by the weights of its hours."""
        total = sum(hours)
        reached = [0, *accumulate(hours)]
        return cls(*((weight / total, hour * HOUR) for hour, weight in enumerate(reached)))

    def __call__(self, drawn: I64) -> I64:
        """The time, in ms, that each draw stands for."""
        after = np.searchsorted(self._edges, drawn, side="right")
        left, width = self._edges[after - 1], self._edges[after] - self._edges[after - 1]
        low, rise = self._values[after - 1], self._values[after] - self._values[after - 1]
        return np.asarray(low + (drawn - left) * rise // width, dtype=np.int64)


# From stamp.time to the activation event.
PUBLISHING = Spread((0, 200), (0.5, 1_200), (0.9, 9 * SECOND), (0.99, 90 * SECOND), (1, 5 * MINUTE))
# From the activation event to the device, some of which are switched off at the time.
REACHING = Spread((0, 300), (0.7, 3 * SECOND), (0.9, 4 * MINUTE), (0.97, 2 * HOUR), (1, 12 * HOUR))
BOUNCING = Spread((0, 150), (0.8, 2 * SECOND), (0.98, 5 * MINUTE), (1, HOUR))
RETRYING = Spread((0, 10 * MINUTE), (1, 6 * HOUR))
# From the display to the first hit: most within minutes, one in sixty after more than a week.
HITTING = Spread(
    (0, 2 * SECOND),
    (0.25, 40 * SECOND),
    (0.5, 6 * MINUTE),
    (0.75, 70 * MINUTE),
    (0.9, 9 * HOUR),
    (0.965, 2 * DAY),
    (0.983, 7 * DAY),
    (1, 9 * DAY),
)
REPEATING = Spread((0, SECOND), (0.6, 2 * MINUTE), (0.9, HOUR), (1, 4 * HOUR))

MUTED = share(0.03)  # of contacts
REACHED = share(0.94)  # of what did not bounce
RETRIED = share(0.1)  # of soft bounces: tried again, and bounced hard
DISMISSED = share(0.04)  # of hits
HIT_AGAIN = (share(0.16), share(0.05))  # of sends with a hit: at least two, at least three


def _days(*longest: int) -> int:
    """How many days after the send's day the last of the events can fall."""
    return -(-sum(longest) // DAY)


DAYS_AFTER = {
    Kind.ACTIVATION: _days(PUBLISHING.longest),
    Kind.IMPRESSION: _days(PUBLISHING.longest, REACHING.longest),
    Kind.OPTOUT: _days(PUBLISHING.longest, REACHING.longest),
    Kind.BOUNCE: _days(PUBLISHING.longest, BOUNCING.longest, RETRYING.longest),
    Kind.HIT: _days(PUBLISHING.longest, REACHING.longest, HITTING.longest, len(HIT_AGAIN) * REPEATING.longest),
}
"""For each kind, how many UTC days after the day of `stamp.time` its last event can fall."""


# --- The population -------------------------------------------------------------------------------

_CHUNK = 1 << 16  # sends generated at a time: what fits into a processor's cache


@dataclass(frozen=True)
class _Sends:
    """Some sends of one notification: their keys and times, and what became of them."""

    population: "Population"
    notification: int
    keys: U64
    day: int

    def only(self, mask: Mask) -> "_Sends":
        return _Sends(self.population, self.notification, self.keys[mask], self.day)

    def draw(self, trait: int) -> I64:
        return draw(self.keys, trait)

    def stamped(self) -> I64:
        return self.day * DAY + self.population.hours[self.notification](self.draw(Trait.TIME_OF_DAY))

    def published(self) -> I64:
        return self.stamped() + PUBLISHING(self.draw(Trait.PUBLISHING))

    def displayed(self) -> I64:
        return self.published() + REACHING(self.draw(Trait.REACHED_DELAY))

    def reached(self, *, muted: bool) -> "_Sends":
        """Those that got to a device, with its notifications switched off or on."""
        sent = self.population.account.notifications[self.notification]
        delivered = self.draw(Trait.BOUNCE) >= share(sent.hard + sent.soft)
        there = self.only(delivered & (self.draw(Trait.REACHED) < REACHED))
        return there.only(self.population.muted(self.population.contact(there.keys)) == muted)

    def events(self, kind: Kind, at: I64, variant: I64 | int = 0, repeat: int = 0) -> Events:
        rows = np.empty(len(self.keys), dtype=EVENT)
        rows["timestamp"], rows["stamp_time"], rows["key"] = at, self.stamped(), self.keys
        rows["notification"], rows["kind"], rows["variant"], rows["repeat"] = (
            self.notification,
            kind,
            variant,
            repeat,
        )
        return rows


def _activations(sends: _Sends) -> list[Events]:
    return [sends.events(Kind.ACTIVATION, sends.published())]


def _impressions(sends: _Sends) -> list[Events]:
    shown = sends.reached(muted=False)
    return [shown.events(Kind.IMPRESSION, shown.displayed())]


def _optouts(sends: _Sends) -> list[Events]:
    unseen = sends.reached(muted=True)
    return [unseen.events(Kind.OPTOUT, unseen.displayed())]


def _bounces(sends: _Sends) -> list[Events]:
    sent = sends.population.account.notifications[sends.notification]
    bounced = sends.only(sends.draw(Trait.BOUNCE) < share(sent.hard + sent.soft))
    verdict = np.where(bounced.draw(Trait.BOUNCE) < share(sent.hard), Verdict.HARD, Verdict.SOFT)
    at = bounced.published() + BOUNCING(bounced.draw(Trait.BOUNCE_DELAY))
    retried = (verdict == Verdict.SOFT) & (bounced.draw(Trait.RETRY) < RETRIED)
    again = bounced.only(retried)
    at_again = at[retried] + RETRYING(again.draw(Trait.RETRY_DELAY))
    return [
        bounced.events(Kind.BOUNCE, at, verdict),
        again.events(Kind.BOUNCE, at_again, Verdict.HARD, repeat=1),
    ]


def _hits(sends: _Sends) -> list[Events]:
    sent = sends.population.account.notifications[sends.notification]
    rates = np.array([share(rate) for rate in sent.hits], dtype=np.int64)
    # The rarest condition first: a day's hits cost little more than two draws a send.
    likely = sends.only(sends.draw(Trait.HIT) < rates.max())
    willing = likely.draw(Trait.HIT) < rates[choose(likely.draw(Trait.VERSION), len(rates))]
    hitting = likely.only(willing).reached(muted=False)
    at = hitting.displayed() + HITTING(hitting.draw(Trait.HIT_DELAY))
    found = [hitting.events(Kind.HIT, at, _links(hitting, 0))]
    for repeat, part in enumerate(HIT_AGAIN, start=1):
        again = hitting.draw(Trait.HIT_COUNT) < part
        hitting = hitting.only(again)
        at = at[again] + REPEATING(hitting.draw(Trait.REPEAT_DELAY + repeat))
        found.append(hitting.events(Kind.HIT, at, _links(hitting, repeat), repeat))
    return found


def _links(hitting: _Sends, repeat: int) -> I64:
    """The link of each hit: its index, or `DISMISSAL`."""
    drawn = hitting.draw(Trait.LINK + repeat)
    links = len(hitting.population.account.notifications[hitting.notification].links)
    return np.where(drawn < DISMISSED, DISMISSAL, choose(drawn, links))


_CAUSED: dict[Kind, Callable[[_Sends], list[Events]]] = {
    Kind.ACTIVATION: _activations,
    Kind.IMPRESSION: _impressions,
    Kind.OPTOUT: _optouts,
    Kind.BOUNCE: _bounces,
    Kind.HIT: _hits,
}


def in_order(events: Events) -> Events:
    """The events by `timestamp`; those of one millisecond stay in the order in which they came."""
    return np.take(events, np.argsort(events["timestamp"], kind="stable"))


@dataclass(frozen=True)
class Window:
    """A half-open time window: `start <= t < end`, ms since epoch."""

    start: int
    end: int

    def within(self, other: "Window") -> "Window":
        """The part of the window that is in the other too."""
        return Window(max(self.start, other.start), min(self.end, other.end))

    def days(self) -> range:
        """The UTC days, counted from 1970-01-01, that have an instant in the window."""
        return range(self.start // DAY, -(-self.end // DAY)) if self.start < self.end else range(0)


@dataclass
class Population:
    """All events of an account. Safe to use from several threads.

    Days are counted from 1970-01-01, in UTC. The events used last are kept, within `cache_bytes`.
    """

    account: Account
    cache_bytes: int = 96 * 2**20
    hours: list[Spread] = field(init=False)
    _cache: OrderedDict[tuple[Kind, int, int], Events] = field(init=False, default_factory=OrderedDict)
    _cached_bytes: int = field(init=False, default=0)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.hours = [Spread.of_day(notification.hours) for notification in self.account.notifications]
        self.first_day = (self.account.first_day - EPOCH).days

    def contact(self, keys: U64) -> I64:
        """The contact that each send went to: 0 to `account.contacts` - 1."""
        return choose(draw(keys, Trait.CONTACT), self.account.contacts)

    def contact_keys(self, contacts: I64) -> U64:
        """The hash from which everything about a contact follows."""
        return sequence(fold(self.account.seed, Trait.CONTACT), contacts.astype(np.uint64))

    def muted(self, contacts: I64) -> Mask:
        """Whether the contact's device has notifications switched off: once muted, always muted."""
        return np.asarray(draw(self.contact_keys(contacts), Trait.MUTED) < MUTED)

    def sends(self, day: int, notification: int) -> int:
        """How many sends of a notification (by index) have their `stamp.time` on a day."""
        if day < self.first_day:
            return 0
        sent = self.account.notifications[notification]
        luck = 900 + fold(self.account.seed, day, sent.id, Trait.TIME_OF_DAY) % 201
        average = self.account.sends_per_day * sent.sends * sent.weekdays[(day + 3) % 7]
        return (average * luck + 50_000_000) // 100_000_000

    def caused(self, kind: Kind, day: int, notification: int) -> Events:
        """The events of one kind that one day's sends of one notification (by index) cause, by `timestamp`.

        They fall on that day and on up to `DAYS_AFTER[kind]` days after it.
        """
        wanted = (kind, day, notification)
        with self._lock:
            if wanted in self._cache:
                self._cache.move_to_end(wanted)
                return self._cache[wanted]
            events = self._generate(kind, day, notification)
            self._cache[wanted] = events
            self._cached_bytes += events.nbytes
            while self._cached_bytes > self.cache_bytes:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
            return events

    def _generate(self, kind: Kind, day: int, notification: int) -> Events:
        sends = self.sends(day, notification)
        base = fold(self.account.seed, day, self.account.notifications[notification].id)
        found = [np.empty(0, dtype=EVENT)]
        for first in range(0, sends, _CHUNK):
            keys = sequence(base, np.arange(first, min(first + _CHUNK, sends), dtype=np.uint64))
            found += _CAUSED[kind](_Sends(self, notification, keys, day))
        events = in_order(np.concatenate(found))
        events.flags.writeable = False
        return events

    def published(
        self,
        kinds: Iterable[Kind],
        notifications: Sequence[int],
        published: Window,
        sent: Window | None = None,
    ) -> Events:
        """The events published in one window, by `timestamp`; with `sent`, of the sends of that window alone.

        All of them are in memory at once: ask for a day at a time.
        """
        found = [np.empty(0, dtype=EVENT)]
        for kind in kinds:
            for day in self._send_days(kind, published, sent):
                for notification in notifications:
                    events = self.caused(kind, day, notification)
                    low, high = np.searchsorted(events["timestamp"], (published.start, published.end))
                    found.append(events[low:high])
        events = np.concatenate(found)
        if sent is not None:
            stamps = events["stamp_time"]
            events = events[(sent.start <= stamps) & (stamps < sent.end)]
        return in_order(events)

    def _send_days(self, kind: Kind, published: Window, sent: Window | None) -> range:
        """The days whose sends can cause such events in the window."""
        earliest = max(published.start - DAYS_AFTER[kind] * DAY, self.first_day * DAY) // DAY * DAY
        possible = Window(earliest, published.end)
        return (possible if sent is None else possible.within(sent)).days()
