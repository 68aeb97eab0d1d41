"""Build elements of an answer that break JSON readers, as bytes.

Each is built from a valid event and can stand between other events, which must be stored in any case.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from np6_assets_tests.support.builders import Event, build_event, draw_uuid, render, set_field

Outcome = Literal["stored", "rejected", "either"]

FIELD = Path(__file__).parents[1] / "field"
"""Inputs that broke a reader in production; the README there describes each."""

STEP_MS = 1000  # between the events of a block
_HOLE = "<the value>"


@dataclass(frozen=True)
class Poison:
    """One element of an answer, as bytes.

    Attributes:
        name: what is wrong with it.
        kind: its feed.
        placed_ms: when the server publishes it.
        notification_id: the notification in whose feeds it is.
        raw: its bytes.
        outcome: "stored" or "rejected" if only that is right, else "either".
        event: the event that it decodes to; None if JSON readers may differ.
    """

    name: str
    kind: str
    placed_ms: int
    notification_id: int
    raw: bytes
    outcome: Outcome
    event: Event | None = None


@dataclass(frozen=True)
class Recipe:
    """How to build a poison's bytes, and the event that they mean, from a valid event."""

    outcome: Outcome
    raw: Callable[[Event], bytes]
    means: Callable[[Event], Event | None] = lambda valid: None  # JSON readers differ, or none accepts it


# --- bytes within an event ---------------------------------------------------------------------------


def _build_with(name: str, value: bytes) -> Callable[[Event], bytes]:
    """Put bytes in place of the value of the field `name` of PATHS."""

    def make(valid: Event) -> bytes:
        set_field(valid, name, _HOLE)
        return render(valid).encode().replace(json.dumps(_HOLE).encode(), value)

    return make


def _insert_before(mark: bytes, more: bytes) -> Callable[[Event], bytes]:
    """Insert bytes before the first occurrence of a mark."""

    def make(valid: Event) -> bytes:
        head, found, tail = render(valid).encode().partition(mark)
        assert found, f"no {mark!r} in the event"
        return head + more + found + tail

    return make


def _change_field(name: str, value: Any) -> Callable[[Event], Event]:
    def change(valid: Event) -> Event:
        set_field(valid, name, value)
        return valid

    return change


