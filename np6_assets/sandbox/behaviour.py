"""Simulate the account's sends: they bounce, are displayed and hit, at once or days later.

Each day of each notification has its own random numbers, so any day can be generated without the days before. All come
from `random.Random.random`, which Python promises not to change for the same seed.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import TypeVar

from .population import Account, SimulatedNotification

T = TypeVar("T")
Draw = Callable[[], float]
"""Returns another random number at each call, from 0 to less than 1."""
Event = tuple[int, int, int, str]
"""An event: time in ms, number of its send, repeat (0, 1, ...) of its type, and the JSON beside the activation."""

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def _build_delays(*points: tuple[float, int]) -> Sequence[int]:
    """Build a thousand equally likely delays in ms, linear between points. `(0.5, 1_200)`: half are below 1.2 s."""
    shares = [number / 1000 for number in range(1000)]
    return [
        shortest + int((share - low) / (high - low) * (longest - shortest))
        for (low, shortest), (high, longest) in pairwise(points)
        for share in shares
        if low <= share < high
    ]


_TO_ACTIVATION = _build_delays((0, 200), (0.5, 1_200), (0.9, 9 * SECOND), (0.99, 90 * SECOND), (1, 5 * MINUTE))
_TO_IMPRESSION = _build_delays((0, 300), (0.7, 3 * SECOND), (0.9, 4 * MINUTE), (0.97, 2 * HOUR), (1, 12 * HOUR))
_TO_BOUNCE = _build_delays((0, 150), (0.8, 2 * SECOND), (0.98, 5 * MINUTE), (1, HOUR))
_TO_NEXT_BOUNCE = _build_delays((0, 10 * MINUTE), (1, 6 * HOUR))
_TO_HIT = _build_delays(
    *((0, 2 * SECOND), (0.25, 40 * SECOND), (0.5, 6 * MINUTE), (0.75, 70 * MINUTE)),
    *((0.9, 9 * HOUR), (0.965, 2 * DAY), (0.983, 7 * DAY), (1, 8 * DAY)),
)
_TO_NEXT_HIT = _build_delays((0, SECOND), (0.6, 2 * MINUTE), (0.9, HOUR), (1, 4 * HOUR))

DAYS_AFTER = {"activation": 1, "impression": 1, "optout": 1, "bounce": 1, "hit": 9}
"""How many days after its send's day an event of each type can be, by the longest delays."""

_DELIVERED = 0.94  # of sends that do not bounce
_BOUNCED_AGAIN = 0.1  # of soft bounces
_HIT_AGAIN = (0.16, 0.3)  # of those with one hit, and of those with two
_DISMISSED = 0.04  # of hits
_MUTED = 33  # of so many contacts, one has notifications switched off


@dataclass(frozen=True)
class Sends:
    """The sends of a notification on a UTC day. A list has one value for each send, by number."""

    notification: SimulatedNotification
    id: str  # what the ids of the sends and of their events begin with
    times: Sequence[int]  # ms since epoch
    versions: Sequence[int]
    contacts: Sequence[int]
    events: Mapping[str, Sequence[Event]]  # by type


@lru_cache(maxsize=256)  # 200 kB each by default
def simulate(account: Account, notification: SimulatedNotification, day: int) -> Sends:
    """Simulate the sends of a notification on a UTC day, counted from 1970-01-01, and all their events."""
    draw = Random(f"{account.seed} {day} {notification.id}").random
    average = account.sends_per_day * notification.sends / 1000 * notification.days[(day + 3) % 7] / 100
    numbers = range(round(average * (0.9 + 0.2 * draw())))
    hours = [hour for hour, weight in enumerate(notification.hours) for _ in range(weight)]
    times = [day * DAY + int((_pick(hours, draw()) + draw()) * HOUR) for _ in numbers]
    versions = [int(draw() * len(notification.hits)) for _ in numbers]
    contacts = [int(draw() * account.contacts) for _ in numbers]

    hard, soft = notification.bounces
    events: dict[str, list[Event]] = {type: [] for type in DAYS_AFTER}
    optout = _build_detail("optout", {"type": "channel", "channel": notification.channel})
    for number in numbers:
        at = times[number] + _pick(_TO_ACTIVATION, draw())
        events["activation"].append((at, number, 0, ""))
        luck = draw()
        if luck < hard + soft:
            events["bounce"] += _simulate_bounces(number, at, luck < hard, draw)
        elif draw() < _DELIVERED:
            at += _pick(_TO_IMPRESSION, draw())
            if contacts[number] % _MUTED == 0:
                events["optout"].append((at, number, 0, optout))
            else:
                events["impression"].append((at, number, 0, ""))
                events["hit"] += _simulate_hits(number, at, notification, notification.hits[versions[number]], draw)
    id = f"{account.seed:08x}-{day:04x}-4{notification.id:03x}"
    return Sends(notification, id, times, versions, contacts, events)


def _simulate_bounces(number: int, at: int, is_hard: bool, draw: Draw) -> Iterator[Event]:
    at += _pick(_TO_BOUNCE, draw())
    yield at, number, 0, _HARD if is_hard else _SOFT
    if not is_hard and draw() < _BOUNCED_AGAIN:
        yield at + _pick(_TO_NEXT_BOUNCE, draw()), number, 1, _HARD


def _simulate_hits(
    number: int, at: int, notification: SimulatedNotification, rate: float, draw: Draw
) -> Iterator[Event]:
    for repeat, chance in enumerate((rate, *_HIT_AGAIN)):
        if draw() >= chance:
            return
        at += _pick(_TO_NEXT_HIT if repeat else _TO_HIT, draw())
        label, uri = _pick(notification.links, draw())
        link = _DISMISSAL if draw() < _DISMISSED else {"type": "redirection", "label": label, "uri": uri}
        yield at, number, repeat, _build_detail("link", link)


def _pick(values: Sequence[T], share: float) -> T:
    return values[int(share * len(values))]


def _build_detail(name: str, value: Mapping[str, object]) -> str:
    """Build the JSON that stands beside the activation in an event."""
    return f',"{name}":{json.dumps(value, separators=(",", ":"))}'


_DISMISSAL = {"type": "dismissal", "label": None, "uri": None}
_HARD, _SOFT = (
    _build_detail("bounce", {"status": None, "analysis": {"verdict": verdict, "subject": subject}})
    for verdict, subject in (
        ("hard", {"type": "token", "detail": {"type": "unregistered"}}),
        ("soft", {"type": "provider", "detail": {"type": "unavailable"}}),
    )
)
