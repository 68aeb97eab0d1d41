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

_Probe = tuple[EventKind, str, DayWatermarks]
"""The kind, the path and the day that a probe is about."""


@dataclass
class ProbeResult:
    """What the probes of a tick found.

    `new`: by day, an asset with new events; `answers`: how many probes were answered, refusals of one feed included;
    `errors`: by path, what went wrong; `is_cut`: some probes were not made.
    """

    last_probed: int
    new: dict[str, str] = field(default_factory=dict)
    answers: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False

    @property
    def error_text(self) -> str:
        """All errors, each once."""
        return "; ".join(dict.fromkeys(self.errors.values()))

    def cut(self, error: str) -> None:
        """End the probes because of an error that is no single feed's."""
        self.errors[""], self.is_cut = error, True


class Prober:
    """Probes the API for one tick."""

    def __init__(self, np6: NP6Resource, log: Callable[[str], None], folder: Folder, now: datetime) -> None:
        self._np6 = np6
        self._log = log
        self._folder = folder
        self._now = now

    def probe(self, days: Sequence[DayWatermarks], assets: Mapping[str, set[str]], last_probed: int) -> ProbeResult:
        """Ask the API whether anything of these days was published after their watermarks: few bytes a feed.

        `assets` are those of each day. A feed or a notification that fails does not stop the other probes.
        """
        result = ProbeResult(last_probed)
        if not days:
            return result
        try:
            with self._np6.open_probe_client(self._log) as client:
                for kind, path, day in self._iterate_probes(client, days, result, assets):
                    self._send(client, result, (kind, path, day))
        except CancelledError:
            result.cut("the API is slow")
        except NP6Error as error:
            result.cut(str(error))
        return result

    def _send(self, client: NP6Client, result: ProbeResult, probe: _Probe) -> None:
        """Send one probe and note its outcome. Raises NP6Error where the error is not the feed's own."""
        kind, path, one = probe
        try:
            if self._has_new_events(client, kind, path, one):
                result.new[one.day.key] = kind.asset
            result.answers += 1
        except NP6Error as error:
            if _concerns_all_feeds(error, result):
                raise
            result.errors[path] = str(error)
            result.answers += isinstance(error, PermanentError)

    def _iterate_probes(
        self, client: NP6Client, days: Sequence[DayWatermarks], result: ProbeResult, assets: Mapping[str, set[str]]
    ) -> Iterator[_Probe]:
        """Give the probes one by one: each common feed of each day, then some notifications' feeds of the newest day.

        A day with known new events is not probed further, as all of it is fetched then; nor is a feed that failed.
        """
        for kind in KINDS:
            for one in days if not kind.per_notification else ():
                is_wanted = kind.asset in assets[one.day.key]
                if is_wanted and one.day.key not in result.new and kind.path not in result.errors:
                    yield kind, kind.path, one
        newest = days[-1]
        kinds = [kind for kind in KINDS if kind.per_notification and kind.asset in assets[newest.day.key]]
        if not kinds or newest.day.key in result.new:
            return
        ids = self._select_notifications(client, result.last_probed)
        for kind in kinds:
            for id_ in ids:
                if newest.day.key not in result.new:
                    result.last_probed = id_
                    yield kind, kind.path.format(id=id_), newest

    def _select_notifications(self, client: NP6Client, last_probed: int) -> list[int]:
        """Select those that follow the last probed one in the asset `notifications`, or else in the API's list."""
        known = notifications.read_notifications(self._folder) or notifications.fetch_notifications(client)
        ids = [id_ for id_, one in sorted(known.items()) if one.unlisted_since is None]
        later = [id_ for id_ in ids if id_ > last_probed]
        return (later + ids[: len(ids) - len(later)])[:NOTIFICATIONS_PER_TICK]

    def _has_new_events(self, client: NP6Client, kind: EventKind, path: str, one: DayWatermarks) -> bool:
        """Ask whether there is an event after the watermark and not dated in the future."""
        start = max(one.watermarks[kind.asset] or one.day.start, one.day.start)
        end = min(one.day.end, self._now + TOLERANCE)
        if start >= min(one.day.end, self._now):
            return False
        window = to_epoch_ms(start), to_epoch_ms(end)
        return client.has_events(Request(path, kind.start_parameter, kind.end_parameter, window))


def _concerns_all_feeds(error: NP6Error, result: ProbeResult) -> bool:
    """Whether an error ends the probes: a wrong key, no time left, or a second feed where none has answered."""
    if isinstance(error, GaveUpError):
        return bool(result.errors) and not result.answers
    return isinstance(error, CancelledError) or (
        isinstance(error, AccessError) and not isinstance(error, ForbiddenError)
    )