def _nest_objects(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def _nest_lists(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


_DIGITS = b"7" * 5_000
_CONTROL = b'"' + bytes(range(1, 32)) + b'"'
_ESCAPED_CONTROL = b'"\\u0001\\u001f\\b\\f"'
_LARGE = b'"' + b"large " * (20 * 2**20 // 6) + b'"'


def _list_unknown_fields() -> dict[str, Recipe]:
    """List unknown fields, as bytes; valid JSON there must be harmless."""
    values: dict[Outcome, dict[str, bytes]] = {
        "stored": {
            "150 levels": _nest_objects(150),
            "150 levels of lists": _nest_lists(150),
            "100,000 levels": _nest_objects(100_000),
            "100,000 levels of lists": _nest_lists(100_000),
            "integer of 5,000 digits": _DIGITS,
            "negative integer of 5,000 digits": b"-" + _DIGITS,
            "fraction of 5,000 digits": b"0." + _DIGITS,
            "number beyond a double": b"1e400",
            "escaped NUL": b'"a\\u0000b"',
            "escaped control characters": _ESCAPED_CONTROL,
        },
        "either": {
            "lone high surrogate": b'"\\ud83d x"',
            "lone low surrogate": b'"\\udfff x"',
            "raw NUL": b'"a\x00b"',
            "raw control characters": _CONTROL,
            "invalid UTF-8": b'"caf\xe9"',
            "encoded surrogate": b'"\xed\xa0\x80"',
            "truncated UTF-8": b'"\xf0\x9f\x8e"',
            "NaN": b"NaN",
            "-Infinity": b"-Infinity",
            "event of 20 MiB": _LARGE,
        },
    }
    fields: dict[Outcome, dict[str, bytes]] = {
        "stored": {
            "escaped NUL in an unknown key": b'"a\\u0000":1',
            "empty unknown key": b'"":1',
            "repeated unknown field": b'"ctx":1,"ctx":{"a":2},"ctx":[3]',
        },
        "either": {
            "invalid UTF-8 in an unknown key": b'"ch\xe9":1',
            "lone surrogate in an unknown key": b'"\\ud800":1',
            "raw NUL in an unknown key": b'"a\x00":1',
        },
    }
    for outcome, table in values.items():
        fields[outcome] |= {f"{name} in an unknown field": b'"ctx":' + value for name, value in table.items()}
    return {
        name: Recipe(outcome, _insert_before(b'"kind":', field + b","), lambda valid: valid)
        for outcome, table in fields.items()
        for name, field in table.items()
    }


def _list_text_columns() -> dict[str, Recipe]:
    """List values of a column that the rates do not need."""
    values = {
        "150 levels": _nest_objects(150),
        "100,000 levels": _nest_lists(100_000),
        "integer of 5,000 digits": _DIGITS,
        "number beyond a double": b"1e400",
        "NaN": b"NaN",
        "Infinity": b"Infinity",
        "escaped NUL": b'"a\\u0000b"',
        "lone surrogate": b'"\\udfff x"',
        "raw NUL": b'"a\x00b"',
        "raw control characters": _CONTROL,
        "invalid UTF-8": b'"caf\xe9"',
    }
    recipes = {name: Recipe("either", _build_with("channel", raw)) for name, raw in values.items()}
    known: dict[str, tuple[Outcome, bytes]] = {
        "event of 20 MiB": ("either", _LARGE),
        "escaped control characters": ("stored", _ESCAPED_CONTROL),
    }
    for name, (outcome, raw) in known.items():
        recipes[name] = Recipe(outcome, _build_with("channel", raw), _change_field("channel", json.loads(raw)))
    return {f"{name} in a text column": recipe for name, recipe in recipes.items()}


def _list_rate_columns() -> dict[str, Recipe]:
    """List values that a column needed by the rates cannot hold."""
    values = {
        "150 levels in activation.id": ("activation_id", _nest_objects(150)),
        "100,000 levels in activation.id": ("activation_id", _nest_lists(100_000)),
        "integer of 5,000 digits in activation.id": ("activation_id", _DIGITS),
        "integer of 5,000 digits in timestamp": ("timestamp", _DIGITS),
        "integer of 5,000 digits in stamp.time": ("stamp_time", _DIGITS),
        "number beyond a double in timestamp": ("timestamp", b"1e400"),
        "number beyond a double in activation.id": ("activation_id", b"1e400"),
        "NaN in timestamp": ("timestamp", b"NaN"),
        "Infinity in activation.id": ("activation_id", b"Infinity"),
        "invalid UTF-8 in application": ("application", b'"caf\xe9"'),
        "lone surrogate in application": ("application", b'"\\ud800"'),
        "100,000 levels in identity": ("identity", _nest_lists(100_000)),
    }
    return {name: Recipe("rejected", _build_with(path, raw)) for name, (path, raw) in values.items()}


def _list_containers() -> dict[str, Recipe]:
    """List other values in place of objects."""
    recipes = {}
    for container in ("source", "activation", "identity", "stamp", "receiver", "link"):
        for name, value in {"number": 7, "text": "text", "list": [1], "null": None}.items():
            is_rejected = container != "receiver" and (value is not None or container in ("source", "activation"))
            raw = _build_with(container, render(value).encode())
            recipes[f"{name} in place of {container}"] = (
                Recipe("rejected", raw) if is_rejected else Recipe("stored", raw, _change_field(container, value))
            )
    return recipes


def _list_repeated_keys() -> dict[str, Recipe]:
    """List repeated fields: readers take the first, the last, or neither."""
    repeated = {
        "id": (b'"timestamp":', b'"id":"another",'),
        "timestamp": (b'"identity":', b'"timestamp":null,'),
        "activation.id": (b'"version":', b'"id":null,'),
        "activation": (b'"activation":', b'"activation":null,'),
        "source": (b'"source":', b'"source":{},'),
    }
    return {f"repeated {name}": Recipe("either", _insert_before(*where)) for name, where in repeated.items()}


def _list_not_json() -> dict[str, Recipe]:
    """List elements that are not JSON, though their ends can be found."""
    texts = {
        "field without a value": b'{"id":}',
        "field without a colon": b'{"id" "x"}',
        "field without quotes": b'{id:"x"}',
        "bare word": b"undefined",
        "unfinished number": b"-",
    }
    return {
        **{name: Recipe("rejected", lambda valid, text=text: text) for name, text in texts.items()},
        "comma before a brace": Recipe("either", lambda valid: render(valid).encode()[:-1] + b",}"),
    }


POISON: dict[str, Recipe] = {
    **_list_unknown_fields(),
    **_list_text_columns(),
    **_list_rate_columns(),
    **_list_containers(),
    **_list_repeated_keys(),
    **_list_not_json(),
}
"""All poisons by name."""


def build_poison(kind: str, seed: object, at_ms: int, notification_id: int, names: Iterable[str] = ()) -> list[Poison]:
    """Build each of POISON (or of `names`) for a kind, a second apart from `at_ms` on."""
    rng = random.Random(f"{seed} {kind} poison")
    built = []
    for number, name in enumerate(list(names) or POISON):
        recipe, placed = POISON[name], at_ms + STEP_MS * number
        fields = {"id": draw_uuid(rng), "stamp_id": draw_uuid(rng), "activation_id": notification_id}
        raw = recipe.raw(build_event(kind, timestamp=placed, **fields))
        outcome, means = recipe.outcome, recipe.means(build_event(kind, timestamp=placed, **fields))
        if kind != "hits" and name.endswith(" in place of link"):
            outcome, means = "stored", build_event(kind, timestamp=placed, **fields)  # an unknown field there
        built.append(Poison(name, kind, placed, notification_id, raw, outcome, means))
    return built


def is_bulky(name: str) -> bool:
    """Return whether a poison takes megabytes."""
    return "20 MiB" in name


# --- from production ----------------------------------------------------------------------------------------

FIELD_MS = 1_774_342_801_500  # timestamp of every middle element
_FIELD_OUTCOMES: dict[str, Outcome] = {
    "poison_bad_utf8_in_key": "either",
    "poison_exponent": "either",
    "poison_half_surrogate": "either",
    "poison_integer_6000_digits": "rejected",
    "poison_nested_objects_400": "stored",
}


def list_field_poison() -> list[Poison]:
    """List the middle elements of the bodies from production."""
    built = []
    for name, outcome in _FIELD_OUTCOMES.items():
        _, raw, _ = read_field_elements(name)
        # Those that are stored have an unknown field, which changes no column.
        means = json.loads(raw) if outcome == "stored" else None
        built.append(Poison(name, "hits", FIELD_MS, 156, raw, outcome, means))
    return built


def read_field_elements(name: str) -> list[bytes]:
    """Return the elements of a body in the folder `field`: three hits, the first and the last valid."""
    start = b'{"type":"hit"'
    elements = (FIELD / f"{name}.json").read_bytes().strip()[1:-1].split(b"," + start)
    return [elements[0], *(start + element for element in elements[1:])]
