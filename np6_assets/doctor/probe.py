"""The doctor's questions to the API: few requests, of whose answers only the beginning is read.

What belongs here: asking, and what of the answers is kept (never anything about a contact). What they mean is judged
in `judge.py`.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Literal

import httpx

from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import BadResponseError, CutResponseError
from np6_assets.np6.spool import elements

NOTIFICATIONS = "/notifications"
BODY_BYTES = 2**18
"""How much of an answer is read, decoded: some 300 events."""

LONGEST_ANSWER = timedelta(seconds=20)
LOOK_EVERY_SECONDS = 15.0
_FIRST_LOOK_DAYS = (1, 30)

Now = Callable[[], datetime]


@dataclass(frozen=True)
class Item:
    """What is kept of an element of an answer: an event, or a notification, which has an id alone. Times in ms."""

    id: str | int | None
    timestamp: int | None = None
    sent: int | None = None
    notification: int | None = None
    link_type: str | None = None
    bounce_verdict: str | None = None


class Body(Enum):
    """How the reading of a body ended."""

    WHOLE = "the array is whole"
    LEFT = "the doctor had read enough"
    CUT = "it ended before its array did"
    PAGE = "it is an HTML page"
    OTHER = "it is not a JSON array"


@dataclass(frozen=True)
class Answer:
    """What came back. `refusal` is one line where the status is not 200; there is a body only where it is.

    `asked` and `answered` are this machine's time before the request and after the headers.
    """

    path: str
    status: int
    headers: Mapping[str, str]
    asked: datetime
    answered: datetime
    refusal: str | None = None
    tls: str | None = None
    certificate_end: datetime | None = None
    body: Body | None = None
    body_bytes: int = 0
    items: tuple[Item, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether its items, as far as they were read, are what was asked for."""
        return self.body in (Body.WHOLE, Body.LEFT)


Trouble = Literal["name", "refused", "timeout", "certificate", "tls", "other"]


@dataclass(frozen=True)
class NoAnswer:
    """Nothing came back, and why."""

    path: str
    trouble: Trouble
    reason: str


@dataclass(frozen=True)
class Window:
    """A request for `start` <= timestamp < `end` (ms), oldest first, and the newest events that were known before."""

    asset: str
    start: int
    end: int
    known: tuple[Item, ...]
    answer: Answer | NoAnswer


@dataclass(frozen=True)
class Look:
    """What was there to be seen at one time."""

    time: datetime
    answer: Answer


@dataclass
class Survey:
    """All that was asked. `feeds` has the newest events of each kind; what is missing was not asked for any more."""

    notifications: Answer | NoAnswer
    feeds: dict[str, Answer | NoAnswer] = field(default_factory=dict)
    window: Window | None = None
    looks: list[Look] = field(default_factory=list)

    @property
    def answers(self) -> list[Answer]:
        """Every answer, in the order of the questions."""
        asked = [self.notifications, *self.feeds.values(), *([self.window.answer] if self.window else [])]
        return [one for one in asked if isinstance(one, Answer)] + [look.answer for look in self.looks]


def survey(client: NP6Client, now: Now, wait: Callable[[float], None], watch_seconds: int) -> Survey:
    """Ask everything, as long as the API answers. `watch_seconds`: how long to look for events as they appear."""
    found = Survey(ask(client, NOTIFICATIONS, {}, now))
    if not _may_go_on(found.notifications):
        return found
    for kind in KINDS:
        path = _path(kind, found)
        if path is None:
            continue
        found.feeds[kind.asset] = answer = _newest(client, kind, path, now)
        if not _may_go_on(answer, refused_feed=True):
            return found
    fullest = _fullest(found)
    if fullest is None:
        return found
    kind, newest = fullest
    found.window = _ask_window(client, kind, newest, now)
    if _may_go_on(found.window.answer, refused_feed=True):
        found.looks = list(_watch(client, kind, now, wait, watch_seconds))
    return found


def ask(client: NP6Client, path: str, parameters: Mapping[str, str], now: Now) -> Answer | NoAnswer:
    """Ask once, and read the beginning of the body."""
    asked = now()
    try:
        with client.open(path, parameters) as response:
            answer = _headed(client, path, response, asked, now())
            return _read(answer, response, now) if answer.refusal is None else answer
    except httpx.TransportError as error:
        return NoAnswer(path, *_trouble(error))


def _headed(client: NP6Client, path: str, response: httpx.Response, asked: datetime, answered: datetime) -> Answer:
    refusal = client.refusal(path, response)
    stream = response.extensions["network_stream"]
    connection = stream.get_extra_info("socket")
    tls = certificate_end = None
    if isinstance(connection, ssl.SSLSocket):
        tls = connection.version()
        certificate_end = _end_of(connection.getpeercert())
    return Answer(
        path,
        response.status_code,
        response.headers,
        asked,
        answered,
        None if refusal is None else str(refusal),
        tls,
        certificate_end,
    )


def _end_of(certificate: Mapping[str, Any] | None) -> datetime | None:
    text = (certificate or {}).get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC) if text else None


