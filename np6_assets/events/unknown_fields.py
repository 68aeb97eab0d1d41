"""Find unknown fields: fields of a part's events that no column reads and the API's reference does not name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from np6_assets.contact.free_text import TextRedactor
from np6_assets.contact.receiver import find_receiver_values
from np6_assets.events.json_sql import Tree, build_tree
from np6_assets.events.kinds import KNOWN_FIELDS, EventKind
from np6_assets.np6.stream import Part, find_elements

SLICES, SLICE_BYTES = 8, 2**15
"""The sample: the complete events in so many slices of a part, evenly spread; a smaller part is read whole."""

MOST_SHOWN = 24
"""The most unknown fields of a day that are named."""

_NAME = re.compile(r"(?!.*[0-9]{6})[A-Za-z_$][\w$-]{0,39}|", re.ASCII)

_DECODE = json.JSONDecoder(strict=False).raw_decode


def build_known_tree(kind: EventKind) -> Tree:
    """Build the tree of a kind's fields that are not unknown."""
    return build_tree([*(column.path for column in kind.columns), *KNOWN_FIELDS])


def sample_events(part: Part) -> Iterator[dict[str, Any]]:
    """Parse a sample of a part's events."""
    length = part.size if part.size <= SLICES * SLICE_BYTES else SLICE_BYTES
    for start in sorted({number * (part.size - length) // (SLICES - 1) for number in range(SLICES)}):
        part.file.seek(start)
        yield from _parse_whole_events(part.file.read(length).decode(errors="replace"))


def _parse_whole_events(text: str) -> Iterator[dict[str, Any]]:
    """Parse the events that are complete in a slice of a part."""
    place = text.find("{")
    while place >= 0:
        try:
            value, end = _DECODE(text, place)
        except RecursionError:  # pass over all of it: what is inside is as deep, but for a level
            end = place + next(find_elements(text[place:].encode()))[1]
        except ValueError:
            end = place + 1
        else:
            if isinstance(value, dict) and "source" in value:  # an event, not an object inside one
                yield value
            else:
                end = place + 1
        place = text.find("{", end)


def find_unknown_fields(event: Any, known: Tree) -> Iterator[str]:
    """Find the paths in an event that are not known; a name that may be data becomes `*`."""
    if paths := list(_find_unknown_paths(event, known, ())):
        own = set(find_receiver_values(event))
        yield from (".".join("*" if _is_data(name, own) else name for name in path) for path in paths)


def _find_unknown_paths(value: Any, known: Tree, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if name not in known:
            yield (*above, name)
        elif (below := known[name]) is not None:
            yield from _find_unknown_paths(inner, below, (*above, name))


def _is_data(name: str, own: set[str]) -> bool:
    """Whether a field's name is likely data, such as an address."""
    return not _NAME.fullmatch(name) or name in own or TextRedactor().redact(name) != name
