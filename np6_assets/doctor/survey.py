"""What the doctor requests, in which order, and when it stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from np6_assets.doctor.probe import NoReply, Now, Reply, get
from np6_assets.doctor.windows import Trial, choose_window, distinct_events, ids_inside, out_of_order, possible_meanings
from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.np6.client import NP6Client
from np6_assets.np6.request import Request
from np6_assets.partitions import milliseconds

NOTIFICATIONS = "/notifications"
SAMPLE_SECONDS = 15.0
_DAY = timedelta(days=1)
_NEWEST_DAYS = (1, 30)
_MOST_TRIALS = 3


@dataclass
class Survey:
    """Every response. What is missing was not requested any more.

    `feeds` has the newest events of each kind. `kind` is the one with the most reactions: of its feed are `windows`,
    the response to an end in the `future`, and `samples`, its newest events again and again.
    """

    notifications: Reply | NoReply
    feeds: dict[str, Reply | NoReply] = field(default_factory=dict)
    kind: EventKind | None = None
    windows: list[Trial] = field(default_factory=list)
    future: Reply | NoReply | None = None
    samples: list[Reply] = field(default_factory=list)

    @property
    def replies(self) -> list[Reply]:
        """Every response, in the order of the requests."""
        windows = [trial.reply for trial in self.windows]
        found = [self.notifications, *self.feeds.values(), *windows, self.future, *self.samples]
        return [reply for reply in found if isinstance(reply, Reply)]


def survey(client: NP6Client, now: Now, wait: Callable[[float], None], watch_seconds: int) -> Survey:
    """Send every request, as long as the API answers. `watch_seconds`: how long to watch for new events."""
    found = Survey(get(client, NOTIFICATIONS, {}, now))
    if not found.notifications.usable:
        return found
    for kind in KINDS:
        path = _path(kind, found)
        if path is not None:
            found.feeds[kind.asset] = reply = _newest(client, kind, path, now)
            if reply.is_final:
                return found
    fullest = _fullest(found)
    if fullest is not None:
        found.kind, newest = fullest
        _try_windows(client, found.kind, newest, found, now)
        if not any(reply.is_final for reply in found.replies):
            found.samples = list(_watch(client, found.kind, now, wait, watch_seconds))
    return found


def _path(kind: EventKind, found: Survey) -> str | None:
    """The feed's path, of the notification with the most events where there is one for each; None without any."""
    if not kind.per_notification:
        return kind.path
    seen = [item.notification for reply in found.replies for item in reply.items if item.notification is not None]
    assert isinstance(found.notifications, Reply)
    listed = [item.id for item in found.notifications.items if isinstance(item.id, int)]
    known = [id_ for id_ in seen if id_ in listed]
    busiest = max(known, key=known.count) if known else max(listed, default=None)
    return None if busiest is None else kind.path.format(id=busiest)


def _parameters(kind: EventKind, start: int, end: int, now: Now, *, sort: str = "asc") -> dict[str, str]:
    """The query that a run sends for the same window."""
    return Request(kind.path, kind.start_parameter, kind.end_parameter, (start, end)).parameters(now(), sort=sort)


def _newest(client: NP6Client, kind: EventKind, path: str, now: Now) -> Reply | NoReply:
    """The newest events of the last day; of the last month where there are none."""
    for days in _NEWEST_DAYS:
        start, end = milliseconds(now() - days * _DAY), milliseconds(now())
        reply = get(client, path, _parameters(kind, start, end, now, sort="desc"), now)
        if isinstance(reply, NoReply) or reply.items or not reply.is_whole:
            break
    return reply


def _fullest(found: Survey) -> tuple[EventKind, Reply] | None:
    """The feed of reactions with the most events; the first of them where several have as many; None without any."""
    full: list[tuple[EventKind, Reply]] = []
    for kind in KINDS:
        reply = found.feeds.get(kind.asset)
        if isinstance(reply, Reply) and reply.usable and distinct_events(reply.items) and not kind.per_notification:
            full.append((kind, reply))
    return max(full, key=lambda pair: len(pair[1].items), default=None)


def _try_windows(client: NP6Client, kind: EventKind, newest: Reply, found: Survey, now: Now) -> None:
    """Request windows until one meaning of their end is left, then one whose end lies in the future."""
    known = distinct_events(newest.items)
    # known events that are a sample of many have unknown ones between them
    inside = 30 if newest.is_whole or not out_of_order(newest.times[::-1]) else 3

    def request(start: int, end: int, enough: Callable[[Reply], bool]) -> Reply | NoReply:
        parameters = _parameters(kind, start, end, now) | {kind.end_parameter: str(end)}
        return get(client, kind.path, parameters, now, enough)

    def try_window(start: int, end: int) -> bool:
        def is_decided(reply: Reply) -> bool:
            if not ids_inside(known, start, end) <= {item.id for item in reply.items}:
                return False
            return len(possible_meanings(known, [*found.windows, Trial(start, end, reply)])) == 1

        reply = request(start, end, is_decided)
        found.windows += [Trial(start, end, reply)] if isinstance(reply, Reply) else []
        return reply.usable

    while len(found.windows) < _MOST_TRIALS:
        window = choose_window(known, possible_meanings(known, found.windows), inside)
        if window is None:
            break
        if not try_window(*window):
            return
    end = milliseconds((newest.server_time or now()) + _DAY)
    found.future = request(known[-1].timestamp, end, lambda reply: bool(reply.items))


def _watch(
    client: NP6Client, kind: EventKind, now: Now, wait: Callable[[float], None], seconds: int
) -> Iterator[Reply]:
    """The newest events again and again, for so long."""
    start = milliseconds(now() - _DAY)
    for number in range(int(seconds // SAMPLE_SECONDS) + 1 if seconds else 0):
        if number:
            wait(SAMPLE_SECONDS)
        reply = get(client, kind.path, _parameters(kind, start, milliseconds(now()), now, sort="desc"), now)
        if isinstance(reply, NoReply) or not reply.usable:
            return
        yield reply
