"""Reject events: decide in plain Python, event by event, why an event cannot be stored.

The slow path, for events that `json_sql.py` marks and for parts that DuckDB refuses.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from np6_assets.events.json_sql import Tree, build_kind_tree
from np6_assets.events.kinds import Column, EventKind, Reading
from np6_assets.np6.timestamps import to_milliseconds

REJECTED_SCHEMA = pa.schema(
    [("placed", pa.int64()), ("event_key", pa.string()), ("reason", pa.string()), ("event", pa.string())]
)
"""Rejected events; `placed` (ms) is the event's own time, or else that of the last event with a time before it.

`event_key` is the event's id or the SHA-256 of its bytes as received; `event` is its JSON text, null if it cannot be
parsed.
"""

NOT_PARSED = "the event cannot be parsed"
UNKNOWN_AGENCY = "identity.agency is not one of those in np6.json"

_LONGEST_INTEGER = 1000
_EXACT_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_EXACT_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})[.]0+")


@dataclass(frozen=True)
class RejectedEvent:
    """A rejected event: its place in the part, its bytes, its JSON value (None if it cannot be parsed), and why."""

    place: int
    raw: bytes
    value: Any
    reason: str

    @property
    def key(self) -> str:
        """The key of the event, the same however often it is fetched."""
        id_ = self.value.get("id") if isinstance(self.value, dict) else None
        if isinstance(id_, str | int | float) and not isinstance(id_, bool) and id_ != "":
            return str(id_)
        return hashlib.sha256(self.raw).hexdigest()


class EventValidator:
    """Validates events of one kind."""

    def __init__(self, kind: EventKind, agencies: frozenset[str] = frozenset()) -> None:
        """`agencies` are the known ones; if there are none, every one is admitted."""
        self._agencies = agencies
        self._rate_columns = [column for column in kind.columns if column.used_by_rates]
        self._tree = build_kind_tree(kind)

    def find_reason(self, event: Any) -> str | None:
        """Find why an event is rejected; None if every column that rates use can be read."""
        if not isinstance(event, dict):
            return "the event is not an object"
        wrong = next(
            (reason for column in self._rate_columns if (reason := _check_column(column, event)) is not None), None
        )
        return wrong or (UNKNOWN_AGENCY if self._agencies and get_agency(event) not in {*self._agencies, ""} else None)

    def parse_and_check(self, raw: bytes) -> tuple[Any, str | None]:
        """Parse an event and find why it is rejected; the value is None if it cannot be parsed."""
        try:
            text = raw.decode()
            value = _load_json(text)
            if re.search(r"\\u[dD][89a-fA-F]", text) and not _is_valid_unicode(value):
                return value, "the event holds half of a surrogate pair"
            if re.search(r"[\x00-\x1f]", text) and not _is_strict_json(text):
                return value, "the event holds a control character"
        except RecursionError:
            return None, None  # DuckDB may read what is too deep for Python
        except UnicodeDecodeError:
            return parse_event(raw.decode(errors="backslashreplace")), "the event is not valid UTF-8"
        except ValueError:
            return None, NOT_PARSED
        return value, _find_repeated_field(value, self._tree, "") or self.find_reason(value)


class _Object(dict[str, Any]):
    """A JSON object that knows which of its fields are repeated."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = {name for name in names if names.count(name) > 1} if len(names) > len(self) else set()


def parse_integer(value: Any) -> int | None:
    """Parse a JSON number or text that is exactly an integer of 64 bits; None if it is not."""
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


def get_agency(event: Any) -> str:
    """Return the agency of an event whose columns can be read; empty if it has none."""
    agency = (event.get("identity") or {}).get("agency")
    return "" if agency is None else str(agency)


def read_event_time(event: Any) -> int:
    """Read the time of an event in ms; 0 if it has none."""
    number = parse_integer(event.get("timestamp")) if isinstance(event, dict) else None
    return (number and to_milliseconds(number)) or 0


def parse_event(text: str) -> Any:
    """Parse an event's JSON; None if it cannot be parsed."""
    with suppress(ValueError, RecursionError):
        return _load_json(text)
    return None


def _load_json(text: str) -> Any:
    return json.loads(text, strict=False, object_pairs_hook=_Object, parse_int=_parse_digits)


def _parse_digits(digits: str) -> int | str:
    """Parse an integer; return text if Python would refuse it or take long."""
    return int(digits) if len(digits) <= _LONGEST_INTEGER else digits


def _is_valid_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_strict_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=_parse_digits)
    except ValueError:
        return False
    return True


def _find_repeated_field(value: Any, containers: Tree, above: str) -> str | None:
    """Find the first repeated field that a column needs."""
    if not isinstance(value, _Object):
        return None
    for name, inner in containers.items():
        if name in value.repeated:
            return f"{above}{name} is there twice"
        if (
            inner is not None
            and (reason := _find_repeated_field(value.get(name), inner, f"{above}{name}.")) is not None
        ):
            return reason
    return None


def _check_column(column: Column, event: dict[str, Any]) -> str | None:
    """Return why a column that rates use cannot be read; None if it can."""
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
    number = parse_integer(value)
    is_time = column.reading is Reading.TIME and column.required
    if number is None or (is_time and to_milliseconds(number) is None):
        return f"{column.path} is not {column.reading.value}"
    return None
