"""Log the progress of a run over many days: a line for each day, which begins with the day, and a summary.

The run page's filter looks for text in a line: a day finds its line, and `in all` the summaries.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Progress:
    """Logs the progress of a run. `unit` is what a day has a number of."""

    def __init__(
        self,
        what: str,
        days: int,
        log: Callable[[str], None],
        *,
        unit: str = "events",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._days = days
        self._log = log
        self._unit = unit
        self._clock = clock
        self._start = clock()
        self._done: list[str] = []
        self._number = 0

    def record_day(self, day: str, number: int) -> None:
        """Log that one more day is done, with so many of the unit."""
        self._done.append(day)
        self._number += number
        seconds, done = self._clock() - self._start, len(self._done)
        line = f"{day} {self._what}: {number:,} {self._unit}"
        if self._days == 1:
            self._log(line)
            return
        left = f", about {format_duration(seconds / done * (self._days - done))} left" if done < self._days else ""
        self._log(f"{line} ({done} of {self._days} days{left})")
        if done == self._days:
            rate = self._number / seconds if seconds else 0.0
            self._log(
                f"{self._what}: in all {done} days, {min(self._done)} to {max(self._done)}, "
                f"{self._number:,} {self._unit}, {rate:,.0f} a second, in {format_duration(seconds)}"
            )


def format_duration(seconds: float) -> str:
    """Format seconds: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
