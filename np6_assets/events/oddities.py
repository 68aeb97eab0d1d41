"""The slow look, in plain Python, at events in which something is odd: what DuckDB cannot read, and unknown fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from np6_assets.events.json_sql import EARLIEST, LARGEST_EVENT, LATEST, Tree


def stated_time(event: Any, otherwise: int) -> int:
    """When an event says that it happened, in ms since 1970; `otherwise` where it does not say so rightly."""
    time = event.get("timestamp") if isinstance(event, dict) else None
    if isinstance(time, int) and not isinstance(time, bool) and EARLIEST <= time <= LATEST:
        return time
    return otherwise


def unreadable(raw: str, value: Any, containers: Tree) -> str | None:
    """Why DuckDB could not read this event into its columns; None where it could."""
    if not isinstance(value, dict):
        return "the event is not an object"
    if len(raw) > LARGEST_EVENT // 2:
        return "the event is too large"
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "the event holds text that is not Unicode"
    try:
        parsed = json.loads(raw, object_pairs_hook=_Object)
    except ValueError:
        return "the event holds a control character"
    return _misshapen(parsed, containers, "")


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its fields came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = {name for name in names if names.count(name) > 1} if len(names) > len(self) else set()


def _misshapen(value: _Object, containers: Tree, above: str) -> str | None:
    for name, inner in containers.items():
        if name in value.repeated:
            return f"{above}{name} is there twice"
        child = value.get(name)
        if inner is None or child is None:
            continue
        if not isinstance(child, _Object):
            return f"{above}{name} is not an object"
        if (reason := _misshapen(child, inner, f"{above}{name}.")) is not None:
            return reason
    return None


def value_at(event: Any, path: str) -> Any:
    """The value at a path of an event; None where there is none."""
    for name in path.split("."):
        event = event.get(name) if isinstance(event, dict) else None
    return event


def structure(event: Any) -> Any:
    """What DuckDB's json_structure gives of a value, as far as it is of use here."""
    if isinstance(event, dict):
        return {name: structure(value) for name, value in event.items()}
    return _STRUCTURES.get(type(event), "JSON")


_STRUCTURES = {type(None): "NULL", str: "VARCHAR", bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}


def strangers(structure: Any, known: Tree, above: str) -> Iterator[str]:
    """The paths in a structure (of DuckDB's json_structure) that are not among the known ones."""
    if not isinstance(structure, dict):
        return
    for name, inner in structure.items():
        if name not in known:
            yield f"{above}{name}"
        elif (below := known[name]) is not None:
            yield from strangers(inner, below, f"{above}{name}.")
