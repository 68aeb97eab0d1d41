"""Requests: one feed over one half-open window; the receiver of the answer, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from np6_assets.np6.errors import NP6Error
from np6_assets.np6.stream import Part

SETTLED_MS = 24 * 3_600_000
"""A window's end is sent only if it is so far back by our clock that it is in the API's past for certain."""

END_MARGIN_MS = 60_000
"""The end is sent later by this much.

An API that compares it with the time of the send, by a clock ahead of the event's, still returns the whole window.
"""


@dataclass(frozen=True)
class Request:
    """A feed over a half-open window, in ms since the epoch.

    Attributes:
        start_parameter, end_parameter: the endpoint's names of the window's ends.
        edges: the window's start, the ends of its days but the last, and its end.
        is_whole_feed: the request is for all notifications.
        retry_once: one retry, instead of as many as the client allows.
    """

    path: str
    start_parameter: str
    end_parameter: str
    edges: tuple[int, ...]
    is_whole_feed: bool = True
    retry_once: bool = False

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
        """The same window in two requests; empty for a single day."""
        middle = len(self.edges) // 2
        if len(self.edges) == 2:
            return ()
        return replace(self, edges=self.edges[: middle + 1]), replace(self, edges=self.edges[middle:])

    def build_parameters(self, now: datetime, start: int | None = None, sort: str = "asc") -> dict[str, str]:
        """Build the query parameters; no end that may lie in the API's future. `start` overrides the window's."""
        start = self.start if start is None else start
        found = {self.start_parameter: str(start), "sort": sort}
        end = self.end + END_MARGIN_MS
        if self.end <= now.timestamp() * 1000 - SETTLED_MS and start < end:
            found[self.end_parameter] = str(end)
        return found


class Receiver(Protocol):
    """Receives the parts of one request's answer, in order."""

    def add(self, part: Part) -> None:
        """Take a part, and close it when it is no longer needed."""

    def resume_from(self) -> tuple[int, int] | None:
        """Return the times (ms) of the first and last event before a cut; None if they do not ascend."""

    def finish(self) -> None:
        """End the answer. Raises BadResponseError if it was resumed and its events do not ascend."""

    def discard(self) -> None:
        """Drop what was received and free its memory and disk space."""


R = TypeVar("R", bound=Receiver)


@dataclass(frozen=True)
class Answer(Generic[R]):
    """The outcome of one request: its finished receiver, or the error that ended it."""

    request: Request
    receiver: R | None
    error: NP6Error | None = None
