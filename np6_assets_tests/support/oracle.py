"""Compute the expected files and rates in plain Python, independently of the code under test.

A row is a dict with the data contract's columns; its times are whole milliseconds since epoch.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]
# For each kind the rows of each event day; None, or no entry, for a day that is not materialized.
Feeds = Mapping[str, Mapping[date, Sequence[Row] | None]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


def _read_columns(*lines: str) -> dict[str, str]:
    """Read columns with their Arrow types: each line has a type and the columns of it, in order."""
    return {column: type_ for type_, *columns in map(str.split, lines) for column in columns}


_TIME = "timestamp[ms, tz=UTC]"

# column -> Arrow type, as the data contract says
COMMON_COLUMNS = {
    **_read_columns("string event_id"),
    "event_time": _TIME,
    **_read_columns(
        "int64 activation_id",
        "string agency customer activation_version activation_kind application_id subscription_id",
        "string stamp_id stamp_thread",
    ),
    "activated_at": _TIME,
    **_read_columns("string channel", "bool urgent"),
    "expires_at": _TIME,
    **_read_columns("string receiver_type receiver_id receiver_unicity receiver_hash"),
}
OWN_COLUMNS = {
    "hits": _read_columns("string link_type link_label link_uri"),
    "optouts": _read_columns("string optout_type optout_channel"),
    "bounces": _read_columns("string bounce_status bounce_verdict bounce_subject bounce_reason"),
    "impressions": {},
    "activations": {},
}
GRAIN = ("agency", "customer", "activation_id", "activation_version", "application_id")
RATE_COLUMNS = _read_columns(
    "string agency customer",
    "int64 activation_id",
    "string activation_version application_id",
    "int64 activations bounces_hard bounces_soft bounces_other bounced delivered hit_activations hits other_hits",
    "int64 optout_activations impression_activations reacting_activations orphan_reactions",
    "double hit_rate optout_rate bounce_rate hard_bounce_rate impression_rate hit_rate_low hit_rate_high",
    "double hits_per_hit_activation hit_share optout_share bounce_share",
    "int32 window_days days_loaded",
    "string status",
    "bool is_final",
)


def list_columns(kind: str) -> dict[str, str]:
    """Return the columns of an event asset's files, in order, with their Arrow types."""
    return {**COMMON_COLUMNS, **OWN_COLUMNS[kind]}


# --- days --------------------------------------------------------------------------------------------------


def compute_day_bounds(day: date, tz: str) -> tuple[int, int]:
    """Return the first millisecond of a calendar day and of the next one."""
    return _compute_midnight(day, tz), _compute_midnight(day + timedelta(days=1), tz)


def _compute_midnight(day: date, tz: str) -> int:
    return (datetime.combine(day, time(), ZoneInfo(tz)).astimezone(UTC) - _EPOCH) // _MS


def parse_day(ms: int, tz: str) -> date:
    """Return the calendar day of an instant."""
    return (_EPOCH + ms * _MS).astimezone(ZoneInfo(tz)).date()


# --- rows --------------------------------------------------------------------------------------------------

