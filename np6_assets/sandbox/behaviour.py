"""What happens to the simulated account's sends: they bounce, are shown and hit, at once or days later.

Each day of each notification has random numbers of its own, so any day can be generated without the days before it.
All come from `random.Random.random`: Python promises that it stays the same for the same seed.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import TypeVar

from .population import Account, Notification

T = TypeVar("T")
Draw = Callable[[], float]
"""Gives another random number at each call, from 0 to less than 1."""
Event = tuple[int, int, int, str]
"""An event: its time in ms since epoch; the number of its send; 0, or 1 for the second event of its type of that send,
...; what stands beside the activation, as JSON."""

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def _delays(*points: tuple[float, int]) -> Sequence[int]:
    """A thousand equally likely delays, in ms. `(0.5, 1_200)`: half are below 1.2 s; linear between the points."""
    shares = [number / 1000 for number in range(1000)]
    return [
        shortest + int((share - low) / (high - low) * (longest - shortest))
        for (low, shortest), (high, longest) in pairwise(points)
        for share in shares
        if low <= share < high
    ]


_TO_ACTIVATION = _delays((0, 200), (0.5, 1_200), (0.9, 9 * SECOND), (0.99, 90 * SECOND), (1, 5 * MINUTE))
_TO_IMPRESSION = _delays((0, 300), (0.7, 3 * SECOND), (0.9, 4 * MINUTE), (0.97, 2 * HOUR), (1, 12 * HOUR))
_TO_BOUNCE = _delays((0, 150), (0.8, 2 * SECOND), (0.98, 5 * MINUTE), (1, HOUR))
_TO_NEXT_BOUNCE = _delays((0, 10 * MINUTE), (1, 6 * HOUR))
_TO_HIT = _delays(
    *((0, 2 * SECOND), (0.25, 40 * SECOND), (0.5, 6 * MINUTE), (0.75, 70 * MINUTE)),
    *((0.9, 9 * HOUR), (0.965, 2 * DAY), (0.983, 7 * DAY), (1, 8 * DAY)),
)
_TO_NEXT_HIT = _delays((0, SECOND), (0.6, 2 * MINUTE), (0.9, HOUR), (1, 4 * HOUR))

DAYS_AFTER = {"activation": 1, "impression": 1, "optout": 1, "bounce": 1, "hit": 9}
"""For each type, how many days after the day of its send an event can be, by the longest delays."""

_DELIVERED = 0.94  # of sends that do not bounce
_BOUNCED_AGAIN = 0.1  # of soft bounces
_HIT_AGAIN = (0.16, 0.3)  # of those with one hit, and of those with two
_DISMISSED = 0.04  # of hits
_MUTED = 33  # of so many contacts, one has notifications switched off


@dataclass(frozen=True)
class Sends:
    """The sends of a notification on a UTC day. A list has one value for each send, by number."""

    notification: Notification
    id: str  # what the ids of the sends and of their events begin with
    times: Sequence[int]  # ms since epoch
    versions: Sequence[int]
    contacts: Sequence[int]
    events: Mapping[str, Sequence[Event]]  # by type


@lru_cache(maxsize=256)  # 200 kB each by default
def simulate(account: Account, notification: Notification, day: int) -> Sends:
    """The sends of a notification on a UTC day, counted from 1970-01-01, and their events, whenever these are."""
    draw = Random(f"{account.seed} {day} {notification.id}").random
    average = account.sends_per_day * notification.sends / 1000 * notification.days[(day + 3) % 7] / 100
    numbers = range(round(average * (0.9 + 0.2 * draw())))
    hours = [hour for hour, weight in enumerate(notification.hours) for _ in range(weight)]
    times = [day * DAY + int((_one_of(hours, draw()) + draw()) * HOUR) for _ in numbers]
    versions = [int(draw() * len(notification.hits)) for _ in numbers]
    contacts = [int(draw() * account.contacts) for _ in numbers]

    hard, soft = notification.bounces
    events: dict[str, list[Event]] = {type: [] for type in DAYS_AFTER}
    optout = _beside("optout", {"type": "channel", "channel": notification.channel})
    for number in numbers:
        at = times[number] + _one_of(_TO_ACTIVATION, draw())
        events["activation"].append((at, number, 0, ""))
        luck = draw()
        if luck < hard + soft:
            events["bounce"] += _bounces(number, at, luck < hard, draw)
        elif draw() < _DELIVERED:
            at += _one_of(_TO_IMPRESSION, draw())
            if contacts[number] % _MUTED == 0:
                events["optout"].append((at, number, 0, optout))
            else:
                events["impression"].append((at, number, 0, ""))
                events["hit"] += _hits(number, at, notification, notification.hits[versions[number]], draw)
    id = f"{account.seed:08x}-{day:04x}-4{notification.id:03x}"
    return Sends(notification, id, times, versions, contacts, events)


def _bounces(number: int, at: int, is_hard: bool, draw: Draw) -> Iterator[Event]:
    at += _one_of(_TO_BOUNCE, draw())
    yield at, number, 0, _HARD if is_hard else _SOFT
    if not is_hard and draw() < _BOUNCED_AGAIN:
        yield at + _one_of(_TO_NEXT_BOUNCE, draw()), number, 1, _HARD


def _hits(number: int, at: int, notification: Notification, rate: float, draw: Draw) -> Iterator[Event]:
    for repeat, chance in enumerate((rate, *_HIT_AGAIN)):
        if draw() >= chance:
            return
        at += _one_of(_TO_NEXT_HIT if repeat else _TO_HIT, draw())
        label, uri = _one_of(notification.links, draw())
        link = _DISMISSAL if draw() < _DISMISSED else {"type": "redirection", "label": label, "uri": uri}
        yield at, number, repeat, _beside("link", link)


def _one_of(values: Sequence[T], share: float) -> T:
    return values[int(share * len(values))]


def _beside(name: str, value: Mapping[str, object]) -> str:
    """What stands beside the activation in an event."""
    return f',"{name}":{json.dumps(value, separators=(",", ":"))}'


_DISMISSAL = {"type": "dismissal", "label": None, "uri": None}
_HARD, _SOFT = (
    _beside("bounce", {"status": None, "analysis": {"verdict": verdict, "subject": subject}})
    for verdict, subject in (
        ("hard", {"type": "token", "detail": {"type": "unregistered"}}),
        ("soft", {"type": "provider", "detail": {"type": "unavailable"}}),
    )
)
