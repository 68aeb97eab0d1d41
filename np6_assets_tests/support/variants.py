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
class BadEvent:
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


def _list_values(table: Mapping[str, Iterable[Any]]) -> dict[str, Change]:
    """List the changes that set a field of PATHS to each of its values, by field and value."""
    return {f"{name} {value!r}": _set_value(name, value) for name, values in table.items() for value in values}


def _set_value(name: str, value: Any) -> Change:
    def change(event: Event) -> Any:
        set_field(event, name, copy.deepcopy(value))
        return event

    return change


def _convert(name: str, conversions: Mapping[str, Callable[[Any], Any]]) -> dict[str, Change]:
    """List the changes that convert the value of a field, if the event has one."""
    return {f"{name} {how}": _convert_value(name, convert) for how, convert in conversions.items()}


def _convert_value(name: str, convert: Callable[[Any], Any]) -> Change:
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
_NOT_TIMES = (
    *("2026-03-20T12:00:00Z", True, "yes", "", " 1774000000000", "+1774000000000", "01774000000000", "1.774e12"),
    *(1774000000000.25, "1774000000000.5", {"ms": 1774000000000}, [1774000000000], 10**20),
)

# --- rejected ----------------------------------------------------------------------------------------------

REJECTED: dict[str, Change] = {
    **_list_values(
        {
            "id": (MISSING, None, "", {"value": "x"}, ["x"]),
            "timestamp": (MISSING, None, 0, "0", -1774000000000, *_NOT_TIMES),
            "activation_id": (
                *(MISSING, None, 156.5, "156.5", "0156", "156 ", "", "yes", True, [156], {"id": 156}),
                *(2**63, -(2**63) - 1, str(2**63), float(10**15), f"{2**53 + 1}.0"),
            ),
            "activation": (MISSING, [{"id": 156}]),
            "source": (None, "notification"),
            "detail": (7,),
            "identity": ("DEMO", ["DEMO", "028"]),
            "agency": (["DEMO"],),
            "customer": ({"id": "028"},),
            "version": ([1],),
            "application": ({"id": "x"},),
            "subscription": (["x"],),
            "stamp": ("stamp", []),
            "stamp_id": ({},),
            "stamp_time": _NOT_TIMES,
        }
    ),
    **{
        f"element {value!r}": _replace_event(value)
        for value in (None, 42, 'a text with "quotes", ],[ and {braces', [{"id": "x"}], False, {})
    },
}
REJECTED_OF_KIND = {
    "hits": _list_values(
        {"link": ("https://example.com/", []), "link_type": ({"name": "redirection"}, ["redirection"])}
    ),
    "optouts": {},
    "bounces": _list_values(
        {"bounce": ([1], "hard"), "analysis": ("hard", True), "verdict": ({"type": "hard"}, ["hard"])}
    ),
    "impressions": {},
    "activations": {},
}

# --- coerced -----------------------------------------------------------------------------------------------
# Objects have one field: the order of an object's fields in its JSON text is the API's.

COERCED: dict[str, Change] = {
    **_convert(
        "id",
        {
            "as a number": lambda text: uuid.UUID(text).int % 10**15,
            "as a fraction": lambda text: uuid.UUID(text).int % 10**9 + 0.5,
        },
    ),
    **_convert("timestamp", _TIMES),
    **_convert(
        "activation_id",
        {
            "as text": str,
            "with a zero fraction": _to_float,
            "as text with a zero fraction": lambda number: str(_to_float(number)),
        },
    ),
    **_convert("stamp_id", {"as a number": lambda text: uuid.UUID(text).int % 10**15}),
    **_convert("stamp_time", {**_TIMES, "below zero": lambda ms: -ms}),
    **_list_values(
        {
            "stamp_time": (0, "0"),
            "customer": (28,),
            "version": (True,),
            "application": (1.5,),
            "subscription": (False,),
            "thread": (9, ["a", 1, None, {"b": 1.5}]),
            "kind": (True,),
            "channel": (1.5, {"name": 'é "x" \\ 🎉'}, {}),
            "urgent": ("true", "false", 1, "yes", "True", [True]),
            "expiration": (
                *("tomorrow", "2026-02-30T00:00:00Z", "", 1774000000000, {"at": "2026-04-30T12:00:00Z"}),
                *("0001-01-01T00:00:00.0000000Z", "0001-01-01T02:00:00+02:00"),  # none
            ),
            "receiver": (
                *(5, "someone@example.com", ["someone@example.com"]),
                *(
                    {"type": type_, "value": value}
                    for type_, value in (
                        *(("id", "0013KDC0"), ("mail", "someone@example.com"), (None, "someone@example.com")),
                        *(("contact", ["+33600000000"]), ("id", 13), ("contact", False)),
                    )
                ),
            ),
            "receiver_type": (5, {"name": "contact"}),
            "receiver_id": (5, [5]),
            "unicity": (33600000000, {"mail": "someone@example.com"}),
            "hash": (True,),
        }
    ),
}
COERCED_OF_KIND = {
    "hits": _list_values(
        {"link_type": (3,), "link_label": ({"fr": "été"}, False), "link_uri": (["deeplink://product?id=594"],)}
    ),
    "optouts": _list_values({"optout": (1, "channel"), "optout_channel": (["a"],), "optout_type": (2,)}),
    "bounces": _list_values(
        {
            "verdict": (5,),
            "status": (5.5,),
            "subject": (5, True, ["token"]),
            "subject_type": (1, {"name": "token"}),
            "subject_detail": ("unregistered", ["unregistered"]),
            "reason": (410,),
        }
    ),
    "impressions": _list_values({"link": ("https://example.com/",)}),
    "activations": _list_values({"optout": ([1],)}),
}


# --- quarantine --------------------------------------------------------------------------------------------


def compare_quarantine(found: Iterable[str], rejected: Iterable[BadEvent]) -> list[str]:
    """List the differences between the keys of a quarantine and the rejected events."""
    left = Counter(found)
    errors = []
    for bad_event in rejected:
        matching = [key for key in bad_event.keys if left[key]]
        if matching:
            left[matching[0]] -= 1
        else:
            errors.append(f"{bad_event.name} is missing")
    return errors + [f"{key} is unexpected" for key in left.elements()]


# --- events of the variants --------------------------------------------------------------------------------


def build_bad_events(
    kind: str, seed: object, at_ms: int, notification_id: int, names: Iterable[str] = ()
) -> list[BadEvent]:
    """Build the rejected variants (or `names`) of a kind, a second apart from `at_ms` on."""
    changes = {**REJECTED, **REJECTED_OF_KIND[kind]}
    rng = random.Random(f"{seed} {kind} styles")
    return [
        BadEvent(name, kind, placed, notification_id, event, render(event, rng).encode())
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
