"""What the files and the rates must hold, worked out from the event dicts in plain Python.

No SQL, no frames, no Arrow, and nothing of np6_assets: this is the second opinion. A row is a dict with the
data contract's columns; times in it are whole milliseconds since epoch.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]
# For each kind the rows of each materialized event day; None (or absent) where a day is not materialized.
Feeds = Mapping[str, Mapping[date, Sequence[Row] | None]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")

# Column -> Arrow type, as the data contract says; text columns are "string".
COMMON_COLUMNS = {
    "event_id": "string",
    "event_time": "timestamp[ms, tz=UTC]",
    "activation_id": "int64",
    "agency": "string",
    "customer": "string",
    "activation_version": "string",
    "activation_kind": "string",
    "application_id": "string",
    "subscription_id": "string",
    "stamp_id": "string",
    "stamp_thread": "string",
    "activated_at": "timestamp[ms, tz=UTC]",
    "channel": "string",
    "urgent": "bool",
    "expires_at": "timestamp[ms, tz=UTC]",
    "receiver_type": "string",
    "receiver_id": "string",
    "receiver_unicity": "string",
    "receiver_hash": "string",
}
OWN_COLUMNS = {
    "hits": {"link_type": "string", "link_label": "string", "link_uri": "string"},
    "optouts": {"optout_type": "string", "optout_channel": "string"},
    "bounces": {
        "bounce_status": "string",
        "bounce_verdict": "string",
        "bounce_subject": "string",
        "bounce_reason": "string",
    },
    "impressions": {},
    "activations": {},
}
GRAIN = ("agency", "customer", "activation_id", "activation_version", "application_id")
RATE_COLUMNS = {
    "agency": "string",
    "customer": "string",
    "activation_id": "int64",
    "activation_version": "string",
    "application_id": "string",
    "activations": "int64",
    "bounces_hard": "int64",
    "bounces_soft": "int64",
    "bounces_other": "int64",
    "bounced": "int64",
    "delivered": "int64",
    "hit_activations": "int64",
    "hits": "int64",
    "other_hits": "int64",
    "optout_activations": "int64",
    "impression_activations": "int64",
    "reacting_activations": "int64",
    "orphan_reactions": "int64",
    "hit_rate": "double",
    "optout_rate": "double",
    "bounce_rate": "double",
    "hard_bounce_rate": "double",
    "impression_rate": "double",
    "hit_rate_low": "double",
    "hit_rate_high": "double",
    "hits_per_hit_activation": "double",
    "hit_share": "double",
    "optout_share": "double",
    "bounce_share": "double",
    "window_days": "int32",
    "days_loaded": "int32",
    "is_final": "bool",
}


def columns(kind: str) -> dict[str, str]:
    """The columns of an event asset's files, in order, with their Arrow types."""
    return {**COMMON_COLUMNS, **OWN_COLUMNS[kind]}


# --- days --------------------------------------------------------------------------------------------------


def day_bounds(day: date, tz: str) -> tuple[int, int]:
    """First millisecond of the calendar day and of the next one; 23 or 25 hours apart where clocks change."""
    return _midnight_ms(day, tz), _midnight_ms(day + timedelta(days=1), tz)


def _midnight_ms(day: date, tz: str) -> int:
    return (datetime.combine(day, time(), ZoneInfo(tz)).astimezone(UTC) - _EPOCH) // _MS


def day_of(ms: int, tz: str) -> date:
    """The calendar day on which an instant falls."""
    return (_EPOCH + ms * _MS).astimezone(ZoneInfo(tz)).date()


# --- rows --------------------------------------------------------------------------------------------------


class DoesNotFit(ValueError):  # noqa: N818 -- it is no error, it is what quarantine is for
    """The event cannot be given the contract's shape; the text says why."""


def expected_rows(
    kind: str,
    events: Iterable[Any],
    window_start_ms: int,
    window_end_ms: int,
    contact_data: str = "drop",
    pseudonym_key: str | bytes | None = None,
) -> list[Row]:
    """Rows of the events that fit and lie in the half-open window: by (event_time, event_id), ids once."""
    rows: dict[str, Row] = {}
    for event in events:
        try:
            row = row_of(kind, event, contact_data, pseudonym_key)
        except DoesNotFit:
            continue
        if not window_start_ms <= row["event_time"] < window_end_ms:
            continue
        seen = rows.setdefault(row["event_id"], row)
        assert seen == row, f"two different events of one id {row['event_id']}: nobody can say which one counts"
    return sorted(rows.values(), key=lambda row: (row["event_time"], row["event_id"]))


def expected_misfits(kind: str, events: Iterable[Any]) -> list[Any]:
    """Those of the events that cannot be given the shape, as they are."""
    return [event for event in events if why_not(kind, event) is not None]


def why_not(kind: str, event: Any) -> str | None:
    """Why the event does not fit; None when it does."""
    try:
        row_of(kind, event, "keep", None)
    except DoesNotFit as reason:
        return str(reason)
    return None


