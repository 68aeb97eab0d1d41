"""Unknown fields: those of a part's events that no column reads and the API's reference does not name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from np6_assets.contact.free_text import FreeText
from np6_assets.contact.receiver import receiver_values
from np6_assets.events.json_sql import Tree, tree
from np6_assets.events.kinds import KNOWN_FIELDS, EventKind
from np6_assets.np6.stream import Part, elements

SLICES, SLICE_BYTES = 8, 2**15
"""The sample: the whole events in so many slices of a part, evenly spread; a part that is no larger is read whole."""

MOST_SHOWN = 24
"""Unknown fields of a day that are named."""

_NAME = re.compile(r"(?!.*[0-9]{6})[A-Za-z_$][\w$-]{0,39}|", re.ASCII)

_DECODE = json.JSONDecoder(strict=False).raw_decode


def known_fields(kind: EventKind) -> Tree:
    """The fields of a kind's events that are not unknown."""
    return tree([*(column.path for column in kind.columns), *KNOWN_FIELDS])


def sample(part: Part) -> Iterator[dict[str, Any]]:
    """Some of a part's events."""
    length = part.size if part.size <= SLICES * SLICE_BYTES else SLICE_BYTES
    for start in sorted({number * (part.size - length) // (SLICES - 1) for number in range(SLICES)}):
        part.file.seek(start)
        yield from _whole_events(part.file.read(length).decode(errors="replace"))


def _whole_events(text: str) -> Iterator[dict[str, Any]]:
    """The events that are whole in a piece of a part."""
    place = text.find("{")
    while place >= 0:
        try:
            value, end = _DECODE(text, place)
        except RecursionError:  # pass over all of it: what is inside is as deep, but for a level
            end = place + next(elements(text[place:].encode()))[1]
        except ValueError:
            end = place + 1
        else:
            if isinstance(value, dict) and "source" in value:  # an event, not an object inside one
                yield value
            else:
                end = place + 1
        place = text.find("{", end)


def unknown_fields(event: Any, known: Tree) -> Iterator[str]:
    """The paths in an event that are not among the known ones; a name that may be data is `*`."""
    own = set(receiver_values(event))
    return (".".join("*" if _is_data(name, own) else name for name in path) for path in _unknown(event, known, ()))


def _unknown(value: Any, known: Tree, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if name not in known:
            yield (*above, name)
        elif (below := known[name]) is not None:
            yield from _unknown(inner, below, (*above, name))


def _is_data(name: str, own: set[str]) -> bool:
    """Whether a field's name is more likely data, such as an address, than a name."""
    return not _NAME.fullmatch(name) or name in own or FreeText().treated(name) != name
