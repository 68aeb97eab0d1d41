"""How patiently a failed request is made again: what the resource sets and the client does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a failed request is made again.

    `retries`: failures in a row, without any progress, that are put up with. The first wait is random up to `backoff`
    seconds, each further one up to twice as much, and at least what the API asked for; no wait is longer than
    `longest_wait` seconds.
    """

    retries: int = 8
    backoff: float = 0.5
    longest_wait: float = 120.0

    def wait(self, failures: int, asked: float | None, chance: float) -> float:
        """Seconds to wait after so many failures in a row; `chance` is a random number from 0 to 1.

        Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        backoff = self.backoff * 2.0 ** min(failures - 1, 16) * chance
        return min(max(backoff, asked or 0.0), self.longest_wait)
