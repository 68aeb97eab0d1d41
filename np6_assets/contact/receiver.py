"""Find the receiver in an event of any shape. Without recursion: events may be nested thousands deep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_CONTACT_FIELDS = ("unicity", "hash")

_RECEIVER_OBJECTS = ("receiver", "value")
"""Fields that are objects in the documented shape, and hold contact data if they are text."""


def holds_contact_data(name: str, parent: dict[str, Any]) -> bool:
    """Whether a field of an object holds contact data wherever it occurs."""
    is_text = name in _RECEIVER_OBJECTS and isinstance(parent[name], str)
    return name in _CONTACT_FIELDS or (is_text and not _is_receiver_id(name, parent))


def _is_receiver_id(name: str, parent: dict[str, Any]) -> bool:
    """Whether a field of an object holds the receiver's id, as in the column `receiver_id`."""
    return name == "id" or (name == "value" and parent.get("type") == "id")


def find_receiver_values(event: Any) -> Iterator[str]:
    """Find ids, unicities and hashes of the receiver, numbers as text; no empty ones."""
    return (value for value, _ in _find_values(event))


def find_contact_values(event: Any) -> Iterator[str]:
    """Find the receiver's contact data: all values but the ids."""
    return (value for value, is_an_id in _find_values(event) if not is_an_id)


def _find_values(event: Any) -> Iterator[tuple[str, bool]]:
    """Find the texts and numbers of the receiver, and whether each is an id."""
    stack = [(event, False, False)]
    while stack:
        value, is_receiver, is_an_id = stack.pop()
        if isinstance(value, dict):
            stack += [
                (inner, is_receiver or name == "receiver" or name in _CONTACT_FIELDS, _is_receiver_id(name, value))
                for name, inner in value.items()
                if name != "type"
            ]
        elif isinstance(value, list):
            stack += [(inner, is_receiver, is_an_id) for inner in value]
        elif is_receiver and isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            yield str(value), is_an_id