# Column -> path of its value in an event.
_DETAIL = ("source", "detail")
_ACTIVATION = (*_DETAIL, "activation")
_RECEIVER = (*_ACTIVATION, "receiver")
_SUBJECT = (*_DETAIL, "bounce", "analysis", "subject")
_COMMON_PATHS: dict[str, tuple[str, ...]] = {
    "event_id": ("id",),
    "event_time": ("timestamp",),
    "activation_id": (*_ACTIVATION, "id"),
    "agency": ("identity", "agency"),
    "customer": ("identity", "customer"),
    "activation_version": (*_ACTIVATION, "version"),
    "activation_kind": (*_ACTIVATION, "kind"),
    "application_id": (*_ACTIVATION, "application"),
    "subscription_id": (*_ACTIVATION, "subscription"),
    "stamp_id": (*_ACTIVATION, "stamp", "id"),
    "stamp_thread": (*_ACTIVATION, "stamp", "thread"),
    "activated_at": (*_ACTIVATION, "stamp", "time"),
    "channel": (*_ACTIVATION, "channel"),
    "urgent": (*_ACTIVATION, "urgent"),
    "expires_at": (*_ACTIVATION, "expiration"),
    "receiver_type": (*_RECEIVER, "type"),
    "receiver_id": (*_RECEIVER, "value", "id"),
    "receiver_unicity": (*_RECEIVER, "value", "unicity"),
    "receiver_hash": (*_RECEIVER, "value", "hash"),
}
_OWN_PATHS: dict[str, dict[str, tuple[str, ...]]] = {
    "hits": {f"link_{name}": (*_DETAIL, "link", name) for name in ("type", "label", "uri")},
    "optouts": {f"optout_{name}": (*_DETAIL, "optout", name) for name in ("type", "channel")},
    "bounces": {
        "bounce_status": (*_DETAIL, "bounce", "status"),
        "bounce_verdict": (*_DETAIL, "bounce", "analysis", "verdict"),
        "bounce_subject": (*_SUBJECT, "type"),
        "bounce_reason": (*_SUBJECT, "detail", "type"),
    },
    "impressions": {},
    "activations": {},
}
_REQUIRED = ("event_id", "event_time", "activation_id")
# An event in which one of these cannot be read is rejected.
_RATE_INPUTS = frozenset(
    (
        *_REQUIRED,
        *("agency", "customer", "activation_version", "application_id", "subscription_id"),
        *("stamp_id", "activated_at", "link_type", "bounce_verdict"),
    )
)
_PERSONAL = ("receiver_unicity", "receiver_hash")
_NO_EXPIRATION_MS = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MS


class Rejected(ValueError):  # noqa: N818 -- not an error of the caller
    """The event is rejected; the text says why."""


class _Unreadable(ValueError):  # noqa: N818 -- caught in this module
    """The value does not fit its column."""


def expect_rows(
    kind: str,
    events: Iterable[Any],
    window_start_ms: int,
    window_end_ms: int,
    contact_data: str = "drop",
    pseudonym_key: str | bytes | None = None,
) -> list[Row]:
    """Compute the rows of a half-open window, sorted by (event_time, event_id), each id once.

    Of two versions of an id the earlier counts; versions of one time must be equal.
    """
    rows: dict[str, Row] = {}
    for event in events:
        at = read_event_time(event)
        if at is None or not window_start_ms <= at < window_end_ms:
            continue
        try:
            row = build_row(kind, event, contact_data, pseudonym_key)
        except Rejected:
            continue
        seen = rows.setdefault(row["event_id"], row)
        if row["event_time"] < seen["event_time"]:
            rows[row["event_id"]] = row
        elif row["event_time"] == seen["event_time"]:
            assert seen == row, f"two versions of {row['event_id']} at one time"
    return sorted(rows.values(), key=lambda row: (row["event_time"], row["event_id"]))


def expect_feeds(population: Any, days: Iterable[date], tz: str) -> dict[str, dict[date, list[Row] | None]]:
    """Compute the rows of some days of every feed of a population."""
    days = list(days)
    return {
        kind: {day: expect_rows(kind, population.feed(kind), *compute_day_bounds(day, tz)) for day in days}
        for kind in OWN_COLUMNS
    }


def expect_rejected(kind: str, events: Iterable[Any]) -> list[Any]:
    """Return the events that are rejected."""
    return [event for event in events if find_reason(kind, event) is not None]


def find_reason(kind: str, event: Any) -> str | None:
    """Return why an event is rejected; None if it is stored."""
    try:
        _read(kind, event)
    except Rejected as reason:
        return str(reason)
    return None


def build_row(kind: str, event: Any, contact_data: str, pseudonym_key: str | bytes | None) -> Row:
    """Build the event's row. Raises Rejected."""
    row, _ = _read(kind, event)
    return {
        name: _treat_contact_data(value, contact_data, pseudonym_key) if name in _PERSONAL else value
        for name, value in row.items()
    }


def count_unreadable(kind: str, event: Any) -> Counter[str]:
    """Count the columns that are null because their values cannot be read. Raises Rejected."""
    return _read(kind, event)[1]


