"""Send the doctor's requests: in which order, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from np6_assets.doctor.probe import NoReply, Now, Reply, get
from np6_assets.doctor.windows import (
    Trial,
    choose_window,
    count_out_of_order,
    deduplicate_events,
    find_possible_meanings,
    select_ids,
)
from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.np6.connection import Connection
from np6_assets.np6.request import Request
from np6_assets.partitions import to_epoch_ms

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


def survey_account(client: Connection, now: Now, wait: Callable[[float], None], watch_seconds: int) -> Survey:
    """Send every request, as long as the API answers. `watch_seconds`: how long to watch for new events."""
    found = Survey(get(client, NOTIFICATIONS, {}, now))
    if not found.notifications.usable:
        return found
    for kind in KINDS:
        path = _choose_path(kind, found)
        if path is not None:
            found.feeds[kind.asset] = reply = _request_newest(client, kind, path, now)
            if reply.is_final:
                return found
    fullest = _find_fullest(found)
    if fullest is not None:
        found.kind, newest = fullest
        _try_windows(client, found.kind, newest, found, now)
        if not any(reply.is_final for reply in found.replies):
            found.samples = list(_watch_newest(client, found.kind, now, wait, watch_seconds))
    return found


def _choose_path(kind: EventKind, found: Survey) -> str | None:
    """Choose the feed's path: of the notification with the most events where each has a feed; None without any."""
    if not kind.per_notification:
        return kind.path
    seen = [item.notification for reply in found.replies for item in reply.items if item.notification is not None]
    assert isinstance(found.notifications, Reply)
    listed = [item.id for item in found.notifications.items if isinstance(item.id, int)]
    known = [id_ for id_ in seen if id_ in listed]
    busiest = max(known, key=known.count) if known else max(listed, default=None)
    return None if busiest is None else kind.path.format(id=busiest)


def _build_parameters(kind: EventKind, start: int, end: int, now: Now, *, sort: str = "asc") -> dict[str, str]:
    """Build the query that a run sends for the same window."""
    return Request(kind.path, kind.start_parameter, kind.end_parameter, (start, end)).build_parameters(now(), sort=sort)


def _request_newest(client: Connection, kind: EventKind, path: str, now: Now) -> Reply | NoReply:
    """Request the newest events of the last day, or of the last month where that has none."""
    for days in _NEWEST_DAYS:
        start, end = to_epoch_ms(now() - days * _DAY), to_epoch_ms(now())
        reply = get(client, path, _build_parameters(kind, start, end, now, sort="desc"), now)
        if isinstance(reply, NoReply) or reply.items or not reply.is_whole:
            break
    return reply


def _find_fullest(found: Survey) -> tuple[EventKind, Reply] | None:
    """Find the feed of reactions with the most events, the first where several have as many; None without any."""
    full = [
        (kind, reply)
        for kind in KINDS
        if isinstance(reply := found.feeds.get(kind.asset), Reply)
        and not kind.per_notification
        and reply.usable
        and deduplicate_events(reply.items)
    ]
    return max(full, key=lambda pair: len(pair[1].items), default=None)


def _try_windows(client: Connection, kind: EventKind, newest: Reply, found: Survey, now: Now) -> None:
    """Request windows until one meaning of their end is left, then one whose end lies in the future."""
    known = deduplicate_events(newest.items)
    # known events that are a sample of many have unknown ones between them
    inside = 30 if newest.is_whole or not count_out_of_order(newest.times[::-1]) else 3

    def request(start: int, end: int, enough: Callable[[Reply], bool]) -> Reply | NoReply:
        parameters = _build_parameters(kind, start, end, now) | {kind.end_parameter: str(end)}
        return get(client, kind.path, parameters, now, enough)

    def try_window(start: int, end: int) -> bool:
        def is_decided(reply: Reply) -> bool:
            if not select_ids(known, start, end) <= {item.id for item in reply.items}:
                return False
            return len(find_possible_meanings(known, [*found.windows, Trial(start, end, reply)])) == 1

        reply = request(start, end, is_decided)
        found.windows += [Trial(start, end, reply)] if isinstance(reply, Reply) else []
        return reply.usable

    while len(found.windows) < _MOST_TRIALS:
        window = choose_window(known, find_possible_meanings(known, found.windows), inside)
        if window is None:
            break
        if not try_window(*window):
            return
    end = to_epoch_ms((newest.server_time or now()) + _DAY)
    found.future = request(known[-1].timestamp, end, lambda reply: bool(reply.items))


def _watch_newest(
    client: Connection, kind: EventKind, now: Now, wait: Callable[[float], None], seconds: int
) -> Iterator[Reply]:
    start = to_epoch_ms(now() - _DAY)
    for number in range(int(seconds // SAMPLE_SECONDS) + 1 if seconds else 0):
        if number:
            wait(SAMPLE_SECONDS)
        reply = get(client, kind.path, _build_parameters(kind, start, to_epoch_ms(now()), now, sort="desc"), now)
        if isinstance(reply, NoReply) or not reply.usable:
            return
        yield reply
