"""Serve a round's account, with a fault in one of ten responses."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from np6_assets_tests.support.events import KINDS, Population
from np6_assets_tests.support.oracle import read_activation_id
from np6_assets_tests.support.rude_acts import BOMBS, END_MODES, OTHER_FORMATS, STALLS, TRANSIENT, Act
from np6_assets_tests.support.rude_server import Request, RudeServer

FAULTS = (*TRANSIENT, *STALLS, *BOMBS, *OTHER_FORMATS, "outside window", "end ignored", "shuffled and cut")
"""Faults after which the data must be right in the end, by retries or by another worker. A response that trickles is
not among them, as it ends after 120 seconds at the earliest."""

END_MODES_OF_ROUNDS = tuple(mode for mode in END_MODES if mode != "both by activation")
"""How a server may filter by a window's end; with the mode that is left out no client can get all events."""

FAULT_SHARE = 0.1
"""Share of the requests that meet a fault."""


class FaultyServer(RudeServer):
    """Serves what was published before `until_ms`, its clock; while `faulty`, with faults from a deck.

    `injected` counts the faults by name.
    """

    def __init__(self, population: Population, deck: Deck, seed: int, key: str) -> None:
        super().__init__(population, key=key, seed=seed)
        self.until_ms = 0
        self.date = lambda: datetime.fromtimestamp(self.until_ms / 1000, UTC)
        self.faulty = False
        self.injected: Counter[str] = Counter()
        self._deck = deck
        self._rng = random.Random(f"{seed} faults")

    def choose_act(self, request: Request) -> Act | None:
        """Choose the fault of a request, if any."""
        with self.lock:
            if not self.faulty or self._rng.random() >= FAULT_SHARE:
                return None
            act = Act(self._deck.deal(), at=self._rng.random(), wait=0)
            self.injected[act.name] += 1
            return act

    def select_items(self, request: Request, **options: Any) -> list[Any]:
        """Return the published array elements that the request asks for."""
        return [item for item in super().select_items(request, **options) if item.ms < self.until_ms]


def find_unlisted_ids(population: Population) -> list[int]:
    """Find the notifications that events name and the list does not, as if they had been deleted."""
    named = {read_activation_id(event) for kind in KINDS for event in population.feed(kind)}
    listed = {entry["id"] for entry in population.notifications}
    return sorted(id_ for id_ in named - listed if id_ is not None)


class Deck:
    """Deals all faults in random order, each once, and begins again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._remaining: list[str] = []

    def deal(self) -> str:
        """Return the next fault."""
        if not self._remaining:
            self._remaining = self._rng.sample(FAULTS, len(FAULTS))
        return self._remaining.pop()
