"""Receiving: the parts of one answer are decoded while the next ones arrive, and counted in their order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Protocol

import numpy as np

from np6_assets.events.decode import Decoded, Found
from np6_assets.np6.errors import BadResponseError
from np6_assets.np6.stream import Part

DECODERS = 2
"""Parts decoded at once."""

LEAST_SORTED = 10
"""Fewer events may be in order by chance: a cut answer of fewer is fetched again from its start."""

SMALL_ANSWER = 2**20
"""Bytes of an answer that shares a part with others."""


class Batched(Protocol):
    """The batch of days that an answer belongs to."""

    def decode(self, part: Part) -> Future[Decoded]:
        """Decode a part on another thread."""

    def found(self, decoded: Decoded, before: int) -> Found:
        """What was found in a part; `before` (ms) is the time of its rejected events before the first timed one."""

    def share(self, part: Part) -> None:
        """Collect a small answer for a part that is shared."""


class AnswerReceiver:
    """One answer: its parts, decoded and counted in their order. `shares`: a small one shares a part with others."""

    def __init__(self, batch: Batched, *, shares: bool) -> None:
        self._batch = batch
        self._shares = shares
        self._small: Part | None = None
        self._decoding: deque[Future[Decoded]] = deque()
        self._is_resumed = False
        self._ascends = True
        self._span: tuple[int, int] | None = None
        self._timed = 0
        self.found = Found()

    def add(self, part: Part) -> None:
        """Take a part."""
        self._decode_small()
        if self._shares and part.size <= SMALL_ANSWER:
            self._small = part
        else:
            self._decode(part)
        self._shares = False

    def resume_from(self) -> tuple[int, int] | None:
        """After a cut: the times of the first and the last event received; None where they do not ascend."""
        self._decode_small()
        self._take_all_but(0)
        self._is_resumed = True
        is_sorted = self._ascends and self.found.received.total() + self.found.outside >= LEAST_SORTED
        return self._span if is_sorted else None

    def finish(self) -> None:
        """The answer is complete."""
        if self._small is not None:
            self._batch.share(self._small)
        self._small = None
        self._take_all_but(0)
        if self._is_resumed and not self._ascends:
            raise BadResponseError("the download was cut, and cannot be resumed as the API did not sort it")

    def discard(self) -> None:
        """Forget what was received."""
        if self._small is not None:
            self._small.close()
        for future in self._decoding:
            future.cancel()

    def _decode_small(self) -> None:
        if self._small is not None:
            self._decode(self._small)
        self._small = None

    def _decode(self, part: Part) -> None:
        self._take_all_but(DECODERS - 1)
        self._decoding.append(self._batch.decode(part))

    def _take_all_but(self, waiting: int) -> None:
        """Take what was decoded, but for so many of the parts."""
        while len(self._decoding) > waiting:
            decoded = self._decoding.popleft().result()
            self.found += self._batch.found(decoded, self._timed)
            self._timed = decoded.timed or self._timed
            if (times := decoded.times).size:
                first, last = self._span or (int(times[0]), int(times[0]))
                self._ascends &= bool((np.diff(times, prepend=last) >= 0).all())
                self._span = first, int(times[-1])
