"""The doctor's requests: one attempt each, of whose answer the beginning is read.

What belongs here: HTTP, and what is kept of a response (nothing about a contact). What it means is judged elsewhere.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx

from np6_assets.np6.bodies import decompress, join_pieces
from np6_assets.np6.connection import Connection
from np6_assets.np6.errors import BadResponseError
from np6_assets.np6.retry import parse_http_date
from np6_assets.np6.stream import ArrayScanner, find_elements
from np6_assets.np6.timestamps import to_milliseconds
from np6_assets.np6.unreachable import ConnectionProblem, classify_error

BODY_BYTES = 2**18
"""How much of a body is read, decompressed: some 300 events."""

LONGEST_BODY = timedelta(seconds=20)
_CHUNK_BYTES = 2**14

Now = Callable[[], datetime]


@dataclass(frozen=True)
class Item:
    """What is kept of an element of an array: an event, or a notification, which has an id alone.

    Times are in ms, 0 where there is none; without its activation's time an event has its own twice.
    """

    id: str | int | None
    timestamp: int = 0
    activated: int = 0
    notification: int | None = None
    link_type: str | None = None
    bounce_verdict: str | None = None


@dataclass(frozen=True)
class Reply:
    """A response. `refusal` is one line where its status is not 200 or 204, `fault` where its body is not an array.

    `started` and `received` are this machine's time before the request and after the headers.
    """

    path: str
    status: int
    headers: Mapping[str, str]
    started: datetime
    received: datetime
    refusal: str | None = None
    tls: str | None = None
    certificate_end: datetime | None = None
    is_whole: bool = False
    fault: str = ""
    body_bytes: int = 0
    items: tuple[Item, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether its items are the beginning of an array."""
        return self.refusal is None and not self.fault

    @property
    def is_final(self) -> bool:
        """Whether the API would refuse other requests as well."""
        return self.status in (401, 429)

    @property
    def server_time(self) -> datetime | None:
        """The API's own time of the response."""
        return parse_http_date(self.headers.get("date", ""))

    @property
    def times(self) -> list[int]:
        """The timestamps of its events, in their order."""
        return [item.timestamp for item in self.items if item.timestamp]


@dataclass(frozen=True)
class NoReply:
    """There was no response, and why."""

    path: str
    trouble: ConnectionProblem
    reason: str
    usable: bool = False
    is_final: bool = True


def get(
    client: Connection,
    path: str,
    parameters: Mapping[str, str],
    now: Now,
    enough: Callable[[Reply], bool] | None = None,
) -> Reply | NoReply:
    """Send one request and read the beginning of the body, until `enough` says so of what there is by then."""
    started = now()
    try:
        with client.open(path, parameters, {"Accept-Encoding": "gzip"}) as response:
            received, error = now(), client.build_error(path, response)
            refusal = None if error is None else str(error)
            connection = response.extensions["network_stream"].get_extra_info("socket")
            tls = end = None
            if isinstance(connection, ssl.SSLSocket):
                tls, end = connection.version(), _read_end(connection.getpeercert() or {})
            reply = Reply(path, response.status_code, response.headers, started, received, refusal, tls, end)
            if reply.status == HTTPStatus.NO_CONTENT:
                return replace(reply, is_whole=True)
            return _read(reply, response, now, enough) if refusal is None else reply
    except httpx.TransportError as error:
        return NoReply(path, *classify_error(error))


def _read_end(certificate: Mapping[str, Any]) -> datetime | None:
    text = certificate.get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC) if text else None


def _read(reply: Reply, response: httpx.Response, now: Now, enough: Callable[[Reply], bool] | None) -> Reply:
    scanner, body, fault = ArrayScanner(), b"", ""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    try:
        for chunk in join_pieces(decompress(response.iter_raw(), encoding), _CHUNK_BYTES):
            scanner.feed(chunk[: BODY_BYTES - len(body)])
            body += chunk[: BODY_BYTES - len(body)]
            is_late = now() - reply.received > LONGEST_BODY
            if is_late and not scanner.events:
                fault = f"no whole event for {LONGEST_BODY.total_seconds():.0f} seconds"
            is_enough = enough is not None and enough(_with_items(reply, body, scanner.closed))
            if is_late or is_enough or len(body) == BODY_BYTES:
                break
        else:
            if not scanner.closed:
                fault = "the body ends before its array is closed" if body.strip() else "the body is empty"
    except httpx.TransportError:
        fault = "the connection broke before the body was over"
    except BadResponseError as error:
        fault = str(error)
    found = _with_items(reply, body, scanner.closed)
    fault = fault or found.fault
    return replace(found, is_whole=scanner.closed and not fault, fault=fault, body_bytes=len(body))


def _with_items(reply: Reply, body: bytes, is_closed: bool) -> Reply:
    """Add the elements that have arrived whole and are JSON objects, without those that are not."""
    text = body.partition(b"[")[2]
    text = text.rpartition(b"]")[0] if is_closed else text
    texts = [text[start:end] for start, end in find_elements(text)]
    items = []
    for one in texts if is_closed else texts[:-1]:
        with suppress(ValueError, RecursionError):
            value = json.loads(one.decode(errors="replace"))
            items += [_read_item(value)] if isinstance(value, dict) else []
    fault = ""
    if is_closed and texts and not texts[-1].strip():
        fault = "there is a comma before the end of the array"
    elif is_closed and texts and not items:
        fault = "no element of the array is a JSON object"
    return replace(reply, items=tuple(items), fault=fault)


def _read_item(value: dict[str, Any]) -> Item:
    detail = get_nested(value, "source", "detail")
    id_, time = value.get("id"), _read_time(value.get("timestamp"))
    return Item(
        id_ if isinstance(id_, str) else _read_integer(id_),
        time,
        _read_time(get_nested(detail, "activation", "stamp", "time")) or time,
        _read_integer(get_nested(detail, "activation", "id")),
        _read_text(get_nested(detail, "link", "type")),
        _read_text(get_nested(detail, "bounce", "analysis", "verdict")),
    )


def get_nested(value: Any, *names: str) -> Any:
    """Return a value of nested dicts; None where a name or a dict is missing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _read_integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_time(value: Any) -> int:
    return to_milliseconds(_read_integer(value) or 0) or 0


def _read_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
