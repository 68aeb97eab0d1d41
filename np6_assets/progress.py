"""Progress of a run over many days, in words, for its log."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Tells how far a run is: a line now and then, and one at the end."""

    def __init__(
        self, what: str, days: int, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._days = days
        self._log = log
        self._clock = clock
        self._start = self._last = clock()
        self._done = 0
        self._events = 0

    def day_done(self, events: int) -> None:
        """One more day is done, with so many events received."""
        self._done += 1
        self._events += events
        now = self._clock()
        if self._done == self._days or now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            self._log(self._line(now - self._start))

    def _line(self, seconds: float) -> str:
        left = seconds / self._done * (self._days - self._done)
        rate = self._events / seconds if seconds else 0.0
        return f"{self._what}: {self._done} of {self._days} days, {self._events:,} events, {rate:,.0f} a second" + (
            f", about {duration(left)} left" if self._done < self._days else f", in {duration(seconds)}"
        )


def duration(seconds: float) -> str:
    """Seconds in words: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
