"""What the end of a window may mean, and which windows tell these meanings apart.

Each meaning predicts which known events an answer holds. An answer rules out the meanings that it contradicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from np6_assets.doctor.probe import Item, Reply

Meaning = Literal["half open", "inclusive", "ignored", "by activation", "both by activation"]

_CANDIDATES = 16
_SORTED_FROM = 10
"""So many events are not in order by chance."""

_HOLDS: dict[Meaning, Callable[[Item, int, int], bool]] = {
    "half open": lambda event, start, end: event.timestamp < end,
    "inclusive": lambda event, start, end: event.timestamp <= end,
    "ignored": lambda event, start, end: True,
    "by activation": lambda event, start, end: event.activated < end,
    "both by activation": lambda event, start, end: start <= event.activated < end,
}


class Trial(NamedTuple):
    """A window that was requested, in ms, oldest events first; and the response."""

    start: int
    end: int
    reply: Reply


def select_ids(known: Iterable[Item], start: int, end: int) -> set[str | int | None]:
    """Select the ids of the known events in a window."""
    return {event.id for event in known if start <= event.timestamp < end}


def deduplicate_events(items: Iterable[Item]) -> list[Item]:
    """Deduplicate the items that have an id and a time; oldest first."""
    found = {item.id: item for item in items if item.id is not None and item.timestamp}
    return sorted(found.values(), key=lambda event: event.timestamp)


def count_out_of_order(times: Sequence[int]) -> int:
    """Count the times that are before the one that precedes them."""
    return sum(after < before for before, after in pairwise(times))


def find_possible_meanings(known: Sequence[Item], trials: Iterable[Trial]) -> list[Meaning]:
    """Find the meanings that no answer contradicts; the beginning of an answer is enough."""
    possible = list(_HOLDS)
    for start, end, reply in trials:
        received = [event for event in deduplicate_events(reply.items) if event.timestamp >= start]
        ids = {event.id for event in received}
        # a known event is missing where the answer is whole, or has come past it in good order
        is_sorted = len(received) >= _SORTED_FROM and not count_out_of_order(reply.times)
        passed = math.inf if reply.is_whole else received[-1].timestamp if is_sorted else 0
        missing = [event for event in known if start <= event.timestamp < passed and event.id not in ids]
        possible = [
            meaning
            for meaning in possible
            if all(_HOLDS[meaning](event, start, end) for event in received)
            and not any(_HOLDS[meaning](event, start, end) for event in missing)
        ]
    return possible


def choose_window(known: Sequence[Item], meanings: Sequence[Meaning], most: int) -> tuple[int, int] | None:
    """Choose the window that tells most of the meanings apart, preferably in the middle; None where none does.

    At most so many known events are inside. Its end is the time of a known event or before it: in the API's past.
    """
    candidates = []
    for event in (known[len(known) // 2], *known[:: len(known) // _CANDIDATES + 1]):
        for end in (event.timestamp, event.timestamp - 1, min(event.activated, event.timestamp)):
            inside = [one.timestamp for one in known if one.timestamp < end][-most:]
            start = inside[0] if inside else min(end - 1000, known[0].activated)
            answers = {
                tuple(_HOLDS[meaning](one, start, end) for one in known if one.timestamp >= start)
                for meaning in meanings
            }
            candidates.append((len(answers), start, end))
    told_apart, start, end = max(candidates, key=lambda candidate: candidate[0])
    return (start, end) if told_apart > 1 else None