def _read(answer: Answer, response: httpx.Response, now: Now) -> Answer:
    body = bytearray()
    left = cut = False
    try:
        for piece in response.iter_bytes():
            body += piece
            if len(body) >= BODY_BYTES or now() - answer.answered > LONGEST_ANSWER:
                left = True
                break
    except (httpx.TransportError, httpx.DecodingError):
        cut = True
    items, end = _items(bytes(body[:BODY_BYTES]))
    if end is Body.CUT and left and not cut:
        end = Body.LEFT
    return replace(answer, body=Body.CUT if cut and end is Body.WHOLE else end, body_bytes=len(body), items=items)


def _items(body: bytes) -> tuple[tuple[Item, ...], Body]:
    text = body.decode(errors="replace")
    if text.lstrip().startswith("<"):
        return (), Body.PAGE
    if not text.strip():
        return (), Body.CUT
    items: list[Item] = []
    try:
        for _, _, value in elements(text):
            if isinstance(value, dict):
                items.append(_item(value))
    except CutResponseError:
        return tuple(items), Body.CUT
    except (BadResponseError, RecursionError):
        return (), Body.OTHER
    return tuple(items), Body.WHOLE


def _item(value: dict[str, Any]) -> Item:
    detail = _at(value, "source", "detail")
    id_ = value.get("id")
    return Item(
        id_ if isinstance(id_, str) else _integer(id_),
        _integer(value.get("timestamp")),
        _integer(_at(detail, "activation", "stamp", "time")),
        _integer(_at(detail, "activation", "id")),
        _text(_at(detail, "link", "type")),
        _text(_at(detail, "bounce", "analysis", "verdict")),
    )


def _at(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _may_go_on(answer: Answer | NoAnswer, *, refused_feed: bool = False) -> bool:
    """Whether more questions make sense: a refusal by one feed says nothing of the others, unless it is the rate."""
    if isinstance(answer, NoAnswer):
        return False
    if answer.refusal is None:
        return refused_feed or answer.usable
    return refused_feed and answer.status not in (401, 429)


# --- The questions --------------------------------------------------------------------------------


def _path(kind: EventKind, found: Survey) -> str | None:
    """The feed's path, of the notification with the most events so far where there is one for each; None without."""
    if not kind.per_notification:
        return kind.path
    seen = [item.notification for answer in found.answers for item in answer.items if item.notification is not None]
    assert isinstance(found.notifications, Answer)
    listed = [item.id for item in found.notifications.items if isinstance(item.id, int)]
    known = [one for one in seen if one in listed]
    one = max(known, key=known.count) if known else max(listed, default=None)
    return None if one is None else kind.path.format(id=one)


def _newest(client: NP6Client, kind: EventKind, path: str, now: Now) -> Answer | NoAnswer:
    """The newest events of the last day; of the last month where there are none."""
    for days in _FIRST_LOOK_DAYS:
        start = _ms(now() - timedelta(days=days))
        answer = ask(client, path, {kind.start_parameter: str(start), "sort": "desc"}, now)
        if isinstance(answer, NoAnswer) or not (answer.body is Body.WHOLE and not answer.items):
            break
    return answer


def _fullest(found: Survey) -> tuple[EventKind, Answer] | None:
    """The feed of reactions with the most events; the first of them where several have as many; None without any."""
    full: list[tuple[EventKind, Answer]] = []
    for kind in KINDS:
        answer = found.feeds.get(kind.asset)
        if isinstance(answer, Answer) and answer.usable and _times(answer) and not kind.per_notification:
            full.append((kind, answer))
    return max(full, key=lambda pair: len(pair[1].items), default=None)


def _ask_window(client: NP6Client, kind: EventKind, newest: Answer, now: Now) -> Window:
    """Ask for the older half of the events that are known: what the end leaves out is known to be there."""
    times = sorted(set(_times(newest)))
    end = times[len(times) // 2]
    start = times[0] if times[0] < end else end - 1000
    parameters = {kind.start_parameter: str(start), kind.end_parameter: str(end), "sort": "asc"}
    return Window(kind.asset, start, end, newest.items, ask(client, kind.path, parameters, now))


def _watch(client: NP6Client, kind: EventKind, now: Now, wait: Callable[[float], None], seconds: int) -> Iterator[Look]:
    """Look for the newest events again and again, for so long."""
    if not seconds:
        return
    start = _ms(now() - timedelta(days=1))
    for turn in range(int(seconds // LOOK_EVERY_SECONDS) + 1):
        if turn:
            wait(LOOK_EVERY_SECONDS)
        answer = ask(client, kind.path, {kind.start_parameter: str(start), "sort": "desc"}, now)
        if isinstance(answer, NoAnswer) or not answer.usable:
            return
        yield Look(answer.answered, answer)


def _times(answer: Answer) -> list[int]:
    return [item.timestamp for item in answer.items if item.timestamp is not None]


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _trouble(error: httpx.HTTPError) -> tuple[Trouble, str]:
    """Which trouble it is, from what the error was made of."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "certificate", cause.verify_message
        if isinstance(cause, ssl.SSLError):
            return "tls", cause.reason or "handshake failed"
        if isinstance(cause, socket.gaierror):
            return "name", cause.strerror or "name or service not known"
        if isinstance(cause, ConnectionRefusedError):
            return "refused", "connection refused"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return "timeout", "no answer in time"
    return "other", str(error) or type(error).__name__
