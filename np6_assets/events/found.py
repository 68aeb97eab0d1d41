"""What the answers to a batch of requests hold, and what a day has of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from np6_assets.events.merge import Run
from np6_assets.events.plan import DayPlan
from np6_assets.events.unknown_fields import MOST_SHOWN
from np6_assets.np6.errors import NP6Error


@dataclass
class Found:
    """What was found in answers; days are numbered as those of their window.

    Attributes:
        runs: the rows, and `rejected` the rejected events, of all days.
        received: how many events there are of each day, repeated ones included; `outside` of none.
        erased: keys of events whose receiver was erased; `of_erased` how many there are of each day.
        unknown: unknown fields, and `unreadable` values by column, by day.
    """

    runs: list[Run] = field(default_factory=list)
    rejected: list[Run] = field(default_factory=list)
    received: Counter[int] = field(default_factory=Counter)
    outside: int = 0
    erased: list[str] = field(default_factory=list)
    of_erased: Counter[int] = field(default_factory=Counter)
    unknown: set[tuple[int, str]] = field(default_factory=set)
    unreadable: Counter[tuple[int, str]] = field(default_factory=Counter)

    def __iadd__(self, other: Found) -> Found:
        for name in vars(self):
            value, more = getattr(self, name), getattr(other, name)
            setattr(self, name, value | more if isinstance(value, set) else value + more)
        return self


@dataclass(frozen=True)
class FetchedDay:
    """What the requests for a day brought: day `number` of what is `found`.

    `asked_at` is when the first of the requests was made, or earlier. `error` says why the day is not complete.
    """

    plan: DayPlan
    asked_at: datetime
    found: Found
    number: int
    error: NP6Error | None = None

    @property
    def received(self) -> int:
        """How many events of the day there were, repeated ones included."""
        return self.found.received[self.number]

    @property
    def outside(self) -> int:
        """How many events were outside the window; told with the first of its days."""
        return 0 if self.number else self.found.outside

    @property
    def of_erased(self) -> int:
        """How many events of the day were kept out as their receiver was erased."""
        return self.found.of_erased[self.number]

    @property
    def unknown(self) -> list[str]:
        """The unknown fields; of very many the first, and how many more there are."""
        paths = sorted(path for day, path in self.found.unknown if day == self.number)
        more = [f"and {len(paths) - MOST_SHOWN} more"] if len(paths) > MOST_SHOWN else []
        return paths[:MOST_SHOWN] + more

    @property
    def unreadable(self) -> dict[str, int]:
        """How many values could not be read, by column."""
        return {column: count for (day, column), count in self.found.unreadable.items() if day == self.number}
