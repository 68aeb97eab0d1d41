"""Build events with unexpected values, which are rejected or coerced. Each variant changes a valid event."""

from __future__ import annotations

import copy
import hashlib
import random
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from np6_assets_tests.support.builders import MISSING, PATHS, Event, build_event, draw_uuid, render, set_field
from np6_assets_tests.support.oracle import compute_event_key

Change = Callable[[Event], Any]

STEP_MS = 1000  # between the events of a block


@dataclass(frozen=True)
class Misfit:
    """An event that is rejected.

    Attributes:
        name: what is wrong with it.
        kind: its feed.
        placed_ms: when the server publishes it (its own time may be missing or wrong).
        notification_id: the notification in whose feeds it is.
        event: its value; None if its text is not JSON.
        raw: its bytes in an answer; compact JSON text of `event` unless given.
    """

    name: str
    kind: str
    placed_ms: int
    notification_id: int
    event: Any
    raw: bytes = b""

    @property
    def body(self) -> bytes:
        """Return its bytes in an answer."""
        return self.raw or render(self.event).encode()

    @property
    def keys(self) -> set[str]:
        """Return its possible keys in quarantine: several only if readers differ on whether it is JSON."""
        keys = {compute_event_key(self.body)}
        if self.event is None and self.body != b"null":
            keys.add(hashlib.sha256(self.body).hexdigest())
            keys |= {match[1].decode() for match in re.finditer(rb'^\{"type":"\w+","id":"([\w-]+)"', self.body)}
        return keys


# --- changes of a valid event ------------------------------------------------------------------------------


def _set_value(name: str, value: Any) -> Change:
    def change(event: Event) -> Any:
        set_field(event, name, copy.deepcopy(value))
        return event

    return change


def _map_field(name: str, convert: Callable[[Any], Any]) -> Change:
    """Convert the value of a field, if the event has one."""

    def change(event: Event) -> Any:
        box: Any = event
        *parents, last = PATHS[name]
        for parent in parents:
            box = box.get(parent) if isinstance(box, dict) else None
        if isinstance(box, dict) and type(box.get(last)) in (int, str):
            box[last] = convert(box[last])
        return event

    return change


def _replace_event(value: Any) -> Change:
    return lambda event: copy.deepcopy(value)


def _set_receiver(type_: Any, value: Any) -> Change:
    def change(event: Event) -> Any:
        set_field(event, "receiver", {"type": type_, "value": copy.deepcopy(value)})
        return event

    return change


def _to_float(number: int) -> Any:
    """Return the number as a float if it has at most 15 digits."""
    return float(number) if abs(number) < 10**15 else number


