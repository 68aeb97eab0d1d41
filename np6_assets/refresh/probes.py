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
from np6_assets.partitions import milliseconds
from np6_assets.refresh import news
from np6_assets.storage.files import Folder

NOTIFICATIONS_PER_TICK = 4
"""How many notifications' activations are probed in one tick. A send soon has reactions, and these are seen at once."""


@dataclass
class Probed:
    """What the probes found.

    `new`: by day, the asset with something new; `answers`: how many answered, a refusal of one feed
    included; `trouble`: by path, in words, what went wrong; `is_cut`: not all could be asked.
    """

    last_probed: int
    new: dict[str, str] = field(default_factory=dict)
    answers: int = 0
    trouble: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False

    @property
    def words(self) -> str:
        """What went wrong."""
        return "; ".join(dict.fromkeys(self.trouble.values()))


class Prober:
    """Asks the API, for one tick."""

    def __init__(self, np6: NP6Resource, log: Callable[[str], None], folder: Folder, now: datetime) -> None:
        self._np6 = np6
        self._log = log
        self._folder = folder
        self._now = now

    def probe(self, days: Sequence[news.Stored], assets: Mapping[str, set[str]], last_probed: int) -> Probed:
        """Ask the API whether anything of these days was published since they were fetched: few bytes a feed.

        `assets` are those of each day. What is wrong with one feed, or with one notification, is no reason not to
        ask the others.
        """
        probed = Probed(last_probed)
        if not days:
            return probed
        try:
            with self._np6.probing(self._log) as client:
                for kind, path, one in self._probes(client, days, probed, assets):
                    try:
                        if self._has_news(client, kind, path, one):
                            probed.new[one.day.key] = kind.asset
                    except NP6Error as error:
                        if _is_of_the_api(error, probed):
                            raise
                        probed.trouble[path] = str(error)
                        probed.answers += isinstance(error, PermanentError)
                    else:
                        probed.answers += 1
        except CancelledError:
            probed.trouble[""], probed.is_cut = "the API is slow", True
        except NP6Error as error:
            probed.trouble[""], probed.is_cut = str(error), True
        return probed

    def _probes(
        self, client: NP6Client, days: Sequence[news.Stored], probed: Probed, assets: Mapping[str, set[str]]
    ) -> Iterator[tuple[EventKind, str, news.Stored]]:
        """The feeds to look at: those for all notifications, then, of the newest day, those of some notifications.

        None for a day of which something new is known, as all of it is fetched then.
        """
        for kind in KINDS:
            for one in days if not kind.per_notification else ():
                is_wanted = kind.asset in assets[one.day.key]
                if is_wanted and one.day.key not in probed.new and kind.path not in probed.trouble:
                    yield kind, kind.path, one
        newest = days[-1]
        kinds = [kind for kind in KINDS if kind.per_notification and kind.asset in assets[newest.day.key]]
        if not kinds or newest.day.key in probed.new:
            return
        turn = self._turn(client, probed.last_probed)
        for kind in kinds:
            for id_ in turn:
                if newest.day.key not in probed.new:
                    probed.last_probed = id_
                    yield kind, kind.path.format(id=id_), newest

    def _turn(self, client: NP6Client, last_probed: int) -> list[int]:
        """The notifications whose turn it is: of those in the asset `notifications`, or else of the account's."""
        known = notifications.stored(self._folder) or notifications.listed(client)
        ids = [id_ for id_, one in sorted(known.items()) if one.unlisted_since is None]
        later = [id_ for id_ in ids if id_ > last_probed]
        return (later + ids[: len(ids) - len(later)])[:NOTIFICATIONS_PER_TICK]

    def _has_news(self, client: NP6Client, kind: EventKind, path: str, one: news.Stored) -> bool:
        """Whether there is an event after the watermark; one that is dated in the future is none until then."""
        start = max(one.until[kind.asset] or one.day.start, one.day.start)
        end = min(one.day.end, self._now + TOLERANCE)
        if start >= min(one.day.end, self._now):
            return False
        edges = milliseconds(start), milliseconds(end)
        return client.has_events(Request(path, kind.start_parameter, kind.end_parameter, edges))


def _is_of_the_api(error: NP6Error, probed: Probed) -> bool:
    """Whether an error is no feed's own: an unknown key, no time left, or a second feed where none answers."""
    if isinstance(error, GaveUpError):
        return bool(probed.trouble) and not probed.answers
    return isinstance(error, CancelledError) or (
        isinstance(error, AccessError) and not isinstance(error, ForbiddenError)
    )