def row_of(kind: str, event: Any, contact_data: str, pseudonym_key: str | bytes | None) -> Row:
    """The event in the contract's shape.

    Raises:
        DoesNotFit: no id, no timestamp, no activation.id, or a field of another type.
    """
    if not isinstance(event, dict):
        raise DoesNotFit("not an object")
    identity = _object(event, "identity")
    detail = _object(_object(event, "source"), "detail")
    activation = _object(detail, "activation")
    stamp = _object(activation, "stamp")
    receiver = _object(activation, "receiver")
    contact = _object(receiver, "value")

    def personal(value: str | None) -> str | None:
        return _personal(value, contact_data, pseudonym_key)

    return {
        "event_id": _needed(_text(event, "id"), "id"),
        "event_time": _needed(_integer(event, "timestamp"), "timestamp"),
        "activation_id": _needed(_integer(activation, "id"), "activation.id"),
        "agency": _text(identity, "agency"),
        "customer": _text(identity, "customer"),
        "activation_version": _text(activation, "version"),
        "activation_kind": _text(activation, "kind"),
        "application_id": _text(activation, "application"),
        "subscription_id": _text(activation, "subscription"),
        "stamp_id": _text(stamp, "id"),
        "stamp_thread": _text(stamp, "thread"),
        "activated_at": _integer(stamp, "time"),
        "channel": _text(activation, "channel"),
        "urgent": _boolean(activation, "urgent"),
        "expires_at": _expiration(activation),
        "receiver_type": _text(receiver, "type"),
        "receiver_id": _text(contact, "id"),
        "receiver_unicity": personal(_text(contact, "unicity")),
        "receiver_hash": personal(_text(contact, "hash")),
        **_own(kind, detail),
    }


def _own(kind: str, detail: dict[str, Any]) -> Row:
    if kind == "hits":
        link = _object(detail, "link")
        return {f"link_{name}": _text(link, name) for name in ("type", "label", "uri")}
    if kind == "optouts":
        optout = _object(detail, "optout")
        return {f"optout_{name}": _text(optout, name) for name in ("type", "channel")}
    if kind == "bounces":
        bounce = _object(detail, "bounce")
        analysis = _object(bounce, "analysis")
        subject, reason = _subject(analysis)
        return {
            "bounce_status": _text_or_json(bounce.get("status")),
            "bounce_verdict": _text(analysis, "verdict"),
            "bounce_subject": subject,
            "bounce_reason": reason,
        }
    return {}


def _subject(analysis: dict[str, Any]) -> tuple[str | None, str | None]:
    if isinstance(analysis.get("subject"), str):
        return analysis["subject"], None
    subject = _object(analysis, "subject")
    return _text(subject, "type"), _text(_object(subject, "detail"), "type")


