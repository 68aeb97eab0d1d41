"""The probes of a tick of `np6_refresh`: cheap requests that tell whether anything new was published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from np6_assets.events import notifications
from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.np6.client import NP6Client
from np6_assets.np6.clock import TOLERANCE
from np6_assets.np6.errors import AccessError, CancelledError, ForbiddenError, GaveUpError, NP6Error, PermanentError
from np6_assets.np6.request import Request
from np6_assets.np6.resource import NP6Resource
from np6_assets.partitions import to_epoch_ms
from np6_assets.refresh.planner import DayWatermarks
from np6_assets.storage.files import Folder

NOTIFICATIONS_PER_TICK = 4
"""How many notifications' activations one tick probes. A send soon has reactions, and every tick probes those."""


@dataclass
class Probes:
    """The probes of one tick, and what they found.

    `new`: by day, an asset with new events; `answers`: how many probes were answered, refusals of one feed included;
    `errors`: by path, what went wrong; `is_cut`: some probes were not made.
    """

    folder: Folder
    now: datetime
    last_probed: int
    new: dict[str, str] = field(default_factory=dict)
    answers: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False

    @property
    def error_text(self) -> str:
        """All errors, each once."""
        return "; ".join(dict.fromkeys(self.errors.values()))

    def send(
        self,
        np6: NP6Resource,
        log: Callable[[str], None],
        days: Sequence[DayWatermarks],
        assets: Mapping[str, set[str]],
    ) -> None:
        """Ask the API whether anything of these days was published after their watermarks: few bytes a feed.

        `assets` are those of each day. A feed or a notification that fails does not stop the other probes.
        """
        if not days:
            return
        try:
            with np6.open_probe_client(log) as client:
                for kind, path, day in self._iterate(client, days, assets):
                    self._send_one(client, kind, path, day)
        except NP6Error as error:
            self.errors[""] = "the API is slow" if isinstance(error, CancelledError) else str(error)
            self.is_cut = True

    def _iterate(
        self, client: NP6Client, days: Sequence[DayWatermarks], assets: Mapping[str, set[str]]
    ) -> Iterator[tuple[EventKind, str, DayWatermarks]]:
        """Give the probes one by one: each common feed of each day, then some notifications' feeds of the newest day.

        A day with known new events is not probed further, as all of it is fetched then; nor is a feed that failed.
        """
        for kind in KINDS:
            for one in days if not kind.per_notification else ():
                is_wanted = kind.asset in assets[one.day.key]
                if is_wanted and one.day.key not in self.new and kind.path not in self.errors:
                    yield kind, kind.path, one
        newest = days[-1]
        kinds = [kind for kind in KINDS if kind.per_notification and kind.asset in assets[newest.day.key]]
        if not kinds or newest.day.key in self.new:
            return
        ids = self._select_notifications(client)
        for kind in kinds:
            for id_ in ids:
                if newest.day.key not in self.new:
                    self.last_probed = id_
                    yield kind, kind.path.format(id=id_), newest

    def _select_notifications(self, client: NP6Client) -> list[int]:
        """Select those that follow the last probed one in the asset `notifications`, or else in the API's list."""
        known = notifications.read_notifications(self.folder) or notifications.fetch_notifications(client)
        ids = [id_ for id_, one in sorted(known.items()) if one.unlisted_since is None]
        later = [id_ for id_ in ids if id_ > self.last_probed]
        return (later + ids[: len(ids) - len(later)])[:NOTIFICATIONS_PER_TICK]

    def _send_one(self, client: NP6Client, kind: EventKind, path: str, one: DayWatermarks) -> None:
        """Ask whether there is an event after the watermark and not dated in the future."""
        start = max(one.watermarks[kind.asset] or one.day.start, one.day.start)
        end = min(one.day.end, self.now + TOLERANCE)
        window = to_epoch_ms(start), to_epoch_ms(end)
        try:
            if start < min(one.day.end, self.now) and client.has_events(
                Request(path, kind.start_parameter, kind.end_parameter, window)
            ):
                self.new[one.day.key] = kind.asset
            self.answers += 1
        except NP6Error as error:
            if self._concerns_all_feeds(error):
                raise
            self.errors[path] = str(error)
            self.answers += isinstance(error, PermanentError)

    def _concerns_all_feeds(self, error: NP6Error) -> bool:
        """Whether an error ends the probes: a wrong key, no time left, or a second feed where none has answered."""
        if isinstance(error, GaveUpError):
            return bool(self.errors) and not self.answers
        is_wrong_key = isinstance(error, AccessError) and not isinstance(error, ForbiddenError)
        return is_wrong_key or isinstance(error, CancelledError)
