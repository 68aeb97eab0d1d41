"""The server under which a round runs: it does everything wrong that it can, a tenth of the time."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from np6_assets_tests.support.events import Population
from np6_assets_tests.support.rude_server import STALLS, TRANSIENT, Act, Request, RudeServer

FAULTS = (*TRANSIENT, *STALLS, "outside window", "end ignored", "shuffled and cut")
"""What the project gets over by itself, with right data in the end."""

SHARE = 0.1
"""Of the requests that are answered wrongly."""


class FaultyServer(RudeServer):
    """Serves what was published until `until_ms`, and answers a tenth of the requests wrongly while it is `faulty`.

    Faults are dealt from a shuffled deck, so that each kind comes before any comes twice. `injected` counts them.
    """

    def __init__(self, population: Population, deck: Deck, seed: int, key: str) -> None:
        super().__init__(population, key=key, seed=seed)
        self.until_ms = 0
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
        """The array elements that the request asks for, of those that were published."""
        return [item for item in super().elements(request, **options) if item.ms < self.until_ms]


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