def _text_or_json(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _object(box: dict[str, Any], name: str) -> dict[str, Any]:
    value = box.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DoesNotFit(f"{name} is not an object")
    return value


def _typed(box: dict[str, Any], name: str, wanted: type) -> Any:
    value = box.get(name)
    # type(), not isinstance(): True is no number here.
    if value is not None and type(value) is not wanted:
        raise DoesNotFit(f"{name} is not {wanted.__name__}")
    return value


def _text(box: dict[str, Any], name: str) -> str | None:
    value: str | None = _typed(box, name, str)
    return value


def _boolean(box: dict[str, Any], name: str) -> bool | None:
    value: bool | None = _typed(box, name, bool)
    return value


def _integer(box: dict[str, Any], name: str) -> int | None:
    value: int | None = _typed(box, name, int)
    if value is not None and not -(2**63) <= value < 2**63:
        raise DoesNotFit(f"{name} is beyond int64")
    return value


def _needed(value: Any, name: str) -> Any:
    if value is None:
        raise DoesNotFit(f"no {name}")
    return value


def _expiration(activation: dict[str, Any]) -> int | None:
    text = _text(activation, "expiration")
    if text is None or text == "0001-01-01T00:00:00Z":
        return None
    match = _ISO.fullmatch(text)
    if match is None:
        raise DoesNotFit("expiration is not a time")
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        raise DoesNotFit("expiration is not a time") from None
    return (moment - _EPOCH) // _MS + int(f"{fraction or '0':<03}"[:3])


def _personal(value: str | None, contact_data: str, pseudonym_key: str | bytes | None) -> str | None:
    if value is None or contact_data == "drop":
        return None
    if contact_data == "keep":
        return value
    assert contact_data == "pseudonymize", contact_data
    assert pseudonym_key, "pseudonymize needs a key"
    key = pseudonym_key.encode() if isinstance(pseudonym_key, str) else pseudonym_key
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()


# --- rates -------------------------------------------------------------------------------------------------

_WORST_FIRST = ("hard", "soft")
_WILSON_Z = 1.959963984540054  # 95 %


def expected_rates(
    activation_day: date,
    tz: str,
    window_days: int,
    feeds: Feeds,
    closed: Callable[[str, date], bool] = lambda kind, day: True,
) -> list[Row]:
    """The rows of `reactivity_rates` for one activation day, by grain (nulls last).

    Args:
        activation_day: the cohort.
        tz: IANA name of the zone that days are in.
        window_days: how many days after the activation day a reaction still counts.
        feeds: for each kind, the rows of every materialized event day (any rows of other days are not read).
        closed: whether a materialized event day of a kind was fetched long enough after its end.

    Returns:
        One dict a row: `activation_date` (a date) and every column of RATE_COLUMNS.
    """
    window = [activation_day + timedelta(days=after) for after in range(window_days + 1)]

    def has(kind: str, day: date) -> bool:
        return feeds.get(kind, {}).get(day) is not None

    def grouped(kind: str, days: Iterable[date]) -> dict[tuple[Any, ...], list[Row]]:
        """The cohort's events of a kind by grain, each event id once however many days it is in."""
        once: dict[str, Row] = {}
        for day in days:
            for row in feeds.get(kind, {}).get(day) or ():
                once.setdefault(row["event_id"], row)
        groups = defaultdict(list)
        for row in once.values():
            placed_by = row["event_time"] if row["activated_at"] is None else row["activated_at"]
            # the window is for reactions; of sends only the days that are read matter
            in_time = kind == "activations" or day_of(row["event_time"], tz) <= window[-1]
            if in_time and day_of(placed_by, tz) == activation_day:
                groups[tuple(row[column] for column in GRAIN)].append(row)
        return groups

    sent = grouped("activations", [activation_day, activation_day + timedelta(days=1)])
    reactions = {kind: grouped(kind, window) for kind in ("hits", "optouts", "bounces", "impressions")}
    knows_sends = has("activations", activation_day)
    knows_impressions = has("impressions", activation_day)
    feeds_of_reactions = ("hits", "optouts", "bounces")
    days_loaded = sum(all(has(kind, day) for kind in feeds_of_reactions) for day in window)
    needed = [("activations", day) for day in (activation_day, activation_day + timedelta(days=1))]
    needed += [(kind, day) for kind in feeds_of_reactions for day in window]
    is_final = all(has(kind, day) and closed(kind, day) for kind, day in needed)

    rows = []
    for grain in set(sent).union(*reactions.values()):
        counts = _counts(
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
                **_rates(counts),
                "window_days": window_days,
                "days_loaded": days_loaded,
                "is_final": is_final,
            }
        )
    rows.sort(key=lambda row: [(row[name] is None, 0 if row[name] is None else row[name]) for name in GRAIN])
    return [{name: row[name] for name in ("activation_date", *RATE_COLUMNS)} for row in rows]


def _send(row: Row) -> tuple[Any, ...]:
    """What makes two events ones of the same send; an event without stamp.id is its own."""
    if row["stamp_id"] is None:
        return ("event", row["event_id"])
    return ("stamp", row["stamp_id"], row["subscription_id"])


def _counts(
    sent: list[Row] | None,
    hits: list[Row],
    optouts: list[Row],
    bounces: list[Row],
    impressions: list[Row] | None,
) -> Row:
    redirections = [row for row in hits if row["link_type"] == "redirection"]
    hit_sends = {_send(row) for row in redirections}
    optout_sends = {_send(row) for row in optouts}
    verdicts = defaultdict(set)
    for row in bounces:
        verdicts[_send(row)].add(row["bounce_verdict"])
    worst = [next((word for word in _WORST_FIRST if word in said), "other") for said in verdicts.values()]
    reacting = hit_sends | optout_sends | set(verdicts)
    sends = None if sent is None else {_send(row) for row in sent}
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
        "impression_activations": None if impressions is None else len({_send(row) for row in impressions}),
        "reacting_activations": len(reacting),
        "orphan_reactions": None if sends is None else len(reacting - sends),
    }


def _rates(counts: Row) -> Row:
    delivered, hit = counts["delivered"], counts["hit_activations"]
    low, high = wilson(hit, delivered)
    return {
        "hit_rate": _ratio(hit, delivered),
        "optout_rate": _ratio(counts["optout_activations"], delivered),
        "bounce_rate": _ratio(counts["bounced"], counts["activations"]),
        "hard_bounce_rate": _ratio(counts["bounces_hard"], counts["activations"]),
        "impression_rate": _ratio(counts["impression_activations"], delivered),
        "hit_rate_low": low,
        "hit_rate_high": high,
        "hits_per_hit_activation": _ratio(counts["hits"], hit),
        "hit_share": _ratio(hit, counts["reacting_activations"]),
        "optout_share": _ratio(counts["optout_activations"], counts["reacting_activations"]),
        "bounce_share": _ratio(counts["bounced"], counts["reacting_activations"]),
    }


def _ratio(numerator: int | None, denominator: int | None) -> float | None:
    if numerator is None or not denominator:
        return None
    return numerator / denominator


def wilson(successes: int, trials: int | None) -> tuple[float | None, float | None]:
    """The Wilson score interval, 95 %; nulls without trials, or with more successes than trials."""
    if not trials or successes > trials:
        return None, None
    share, z = successes / trials, _WILSON_Z
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    return centre - half, centre + half
