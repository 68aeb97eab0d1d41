"""Serve a round's account, with one fault in every ten answers."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from np6_assets_tests.support.events import KINDS, Population
from np6_assets_tests.support.oracle import activation_id
from np6_assets_tests.support.rude_server import (
    BOMBS,
    END_MODES,
    OTHER_FORMATS,
    STALLS,
    TRANSIENT,
    TRICKLES,
    Act,
    Request,
    RudeServer,
)

FAULTS = (*TRANSIENT, *STALLS, *BOMBS, *OTHER_FORMATS, "outside window", "end ignored", "shuffled and cut")
"""Faults after which the project must have the right data in the end, by itself or in a new worker."""

SLOW_FAULTS = TRICKLES
"""Faults that are not dealt: a trickle ends after 120 seconds, however short the read timeout is."""

ENDS = tuple(mode for mode in END_MODES if mode != "both by activation")
"""What a round's server makes of a window's end. Where the start is not the event's either, no client can be right."""

SHARE = 0.1
"""Share of the requests that meet a fault."""


class FaultyServer(RudeServer):
    """Serve what was published until `until_ms`, its clock; while it is `faulty`, a tenth of the answers has a fault.

    Faults are dealt from a shuffled deck, so that each kind comes before any comes twice. `injected` counts them.
    """

    def __init__(self, population: Population, deck: Deck, seed: int, key: str) -> None:
        super().__init__(population, key=key, seed=seed)
        self.until_ms = 0
        self.date = lambda: datetime.fromtimestamp(self.until_ms / 1000, UTC)
        self.faulty = False
        self.injected: Counter[str] = Counter()
        self._deck = deck
        self._rng = random.Random(f"{seed} faults")

    def decide(self, request: Request) -> Act | None:
        """What to do to this request."""
        with self.lock:
            if not self.faulty or self._rng.random() >= SHARE:
                return None
            act = Act(self._deck.deal(), at=self._rng.random(), wait=0)
            self.injected[act.name] += 1
            return act

    def elements(self, request: Request, **options: Any) -> list[Any]:
        """The published array elements that the request asks for."""
        return [item for item in super().elements(request, **options) if item.ms < self.until_ms]


def unlisted(made: Population) -> list[int]:
    """The notifications that only events name: the list has had them once."""
    named = {activation_id(one) for kind in KINDS for one in made.feed(kind)}
    return sorted(id_ for id_ in named if id_ is not None and all(entry["id"] != id_ for entry in made.notifications))


class Deck:
    """Every kind of fault once, in random order, and again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._left: list[str] = []

    def deal(self) -> str:
        """The next one."""
        if not self._left:
            self._left = self._rng.sample(FAULTS, len(FAULTS))
        return self._left.pop()
