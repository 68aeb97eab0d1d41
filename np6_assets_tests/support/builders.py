"""Build NP6 events in the exact shape of the API, and their JSON text in every legal style.

All data is invented and on example.com.
"""

from __future__ import annotations

import copy
import json
import random
import uuid
from datetime import datetime
from functools import cache
from typing import Any

Event = dict[str, Any]

KINDS = {
    "hits": "hit",
    "optouts": "optout",
    "bounces": "bounce",
    "impressions": "impression",
    "activations": "activation",
}
REACTIVITIES = ("hits", "optouts", "bounces", "impressions")

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING", "__deepcopy__": lambda self, _: self})()
NO_EXPIRATION = "0001-01-01T00:00:00Z"

_DETAIL = ("source", "detail")
_ACTIVATION = (*_DETAIL, "activation")
_RECEIVER = (*_ACTIVATION, "receiver")
_STAMP = (*_ACTIVATION, "stamp")

# Short name of each field -> its path in an event.
PATHS: dict[str, tuple[str, ...]] = {
    "type": ("type",),
    "id": ("id",),
    "timestamp": ("timestamp",),
    "identity": ("identity",),
    "agency": ("identity", "agency"),
    "customer": ("identity", "customer"),
    "source": ("source",),
    "detail": _DETAIL,
    "activation": _ACTIVATION,
    "activation_id": (*_ACTIVATION, "id"),
    "version": (*_ACTIVATION, "version"),
    "kind": (*_ACTIVATION, "kind"),
    "application": (*_ACTIVATION, "application"),
    "subscription": (*_ACTIVATION, "subscription"),
    "channel": (*_ACTIVATION, "channel"),
    "urgent": (*_ACTIVATION, "urgent"),
    "expiration": (*_ACTIVATION, "expiration"),
    "receiver": _RECEIVER,
    "receiver_type": (*_RECEIVER, "type"),
    "receiver_value": (*_RECEIVER, "value"),
    "receiver_id": (*_RECEIVER, "value", "id"),
    "unicity": (*_RECEIVER, "value", "unicity"),
    "hash": (*_RECEIVER, "value", "hash"),
    "stamp": _STAMP,
    "stamp_id": (*_STAMP, "id"),
    "stamp_time": (*_STAMP, "time"),
    "thread": (*_STAMP, "thread"),
    "link": (*_DETAIL, "link"),
    "link_type": (*_DETAIL, "link", "type"),
    "link_label": (*_DETAIL, "link", "label"),
    "link_uri": (*_DETAIL, "link", "uri"),
    "optout": (*_DETAIL, "optout"),
    "optout_type": (*_DETAIL, "optout", "type"),
    "optout_channel": (*_DETAIL, "optout", "channel"),
    "bounce": (*_DETAIL, "bounce"),
    "status": (*_DETAIL, "bounce", "status"),
    "analysis": (*_DETAIL, "bounce", "analysis"),
    "verdict": (*_DETAIL, "bounce", "analysis", "verdict"),
    "subject": (*_DETAIL, "bounce", "analysis", "subject"),
    "subject_type": (*_DETAIL, "bounce", "analysis", "subject", "type"),
    "subject_detail": (*_DETAIL, "bounce", "analysis", "subject", "detail"),
    "reason": (*_DETAIL, "bounce", "analysis", "subject", "detail", "type"),
}

# Fields beside the activation in an event of each kind.
_OTHER_FIELDS: dict[str, dict[str, Any]] = {
    "hits": {"link": {"type": "redirection", "label": None, "uri": "deeplink://product?id=594"}},
    "optouts": {"optout": {"type": "channel", "channel": "channel"}},
    "bounces": {
        "bounce": {
            "status": None,
            "analysis": {
                "verdict": "hard",
                "subject": {"type": "token", "detail": {"type": "unregistered"}},
            },
        }
    },
    "impressions": {},
    "activations": {},
}


def to_ms(moment: datetime) -> int:
    """Return milliseconds since epoch."""
    return round(moment.timestamp() * 1000)