def _read(kind: str, event: Any) -> tuple[Row, Counter[str]]:
    if not isinstance(event, dict):
        raise Rejected("not an object")
    row: Row = {}
    unread: Counter[str] = Counter()
    for column, path in {**_COMMON_PATHS, **_OWN_PATHS[kind]}.items():
        try:
            row[column] = _READERS.get(column, _read_text)(column, _find(event, path))
        except _Unreadable as reason:
            if column in _RATE_INPUTS:
                raise Rejected(f"{column}: {reason}") from None
            row[column] = None
            unread[column] += 1
    for column in _REQUIRED:
        if row[column] in (None, ""):
            raise Rejected(f"{column} is missing")
    return row, unread


def _find(event: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Return the value at a path; None below a parent that is null or missing."""
    value: Any = event
    for place, name in enumerate(path):
        if value is None:
            return None
        if not isinstance(value, dict):
            return _find_in_text(event, path[:place], value, name)
        value = value.get(name)
    return value


def _find_in_text(event: dict[str, Any], parent: tuple[str, ...], value: Any, name: str) -> Any:
    """Return the field `name` of a parent that is a text, as a receiver's value or a subject may be."""
    if isinstance(value, str) and parent == (*_RECEIVER, "value"):
        is_id = _find(event, (*_RECEIVER, "type")) == "id"
        return value if name == ("id" if is_id else "unicity") else None
    if isinstance(value, str) and parent == _SUBJECT:
        return value if name == "type" else None
    raise _Unreadable(f"{'.'.join(parent)} is not an object")


def _read_text(column: str, value: Any) -> str | None:
    """Return a text unchanged, any other value as its JSON text."""
    if value is None:
        return None
    if isinstance(value, dict | list) and column in _RATE_INPUTS:
        raise _Unreadable("an object or list")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Unreadable("a lone surrogate") from None
    return text


def _read_whole_number(column: str, value: Any) -> int | None:
    """Read an int64 that is written exactly, as a number or a text."""
    if value is None:
        return None
    if isinstance(value, bool | dict | list):
        raise _Unreadable("not a number")
    text = value if isinstance(value, str) else json.dumps(value)
    match = re.fullmatch(r"(-?)(0|[1-9][0-9]*)(\.0+)?", text)
    if match is None or len(match[2]) > (15 if match[3] else 19):
        raise _Unreadable("not a whole number")
    number = int(match[1] + match[2])
    if not -(2**63) <= number < 2**63:
        raise _Unreadable("beyond int64")
    return number


def _read_time(column: str, value: Any) -> int | None:
    """Read milliseconds from a whole number of seconds, ms, microseconds or nanoseconds, detected by size."""
    number = _read_whole_number(column, value)
    if number is None or number <= 0:
        return None
    if number < 10**11:
        return number * 1000
    if number < 10**14:
        return number
    return number // (1000 if number < 10**17 else 10**6)


def _read_boolean(column: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise _Unreadable("not a boolean")


def _read_expiration(column: str, value: Any) -> int | None:
    if value is None:
        return None
    match = _ISO.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _Unreadable("not a time")
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        raise _Unreadable("not a time") from None
    ms = (moment - _EPOCH) // _MS + int(f"{fraction or '0':<03}"[:3])
    return None if ms == _NO_EXPIRATION_MS else ms


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "event_time": _read_time,
    "activation_id": _read_whole_number,
    "activated_at": _read_time,
    "urgent": _read_boolean,
    "expires_at": _read_expiration,
}


def _treat_contact_data(value: str | None, contact_data: str, pseudonym_key: str | bytes | None) -> str | None:
    if value is None or contact_data == "drop":
        return None
    if contact_data == "keep":
        return value
    assert contact_data == "pseudonymize", contact_data
    assert pseudonym_key, "pseudonymize needs a key"
    key = pseudonym_key.encode() if isinstance(pseudonym_key, str) else pseudonym_key
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()


# --- single fields -----------------------------------------------------------------------------------------


def read_event_time(event: Any) -> int | None:
    """Return when the event was published, ms since epoch; None if unreadable."""
    return _read_column("event_time", event)


def read_activated_at(event: Any) -> int | None:
    """Return the time of the event's send, ms since epoch; None if unreadable."""
    return _read_column("activated_at", event)


def read_activation_id(event: Any) -> int | None:
    """Return the event's notification id; None if unreadable."""
    return _read_column("activation_id", event)


def _read_column(column: str, event: Any) -> int | None:
    if not isinstance(event, dict):
        return None
    try:
        value: int | None = _READERS[column](column, _find(event, _COMMON_PATHS[column]))
    except _Unreadable:
        return None
    return value


# --- quarantine --------------------------------------------------------------------------------------------

QUARANTINE_COLUMNS = {"reason": "string", "event": "string", "event_key": "string"}


def parse(raw: bytes) -> Any:
    """Parse JSON text (RFC 8259); an integer of thousands of digits becomes a float.

    Raises ValueError if it is not JSON, not UTF-8, or nested too deeply for Python.
    """
    try:
        return json.loads(raw.decode(), parse_int=_parse_integer, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 1000 else float(digits)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def compute_event_key(event_or_raw: Any) -> str:
    """Compute the key of a rejected event (bytes, or a value): its id if a text or number, else its SHA-256 in hex."""
    if isinstance(event_or_raw, bytes):
        raw = event_or_raw
        try:
            event = parse(raw)
        except ValueError:
            event = None
    else:
        event = event_or_raw
        raw = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    id_ = event.get("id") if isinstance(event, dict) else None
    if isinstance(id_, str) and id_:
        return id_
    if isinstance(id_, int | float) and not isinstance(id_, bool):
        return json.dumps(id_)
    return hashlib.sha256(raw).hexdigest()


# --- rates -------------------------------------------------------------------------------------------------

# rate: the counts that it is of
RATES = {
    "hit_rate": ("hit_activations", "delivered"),
    "optout_rate": ("optout_activations", "delivered"),
    "bounce_rate": ("bounced", "activations"),
    "hard_bounce_rate": ("bounces_hard", "activations"),
    "impression_rate": ("impression_activations", "delivered"),
    "hits_per_hit_activation": ("hits", "hit_activations"),
    "hit_share": ("hit_activations", "reacting_activations"),
    "optout_share": ("optout_activations", "reacting_activations"),
    "bounce_share": ("bounced", "reacting_activations"),
}
_WILSON_Z = 1.959963984540054  # 95 %


def expect_rates(
    activation_day: date,
    tz: str,
    window_days: int,
    feeds: Feeds,
    closed: Callable[[str, date], bool] = lambda kind, day: True,
    *,
    due_ms: int = 0,
    missing_ids: Mapping[tuple[str, date], Collection[int]] | None = None,
) -> list[Row]:
    """Compute the rows of `reactivity_rates` for one activation day, by grain (nulls last).

    `feeds` has the rows of every materialized event day by kind; `closed` tells whether such a day is closed; `due_ms`
    is the newest watermark less the lookback; `missing_ids` are the notifications that could not be fetched.
    """
    window = [activation_day + timedelta(days=after) for after in range(window_days + 1)]

    def is_stored(kind: str, day: date) -> bool:
        return feeds.get(kind, {}).get(day) is not None

    def group_cohort(kind: str, days: Iterable[date]) -> dict[tuple[Any, ...], list[Row]]:
        """Group the cohort's events of a kind by grain, each event id once."""
        once: dict[str, Row] = {}
        for day in days:
            for row in feeds.get(kind, {}).get(day) or ():
                once.setdefault(row["event_id"], row)
        groups = defaultdict(list)
        for row in once.values():
            placed_by = row["event_time"] if row["activated_at"] is None else row["activated_at"]
            if parse_day(row["event_time"], tz) <= window[-1] and parse_day(placed_by, tz) == activation_day:
                groups[tuple(row[column] for column in GRAIN)].append(row)
        return groups

    sent = group_cohort("activations", window)
    reactions = {kind: group_cohort(kind, window) for kind in ("hits", "optouts", "bounces", "impressions")}
    knows_sends = is_stored("activations", activation_day)
    knows_impressions = is_stored("impressions", activation_day)
    feeds_of_reactions = ("hits", "optouts", "bounces")
    days_loaded = sum(all(is_stored(kind, day) for kind in feeds_of_reactions) for day in window)
    needed = [(kind, day) for kind in ("activations", *feeds_of_reactions) for day in window]
    not_closed = [day for kind, day in needed if not (is_stored(kind, day) and closed(kind, day))]
    is_overdue = any(compute_day_bounds(day, tz)[1] < due_ms for day in not_closed)
    # a day that is not due may still get them, unless all days are closed
    unknown_ids = {
        id_
        for kind, day in needed
        if not not_closed or compute_day_bounds(day, tz)[1] < due_ms
        for id_ in (missing_ids or {}).get((kind, day), ())
    }

    rows = []
    for grain in set(sent).union(*reactions.values()):
        is_incomplete = is_overdue or grain[GRAIN.index("activation_id")] in unknown_ids
        status = "incomplete" if is_incomplete else "open" if not_closed else "final"
        counts = _compute_counts(
            sent[grain] if knows_sends else None,
            reactions["hits"][grain],
            reactions["optouts"][grain],
            reactions["bounces"][grain],
            reactions["impressions"][grain] if knows_impressions else None,
        )
        rows.append(
            {
                "activation_date": activation_day,
                **dict(zip(GRAIN, grain, strict=True)),
                **counts,
                **_compute_rates(counts),
                "window_days": window_days,
                "days_loaded": days_loaded,
                "status": status,
                "is_final": status == "final",
            }
        )
    rows.sort(key=lambda row: [(row[name] is None, 0 if row[name] is None else row[name]) for name in GRAIN])
    return [{name: row[name] for name in ("activation_date", *RATE_COLUMNS)} for row in rows]


def _identify_send(row: Row) -> tuple[Any, ...]:
    """Return what events of the same send share; an event without stamp.id is its own send."""
    if row["stamp_id"] is None:
        return ("event", row["event_id"])
    return ("stamp", row["stamp_id"], row["subscription_id"])


def _compute_counts(
    sent: list[Row] | None,
    hits: list[Row],
    optouts: list[Row],
    bounces: list[Row],
    impressions: list[Row] | None,
) -> Row:
    redirections = [row for row in hits if row["link_type"] == "redirection"]
    hit_sends = {_identify_send(row) for row in redirections}
    optout_sends = {_identify_send(row) for row in optouts}
    verdicts = defaultdict(set)
    for row in bounces:
        verdicts[_identify_send(row)].add(row["bounce_verdict"])
    worst = [next((word for word in ("hard", "soft") if word in found), "other") for found in verdicts.values()]
    reacting = hit_sends | optout_sends | set(verdicts)
    sends = None if sent is None else {_identify_send(row) for row in sent}
    return {
        "activations": None if sends is None else len(sends),
        "bounces_hard": worst.count("hard"),
        "bounces_soft": worst.count("soft"),
        "bounces_other": worst.count("other"),
        "bounced": len(worst),
        "delivered": None if sends is None else max(0, len(sends) - len(worst)),
        "hit_activations": len(hit_sends),
        "hits": len(redirections),
        "other_hits": len(hits) - len(redirections),
        "optout_activations": len(optout_sends),
        "impression_activations": None if impressions is None else len({_identify_send(row) for row in impressions}),
        "reacting_activations": len(reacting),
        "orphan_reactions": None if sends is None else len(reacting - sends),
    }


def _compute_rates(counts: Row) -> Row:
    rates = {rate: _divide(counts[part], counts[whole]) for rate, (part, whole) in RATES.items()}
    low, high = compute_wilson(counts["hit_activations"], counts["delivered"])
    return {**rates, "hit_rate_low": low, "hit_rate_high": high}


def _divide(numerator: int | None, denominator: int | None) -> float | None:
    if numerator is None or not denominator:
        return None
    return numerator / denominator


def compute_wilson(successes: int, trials: int | None) -> tuple[float | None, float | None]:
    """Compute the 95 % Wilson score interval; nulls without trials, or with more successes than trials."""
    if not trials or successes > trials:
        return None, None
    share, z = successes / trials, _WILSON_Z
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    return centre - half, centre + half