_TIMES: dict[str, Callable[[int], Any]] = {
    "as text": str,
    "with a zero fraction": float,
    "as text with a zero fraction": "{}.00".format,
    "in seconds": lambda ms: ms // 1000,
    "as text in seconds": lambda ms: str(ms // 1000),
    "in microseconds": lambda ms: ms * 1000 + 999,
    "as text in microseconds": lambda ms: str(ms * 1000),
    "in nanoseconds": lambda ms: ms * 1_000_000 + 999_999,
}
_NOT_TIMES: dict[str, Any] = {
    "ISO": "2026-03-20T12:00:00Z",
    "boolean": True,
    "text": "yes",
    "empty": "",
    "padded": " 1774000000000",
    "signed": "+1774000000000",
    "zero-led": "01774000000000",
    "exponent": "1.774e12",
    "fractional": 1774000000000.25,
    "fractional text": "1774000000000.5",
    "object": {"ms": 1774000000000},
    "list": [1774000000000],
    "beyond int64": 10**20,
}

# --- rejected ----------------------------------------------------------------------------------------------

REJECTED: dict[str, Change] = {
    "no id": _set_value("id", MISSING),
    "null id": _set_value("id", None),
    "empty id": _set_value("id", ""),
    "object id": _set_value("id", {"value": "x"}),
    "list id": _set_value("id", ["x"]),
    "no timestamp": _set_value("timestamp", MISSING),
    "null timestamp": _set_value("timestamp", None),
    "zero timestamp": _set_value("timestamp", 0),
    "zero timestamp as text": _set_value("timestamp", "0"),
    "negative timestamp": _map_field("timestamp", lambda ms: -ms),
    **{f"{name} timestamp": _set_value("timestamp", value) for name, value in _NOT_TIMES.items()},
    "no activation.id": _set_value("activation_id", MISSING),
    "null activation.id": _set_value("activation_id", None),
    "fractional activation.id": _set_value("activation_id", 156.5),
    "fractional activation.id as text": _set_value("activation_id", "156.5"),
    "zero-led activation.id": _set_value("activation_id", "0156"),
    "padded activation.id": _set_value("activation_id", "156 "),
    "empty activation.id": _set_value("activation_id", ""),
    "text activation.id": _set_value("activation_id", "yes"),
    "boolean activation.id": _set_value("activation_id", True),
    "list activation.id": _set_value("activation_id", [156]),
    "object activation.id": _set_value("activation_id", {"id": 156}),
    "activation.id beyond int64": _set_value("activation_id", 2**63),
    "activation.id below int64": _set_value("activation_id", -(2**63) - 1),
    "activation.id beyond int64 as text": _set_value("activation_id", str(2**63)),
    "activation.id of 16 digits with a fraction": _set_value("activation_id", float(10**15)),
    "activation.id of 16 digits with a fraction as text": _set_value("activation_id", f"{2**53 + 1}.0"),
    "no activation": _set_value("activation", MISSING),
    "null source": _set_value("source", None),
    "text source": _set_value("source", "notification"),
    "list activation": _set_value("activation", [{"id": 156}]),
    "numeric detail": _set_value("detail", 7),
    "text identity": _set_value("identity", "DEMO"),
    "list identity": _set_value("identity", ["DEMO", "028"]),
    "list agency": _set_value("agency", ["DEMO"]),
    "object customer": _set_value("customer", {"id": "028"}),
    "list version": _set_value("version", [1]),
    "object application": _set_value("application", {"id": "x"}),
    "list subscription": _set_value("subscription", ["x"]),
    "text stamp": _set_value("stamp", "stamp"),
    "list stamp": _set_value("stamp", []),
    "object stamp.id": _set_value("stamp_id", {}),
    **{f"{name} stamp.time": _set_value("stamp_time", value) for name, value in _NOT_TIMES.items()},
    "element null": _replace_event(None),
    "element number": _replace_event(42),
    "element string": _replace_event('a text with "quotes", ],[ and {braces'),
    "element list": _replace_event([{"id": "x"}]),
    "element boolean": _replace_event(False),
    "element empty": _replace_event({}),
}
REJECTED_OF_KIND: dict[str, dict[str, Change]] = {
    "hits": {
        "text link": _set_value("link", "https://example.com/"),
        "list link": _set_value("link", []),
        "object link.type": _set_value("link_type", {"name": "redirection"}),
        "list link.type": _set_value("link_type", ["redirection"]),
    },
    "optouts": {},
    "bounces": {
        "list bounce": _set_value("bounce", [1]),
        "text bounce": _set_value("bounce", "hard"),
        "text analysis": _set_value("analysis", "hard"),
        "boolean analysis": _set_value("analysis", True),
        "object verdict": _set_value("verdict", {"type": "hard"}),
        "list verdict": _set_value("verdict", ["hard"]),
    },
    "impressions": {},
    "activations": {},
}

# --- coerced -----------------------------------------------------------------------------------------------
# Objects have one field: the order of an object's fields in its JSON text is the API's.

COERCED: dict[str, Change] = {
    "numeric id": _map_field("id", lambda text: uuid.UUID(text).int % 10**15),
    "fractional id": _map_field("id", lambda text: uuid.UUID(text).int % 10**9 + 0.5),
    **{f"timestamp {name}": _map_field("timestamp", convert) for name, convert in _TIMES.items()},
    "activation.id as text": _map_field("activation_id", str),
    "activation.id with a zero fraction": _map_field("activation_id", _to_float),
    "activation.id as text with a zero fraction": _map_field("activation_id", lambda number: str(_to_float(number))),
    "numeric customer": _set_value("customer", 28),
    "boolean version": _set_value("version", True),
    "fractional application": _set_value("application", 1.5),
    "boolean subscription": _set_value("subscription", False),
    "numeric stamp.id": _map_field("stamp_id", lambda text: uuid.UUID(text).int % 10**15),
    **{f"stamp.time {name}": _map_field("stamp_time", convert) for name, convert in _TIMES.items()},
    "zero stamp.time": _set_value("stamp_time", 0),
    "zero stamp.time as text": _set_value("stamp_time", "0"),
    "negative stamp.time": _map_field("stamp_time", lambda ms: -ms),
    "numeric thread": _set_value("thread", 9),
    "list thread": _set_value("thread", ["a", 1, None, {"b": 1.5}]),
    "boolean kind": _set_value("kind", True),
    "numeric channel": _set_value("channel", 1.5),
    "object channel": _set_value("channel", {"name": 'é "x" \\ 🎉'}),
    "empty object channel": _set_value("channel", {}),
    "urgent as text": _set_value("urgent", "true"),
    "urgent as text, false": _set_value("urgent", "false"),
    "numeric urgent": _set_value("urgent", 1),
    "text urgent": _set_value("urgent", "yes"),
    "capital urgent": _set_value("urgent", "True"),
    "list urgent": _set_value("urgent", [True]),
    "text expiration": _set_value("expiration", "tomorrow"),
    "impossible expiration": _set_value("expiration", "2026-02-30T00:00:00Z"),
    "empty expiration": _set_value("expiration", ""),
    "numeric expiration": _set_value("expiration", 1774000000000),
    "object expiration": _set_value("expiration", {"at": "2026-04-30T12:00:00Z"}),
    "no expiration, with a fraction": _set_value("expiration", "0001-01-01T00:00:00.0000000Z"),
    "no expiration, with an offset": _set_value("expiration", "0001-01-01T02:00:00+02:00"),
    "numeric receiver": _set_value("receiver", 5),
    "text receiver": _set_value("receiver", "someone@example.com"),
    "list receiver": _set_value("receiver", ["someone@example.com"]),
    "receiver.value as text, an id": _set_receiver("id", "0013KDC0"),
    "receiver.value as text, an address": _set_receiver("mail", "someone@example.com"),
    "receiver.value as text, no type": _set_receiver(None, "someone@example.com"),
    "list receiver.value": _set_receiver("contact", ["+33600000000"]),
    "numeric receiver.value": _set_receiver("id", 13),
    "boolean receiver.value": _set_receiver("contact", False),
    "numeric receiver.type": _set_value("receiver_type", 5),
    "object receiver.type": _set_value("receiver_type", {"name": "contact"}),
    "numeric receiver.value.id": _set_value("receiver_id", 5),
    "list receiver.value.id": _set_value("receiver_id", [5]),
    "numeric unicity": _set_value("unicity", 33600000000),
    "object unicity": _set_value("unicity", {"mail": "someone@example.com"}),
    "boolean hash": _set_value("hash", True),
}
COERCED_OF_KIND: dict[str, dict[str, Change]] = {
    "hits": {
        "numeric link.type": _set_value("link_type", 3),
        "object link.label": _set_value("link_label", {"fr": "été"}),
        "boolean link.label": _set_value("link_label", False),
        "list link.uri": _set_value("link_uri", ["deeplink://product?id=594"]),
    },
    "optouts": {
        "numeric optout": _set_value("optout", 1),
        "text optout": _set_value("optout", "channel"),
        "list optout.channel": _set_value("optout_channel", ["a"]),
        "numeric optout.type": _set_value("optout_type", 2),
    },
    "bounces": {
        "numeric verdict": _set_value("verdict", 5),
        "numeric status": _set_value("status", 5.5),
        "numeric subject": _set_value("subject", 5),
        "boolean subject": _set_value("subject", True),
        "list subject": _set_value("subject", ["token"]),
        "numeric subject.type": _set_value("subject_type", 1),
        "object subject.type": _set_value("subject_type", {"name": "token"}),
        "text subject.detail": _set_value("subject_detail", "unregistered"),
        "list subject.detail": _set_value("subject_detail", ["unregistered"]),
        "numeric subject.detail.type": _set_value("reason", 410),
    },
    "impressions": {"link of an impression": _set_value("link", "https://example.com/")},
    "activations": {"optout of an activation": _set_value("optout", [1])},
}


# --- quarantine --------------------------------------------------------------------------------------------


def compare_quarantine(found: Iterable[str], rejected: Iterable[Misfit]) -> list[str]:
    """List the differences between the keys of a quarantine and the rejected events."""
    left = Counter(found)
    errors = []
    for misfit in rejected:
        matching = [key for key in misfit.keys if left[key]]
        if matching:
            left[matching[0]] -= 1
        else:
            errors.append(f"{misfit.name} is missing")
    return errors + [f"{key} is unexpected" for key in left.elements()]


# --- events of the variants --------------------------------------------------------------------------------


def build_misfits(kind: str, seed: object, at_ms: int, notification_id: int, names: Iterable[str] = ()) -> list[Misfit]:
    """Build the rejected variants (or `names`) of a kind, a second apart from `at_ms` on."""
    changes = {**REJECTED, **REJECTED_OF_KIND[kind]}
    rng = random.Random(f"{seed} {kind} styles")
    return [
        Misfit(name, kind, placed, notification_id, event, render(event, rng).encode())
        for name, placed, event in _build_block(changes, kind, seed, at_ms, notification_id, names)
    ]


def build_coerced(
    kind: str, seed: object, at_ms: int, notification_id: int, names: Iterable[str] = ()
) -> list[tuple[str, Event]]:
    """Build the coerced variants (or `names`) of a kind with their names, a second apart from `at_ms` on."""
    changes = {**COERCED, **COERCED_OF_KIND[kind]}
    return [(name, event) for name, _, event in _build_block(changes, kind, seed, at_ms, notification_id, names)]


def coerce_at_random(kind: str, rng: random.Random, event: Event) -> None:
    """Apply a random coerced variant to an event."""
    changes = {**COERCED, **COERCED_OF_KIND[kind]}
    changes[rng.choice(sorted(changes))](event)


def _build_block(
    changes: Mapping[str, Change], kind: str, seed: object, at_ms: int, notification_id: int, names: Iterable[str]
) -> list[tuple[str, int, Any]]:
    """Build name, time and value of each variant. Events of one name and seed belong to one send."""
    events = []
    ids = random.Random(f"{seed} {kind} {sorted(changes)}")
    for number, name in enumerate(list(names) or changes):
        placed = at_ms + STEP_MS * number
        send = random.Random(f"{seed} {name}")
        valid = build_event(
            kind,
            id=draw_uuid(ids),
            timestamp=placed,
            activation_id=notification_id,
            stamp_id=draw_uuid(send),
            subscription=draw_uuid(send),
        )
        events.append((name, placed, changes[name](valid)))
    return events
