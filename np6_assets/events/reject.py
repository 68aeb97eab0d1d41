"""Rejected events: why an event cannot be stored, judged in plain Python, one event at a time.

The slow path, for the few events that `json_sql.py` calls doubtful and for parts that DuckDB refuses.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from np6_assets.events.json_sql import Tree, containers
from np6_assets.events.kinds import Column, EventKind, Reading
from np6_assets.np6.timestamps import to_milliseconds

REJECTED_SCHEMA = pa.schema(
    [("placed", pa.int64()), ("event_key", pa.string()), ("reason", pa.string()), ("event", pa.string())]
)
"""Rejected events. `placed` (ms) is when the event was published, by its own word or else by the timed one before it.

`event_key` is the event's id, or the SHA-256 of its bytes as received; `event` is its JSON text, null where it cannot
be parsed.
"""

NOT_PARSED = "the event cannot be parsed"
FOREIGN = "identity.agency is not one of those in np6.json"

_LONGEST_INTEGER = 1000
_EXACT_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_EXACT_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})[.]0+")


@dataclass(frozen=True)
class Rejected:
    """A rejected event: its place in the part, its bytes, its JSON value (None where it cannot be parsed), and why."""

    place: int
    raw: bytes
    value: Any
    reason: str

    @property
    def key(self) -> str:
        """What tells it apart from others however often it is fetched."""
        id_ = self.value.get("id") if isinstance(self.value, dict) else None
        if isinstance(id_, str | int | float) and not isinstance(id_, bool) and id_ != "":
            return str(id_)
        return hashlib.sha256(self.raw).hexdigest()


class Judge:
    """Says why an event of one kind cannot be stored."""

    def __init__(self, kind: EventKind, agencies: frozenset[str] = frozenset()) -> None:
        """`agencies` are the known ones; where there are none, every one is admitted."""
        self._agencies = agencies
        self._rated = [column for column in kind.columns if column.rated]
        self._containers = containers(kind)

    def reason(self, event: Any) -> str | None:
        """Why the event is rejected; None where every column that the rates depend on can be read."""
        if not isinstance(event, dict):
            return "the event is not an object"
        wrong = next((reason for column in self._rated if (reason := _wrong(column, event)) is not None), None)
        return wrong or (FOREIGN if self._agencies and agency_of(event) not in {*self._agencies, ""} else None)

    def parse(self, raw: bytes) -> tuple[Any, str | None]:
        """The value of an event that DuckDB may refuse to read, None where it cannot be parsed; why it surely does."""
        try:
            text = raw.decode()
            value = _parse(text)
            if re.search(r"\\u[dD][89a-fA-F]", text) and not _is_unicode(value):
                return value, "the event holds half of a surrogate pair"
            if re.search(r"[\x00-\x1f]", text) and not _is_strict(text):
                return value, "the event holds a control character"
        except RecursionError:
            return None, None  # DuckDB may read what is too deep for Python
        except UnicodeDecodeError:
            return parsed(raw.decode(errors="backslashreplace")), "the event is not valid UTF-8"
        except ValueError:
            return None, NOT_PARSED
        return value, _repeated(value, self._containers, "") or self.reason(value)


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its fields came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = {name for name in names if names.count(name) > 1} if len(names) > len(self) else set()


def exact_integer(value: Any) -> int | None:
    """The whole number that a JSON value is exactly, as a number or as text, in 64 bits; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    if isinstance(value, float):
        text = f"{value:.1f}" if value.is_integer() and abs(value) < 1e15 else text
    if _EXACT_DECIMAL.fullmatch(text):
        text = text.partition(".")[0]
    if len(text) > 20 or not _EXACT_INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def agency_of(event: Any) -> str:
    """The agency of an event whose columns can be read; empty where it has none."""
    agency = (event.get("identity") or {}).get("agency")
    return "" if agency is None else str(agency)


def published(event: Any) -> int:
    """When an event says that it was published, in ms; 0 where it does not say."""
    number = exact_integer(event.get("timestamp")) if isinstance(event, dict) else None
    return (number and to_milliseconds(number)) or 0


def parsed(text: str) -> Any:
    """The JSON value of an event; None where it cannot be parsed."""
    with suppress(ValueError, RecursionError):
        return _parse(text)
    return None


def _parse(text: str) -> Any:
    return json.loads(text, strict=False, object_pairs_hook=_Object, parse_int=_integer)


def _integer(digits: str) -> int | str:
    """A whole number; text where Python would refuse, or take long, to make it a number."""
    return int(digits) if len(digits) <= _LONGEST_INTEGER else digits


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_strict(text: str) -> bool:
    try:
        json.loads(text, parse_int=_integer)
    except ValueError:
        return False
    return True


def _repeated(value: Any, containers: Tree, above: str) -> str | None:
    """The first field that a column needs and that is there twice."""
    if not isinstance(value, _Object):
        return None
    for name, inner in containers.items():
        if name in value.repeated:
            return f"{above}{name} is there twice"
        if inner is not None and (reason := _repeated(value.get(name), inner, f"{above}{name}.")) is not None:
            return reason
    return None


def _wrong(column: Column, event: dict[str, Any]) -> str | None:
    """Why a column that the rates depend on cannot be read; None where it can."""
    value: Any = event
    above: list[str] = []
    for name in column.path.split("."):
        if value is not None and not isinstance(value, dict):
            return f"{'.'.join(above)} is not an object"
        value = None if value is None else value.get(name)
        above.append(name)
    if value is None or (value == "" and column.required):
        return f"{column.path} is missing" if column.required else None
    if column.reading is Reading.TEXT:
        return f"{column.path} is not text" if isinstance(value, dict | list) else None
    number = exact_integer(value)
    is_time = column.reading is Reading.TIME and column.required
    if number is None or (is_time and to_milliseconds(number) is None):
        return f"{column.path} is not {column.reading.value}"
    return None
