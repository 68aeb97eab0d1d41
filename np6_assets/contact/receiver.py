"""Where an event of any shape names its receiver. Walks without recursion: events may be nested thousands deep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CONTACT_FIELDS = ("unicity", "hash")
"""Fields that hold contact data wherever they stand."""

RECEIVER_OBJECTS = ("receiver", "value")
"""Fields that are objects in the documented shape, and hold contact data where they are a text."""


def is_id(name: str, parent: dict[str, Any]) -> bool:
    """Whether a field of an object holds the receiver's id, as the column `receiver_id` has it."""
    return name == "id" or (name == "value" and parent.get("type") == "id")


def receiver_values(event: Any) -> Iterator[str]:
    """What names the receiver: ids, unicities and hashes, numbers as their text; nothing that is empty."""
    return (value for value, _ in _values(event))


def contact_values(event: Any) -> Iterator[str]:
    """What names the receiver and is contact data: all but the ids."""
    return (value for value, is_an_id in _values(event) if not is_an_id)


def _values(event: Any) -> Iterator[tuple[str, bool]]:
    """The texts and numbers at the receiver's places, and whether each is an id."""
    stack = [(event, False, False)]
    while stack:
        value, is_receiver, is_an_id = stack.pop()
        if isinstance(value, dict):
            stack += [
                (inner, is_receiver or name == "receiver" or name in CONTACT_FIELDS, is_id(name, value))
                for name, inner in value.items()
                if name != "type"
            ]
        elif isinstance(value, list):
            stack += [(inner, is_receiver, is_an_id) for inner in value]
        elif is_receiver and isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            yield str(value), is_an_id