def set_field(event: Event, name: str, value: Any) -> None:
    """Set the field called `name` (see PATHS), or remove it when the value is MISSING."""
    *parents, last = PATHS[name]
    box: Any = event
    for parent in parents:
        box = box.setdefault(parent, {})
        if not isinstance(box, dict):
            return  # a test replaced the container
    if value is MISSING:
        box.pop(last, None)
    else:
        box[last] = value


def build_event(kind: str, /, *, id: str, timestamp: int, **fields: Any) -> Event:
    """Build an event of a kind as the API's reference shows it, with some fields replaced.

    Args:
        kind: one of KINDS.
        id: uuid of the event.
        timestamp: when it was published, ms since epoch; its stamp is a second earlier unless given.
        fields: values by their names in PATHS; MISSING removes a field.
    """
    activation = {
        "id": 156,
        "version": "ecce4585-1627-4495-90fc-7bbc27d2ae26",
        "kind": "application",
        "receiver": {
            "type": "contact",
            "value": {
                "type": "footprint",
                "id": "000R4M0T",
                "unicity": "someone@example.com",
                "hash": "16d113840f999444259f73bac9ab8b10",
            },
        },
        "application": "076db4f8-4304-4b8e-b232-4820f2639a8a",
        "subscription": "65b51edb-0cc2-4fed-a6d0-2aa5a722d39a",
        "stamp": {
            "time": timestamp - 1000,
            "id": "d52055cd-e854-4177-8ef5-b10fd8d568a7",
            "thread": "a3078b19-b379-4bc2-b29a-e8229a9c9332",
        },
        "channel": "notification_channel",
        "urgent": True,
        "expiration": NO_EXPIRATION,
    }
    detail = {"activation": activation, **copy.deepcopy(_OTHER_FIELDS[kind])}
    event = {
        "type": KINDS[kind],
        "id": id,
        "timestamp": timestamp,
        "identity": {"type": "customer", "agency": "DEMO", "customer": "028"},
        "source": {"type": "notification", "detail": detail},
    }
    # Containers before their contents, removals last.
    for name in sorted(fields, key=lambda name: (fields[name] is MISSING, len(PATHS[name]))):
        set_field(event, name, fields[name])
    return event


class RawEvent(Event):
    """An event that the server sends as the bytes of `raw`; as a dict, the value of those bytes."""

    raw: bytes

    def __init__(self, event: Event, raw: bytes) -> None:
        super().__init__(event)
        self.raw = raw

    def __reduce__(self) -> tuple[Any, ...]:
        return RawEvent, (dict(self), self.raw)


def draw_uuid(rng: random.Random) -> str:
    """Draw a version 4 uuid from a seeded generator."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


# --- JSON text ---------------------------------------------------------------------------------------------


def render(value: Any, rng: random.Random | None = None) -> str:
    """Render the value as JSON text; with `rng`, in a random legal style (spaces, order, escapes)."""
    if rng is None:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    style = rng.randrange(5)
    if style == 0:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if style == 1:
        return json.dumps(value)
    if style == 2:
        return json.dumps(value, ensure_ascii=False, indent=1)
    if style == 3:
        return json.dumps(_shuffle_fields(value, rng), separators=(",", ":"))
    return _render_escaped(value, rng)


def dump_json(value: Any) -> str:
    """Render the value as JSON text with sorted fields."""
    return json.dumps(value, sort_keys=True)


def _shuffle_fields(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: _shuffle_fields(value[key], rng) for key in rng.sample(list(value), len(value))}
    if isinstance(value, list):
        return [_shuffle_fields(one, rng) for one in value]
    return value


def _render_escaped(value: Any, rng: random.Random) -> str:
    """Render JSON text in which any character of a text may be written as its escape."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}: {_render_escaped(one, rng)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_render_escaped(one, rng) for one in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(_escape(char) if rng.random() < 0.1 else _render_character(char) for char in value) + '"'
    return json.dumps(value)


@cache
def _escape(char: str) -> str:
    if char == "/":
        return "\\/"
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


@cache
def _render_character(char: str) -> str:
    return json.dumps(char, ensure_ascii=False)[1:-1]
