"""Requests: one feed over one half-open window, who takes the answer, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from np6_assets.np6.errors import NP6Error
from np6_assets.np6.stream import Part

SETTLED_MS = 24 * 3_600_000
"""A window's end is sent only where it lies so far back by our clock that it is in the API's past for certain."""

END_MARGIN_MS = 60_000
"""The end that is sent is later by this much: an API that compares it with the time of the send, whose clock may be
ahead of the event's, leaves out nothing of the window."""


@dataclass(frozen=True)
class Request:
    """A feed over a half-open window, in ms since the epoch.

    `edges` are the window's start, the ends of its days but the last, and its end. `start_parameter` and
    `end_parameter` are the endpoint's names for them. `is_whole_feed`: it is for all notifications. `is_patient`: it is
    retried as often as the client may, and else once.
    """

    path: str
    start_parameter: str
    end_parameter: str
    edges: tuple[int, ...]
    is_whole_feed: bool = True
    is_patient: bool = True

    @property
    def start(self) -> int:
        """The first instant of the window."""
        return self.edges[0]

    @property
    def end(self) -> int:
        """The first instant after the window."""
        return self.edges[-1]

    @property
    def halves(self) -> tuple[Request, ...]:
        """The same window in two requests; nothing where it is a single day's."""
        middle = len(self.edges) // 2
        if len(self.edges) == 2:
            return ()
        return replace(self, edges=self.edges[: middle + 1]), replace(self, edges=self.edges[middle:])

    def parameters(self, now: datetime, start: int | None = None, sort: str = "asc") -> dict[str, str]:
        """The query, from `start` on where it is given. No end that may lie in the API's future."""
        start = self.start if start is None else start
        found = {self.start_parameter: str(start), "sort": sort}
        end = self.end + END_MARGIN_MS
        if self.end <= now.timestamp() * 1000 - SETTLED_MS and start < end:
            found[self.end_parameter] = str(end)
        return found


class Receiver(Protocol):
    """Takes the parts of one request's answer, in order."""

    def add(self, part: Part) -> None:
        """Take a part, and close it when it is no longer needed."""

    def resume_from(self) -> tuple[int, int] | None:
        """After a cut: the times of the first and the last event received, in ms; None where they do not ascend."""

    def finish(self) -> None:
        """The answer is complete. Raises BadResponseError where it was resumed and its events do not ascend."""

    def discard(self) -> None:
        """Nothing more will come, not even the end of the answer: give memory and disk back."""


R = TypeVar("R", bound=Receiver)


@dataclass(frozen=True)
class Answer(Generic[R]):
    """What became of one request: its receiver, finished, or the error that ended it."""

    request: Request
    receiver: R | None
    error: NP6Error | None = None
