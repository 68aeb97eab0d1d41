"""Decoding: one spool part becomes typed Arrow rows, and a note of every event that does not fit.

What belongs here: the SQL that DuckDB's JSON reader runs, generated from `KINDS`, and the slow plain-Python look at
the parts in which something is odd. Knows files and Arrow, and nothing of HTTP but the errors it answers with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from np6_assets.events.contact import ContactPolicy
from np6_assets.events.kinds import CONTACT_COLUMNS, KNOWN_UNREAD, TIME, Column, EventKind, Reading
from np6_assets.np6.errors import BadResponseError, CutResponseError
from np6_assets.np6.spool import Part, elements

ID_HASH = "id_hash"
"""A helper column beside the stored ones: a 64-bit hash of `event_id`."""

MISFIT_SCHEMA = pa.schema([("event_time", TIME), ("reason", pa.string()), ("event", pa.string())])
"""Misfits: `event_time` is where in the stream the event stood, the last good time before it."""

_LARGEST_EVENT = 8 * 2**20
_SMALL_PART = 4 * 2**20
_SAMPLE = 500


@dataclass(frozen=True)
class Decoded:
    """A part's events.

    `rows` have the kind's schema and ID_HASH, in the order of the part; `misfits` have MISFIT_SCHEMA;
    `unknown_fields` are the paths of fields that the contract does not know.
    """

    rows: pa.Table
    misfits: pa.Table
    unknown_fields: frozenset[str]


class Decoder:
    """Decodes parts of one event kind. Safe to share between threads."""

    def __init__(self, kind: EventKind, contact: ContactPolicy) -> None:
        self.kind = kind
        self._contact = contact
        self._containers = _tree(column.path for column in kind.columns)
        self._known = _tree([*(column.path for column in kind.columns), *KNOWN_UNREAD])
        self._select = _select(kind, contact.mode)
        self._source = f"read_json(?, format='array', columns={_columns(self._containers)}, " + (
            f"maximum_object_size={_LARGEST_EVENT})"
        )
        # extensions are built in; nothing is fetched, spilled or cached, and the spool's paths are used again
        self._database = duckdb.connect(
            config={
                "threads": 2,
                "memory_limit": "1GB",
                "temp_directory": "",
                "enable_external_file_cache": False,
                "autoinstall_known_extensions": False,
                "TimeZone": "UTC",
            }
        )

    def decode(self, part: Part) -> Decoded:
        """Decode a part, and close it. Raises BadResponseError where it is not JSON."""
        try:
            return self._decode(part)
        finally:
            part.close()

    def _decode(self, part: Part) -> Decoded:
        odd: list[tuple[int, str, str]] = []
        text: str | None = None
        try:
            table = self._query(part.path)
        except duckdb.Error:
            text, odd = self._sift(part)
            try:
                table = self._query(part.path)
            except duckdb.Error as error:
                raise BadResponseError(f"the body cannot be decoded: {type(error).__name__}") from None
        if table.num_rows + len(odd) < part.events:
            raise BadResponseError("the decoder saw fewer events than the body holds")
        reasons = table.column("reason")
        table = table.drop_columns(["reason"])
        if reasons.null_count < table.num_rows:
            fits = pc.is_null(reasons)
            positions = np.flatnonzero(~np.asarray(fits))
            odd += self._misfits(part if text is None else text, positions, reasons, table.column("event_time"))
            table = table.filter(fits)
        if self._contact.mode == "pseudonymize":
            for name in CONTACT_COLUMNS:
                place = table.schema.get_field_index(name)
                table = table.set_column(place, name, self._contact.pseudonyms(table.column(name)))
        return Decoded(
            table.cast(pa.schema([*self.kind.schema, pa.field(ID_HASH, pa.uint64())])),
            _misfit_table(odd),
            self._unknown_fields(part),
        )

    def _query(self, path: str) -> pa.Table:
        with self._database.cursor() as cursor:
            return cursor.sql(f"{self._select} FROM {self._source}", params=[path]).to_arrow_table()

    def _misfits(
        self, source: Part | str, positions: np.ndarray, reasons: pa.ChunkedArray, times: pa.ChunkedArray
    ) -> list[tuple[int, str, str]]:
        """The text, reason and place in time of the events at `positions`."""
        text = _text(source) if isinstance(source, Part) else source
        wanted = {int(position) for position in positions}
        known_times = times.to_pylist()
        found = []
        last = 0
        for position, (_, _, value) in enumerate(elements(text)):
            if position in wanted:
                found.append((last, reasons[position].as_py(), self._contact.redact(value)))
            else:
                last = known_times[position]
        return found

    def _sift(self, part: Part) -> tuple[str, list[tuple[int, str, str]]]:
        """Take the events that DuckDB cannot read out of the part, and rewrite it without them."""
        good: list[str] = []
        odd: list[tuple[int, str, str]] = []
        last = 0
        text = _text(part)
        try:
            for start, end, value in elements(text):
                raw = text[start:end]
                reason = _unreadable(raw, value, self._containers)
                if reason is None:
                    good.append(raw)
                    if isinstance(time := value.get("timestamp"), int):
                        last = time
                else:
                    odd.append((last, reason, self._contact.redact(value)))
        except CutResponseError as error:
            raise BadResponseError(str(error)) from None
        text = "[" + ",".join(good) + "]"
        part.file.seek(0)
        part.file.truncate()
        part.file.write(text.encode())
        part.file.flush()
        return text, odd

    def _unknown_fields(self, part: Part) -> frozenset[str]:
        """Paths of fields that no column reads: of all events of a small part, of the first ones of a large one."""
        limit = "" if part.size <= _SMALL_PART else f"LIMIT {_SAMPLE}"
        query = f"""SELECT DISTINCT json_structure(json) FROM
            (FROM read_json_objects(?, format='array', maximum_object_size={_LARGEST_EVENT}) {limit})"""
        with self._database.cursor() as cursor:
            structures = cursor.execute(query, [part.path]).fetchall()
        return frozenset(
            path for (structure,) in structures for path in _strangers(json.loads(structure or "{}"), self._known, "")
        )


# --- the SQL ------------------------------------------------------------------------------------------------------

_IS_TEXT = "prefix({0}, '\"')"
_NUMBER = "TRY_CAST({0}::VARCHAR AS BIGINT)"
_NO_NUMBER = f"{_NUMBER} IS NULL OR {_NUMBER} <> TRY_CAST({{0}}::VARCHAR AS DOUBLE)"
_INSTANT = (
    "CASE WHEN regexp_matches({0}->>'$', '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') "
    "THEN epoch_ms(TRY_CAST({0}->>'$' AS TIMESTAMPTZ)) END"
)
_NEVER = -62_135_596_800_000  # 0001-01-01T00:00:00Z in ms since 1970
_LAST = 253_402_300_799_999
_TYPE_OF = "json_type({0}, '{1}') NOT IN ('{2}', 'NULL')"

_READINGS: Mapping[Reading, tuple[str, str]] = {
    # the value, and what makes the event a misfit; {0} is the JSON leaf, not null
    Reading.TEXT: ("{0}->>'$'", f"NOT {_IS_TEXT}"),
    Reading.REQUIRED_TEXT: ("{0}->>'$'", f"NOT {_IS_TEXT} OR {{0}} = '\"\"'"),
    Reading.INTEGER: (_NUMBER, _NO_NUMBER),
    Reading.MILLISECONDS: (_NUMBER, f"{_NO_NUMBER} OR {_NUMBER} NOT BETWEEN {_NEVER} AND {_LAST}"),
    Reading.BOOLEAN: ("{0} = 'true'", "{0} NOT IN ('true', 'false')"),
    Reading.ISO_TIME: (
        f"CASE WHEN {{0}} <> '\"0001-01-01T00:00:00Z\"' THEN nullif({_INSTANT}, {_NEVER}) END",
        f"{{0}} <> '\"0001-01-01T00:00:00Z\"' AND (NOT {_IS_TEXT} OR {_INSTANT} IS NULL)",
    ),
    Reading.TEXT_OR_JSON: (f"CASE WHEN {_IS_TEXT} THEN {{0}}->>'$' ELSE {{0}}::VARCHAR END", "false"),
    Reading.TEXT_OR_TYPE: (
        f"CASE WHEN {_IS_TEXT} THEN {{0}}->>'$' ELSE {{0}}->>'$.type' END",
        f"NOT {_IS_TEXT} AND (NOT prefix({{0}}, '{{{{') OR {_TYPE_OF.format('{0}', '$.type', 'VARCHAR')})",
    ),
    Reading.DETAIL_TYPE: (
        f"CASE WHEN NOT {_IS_TEXT} THEN {{0}}->>'$.detail.type' END",
        f"{_TYPE_OF.format('{0}', '$.detail', 'OBJECT')} OR {_TYPE_OF.format('{0}', '$.detail.type', 'VARCHAR')}",
    ),
}


def _select(kind: EventKind, contact_mode: str) -> str:
    values = [f"{_value(column, contact_mode)} AS {column.name}" for column in kind.columns]
    misfits = [line for column in kind.columns for line in _misfit(column)]
    hashed = f"hash({_leaf(kind.columns[0])}) AS {ID_HASH}"
    reason = f"CASE {' '.join(misfits)} END AS reason"
    return f"SELECT {', '.join([*values, hashed, reason])}"


def _value(column: Column, contact_mode: str) -> str:
    if column.name in CONTACT_COLUMNS and contact_mode == "drop":
        return "NULL::VARCHAR"
    return _READINGS[column.reading][0].format(_leaf(column))


def _misfit(column: Column) -> Iterator[str]:
    if column.required:
        yield f"WHEN {_leaf(column)} IS NULL THEN '{column.path} is missing'"
    wrong = _READINGS[column.reading][1].format(_leaf(column))
    right = column.reading.value.split(";")[0]
    if wrong != "false":
        yield f"WHEN {_leaf(column)} IS NOT NULL AND ({wrong}) THEN '{column.path} is not {right}'"


def _leaf(column: Column) -> str:
    return ".".join(f'"{name}"' for name in column.path.split("."))


Tree = dict[str, "Tree | None"]


def _tree(paths: Any) -> Tree:
    """Nested names of the fields at `paths`; None stands for a value that is read whole."""
    root: Tree = {}
    for path in paths:
        *parents, leaf = path.split(".")
        node = root
        for name in parents:
            child = node.get(name) or {}
            node[name] = child
            node = child
        node.setdefault(leaf, None)
    return root


def _columns(tree: Tree) -> str:
    """DuckDB's `columns` for a tree: structs down to leaves of type JSON."""

    def struct(node: Tree | None) -> str:
        if node is None:
            return "JSON"
        return "STRUCT(" + ", ".join(f'"{name}" {struct(child)}' for name, child in node.items()) + ")"

    return "{" + ", ".join(f"'{name}': '{struct(child)}'" for name, child in tree.items()) + "}"


# --- the slow look at what is odd -----------------------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x1f]")


def _text(part: Part) -> str:
    part.file.seek(0)
    return part.file.read().decode(errors="surrogateescape")


def _unreadable(raw: str, value: Any, containers: Tree) -> str | None:
    """Why DuckDB could not read this event into its columns; None where it could."""
    if not isinstance(value, dict):
        return "the event is not an object"
    if len(raw) > _LARGEST_EVENT // 2:
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


def _strangers(structure: Any, known: Tree, above: str) -> Iterator[str]:
    if not isinstance(structure, dict):
        return
    for name, inner in structure.items():
        if name not in known:
            yield f"{above}{name}"
        elif (below := known[name]) is not None:
            yield from _strangers(inner, below, f"{above}{name}.")


def _misfit_table(odd: list[tuple[int, str, str]]) -> pa.Table:
    times, reasons, events = zip(*sorted(odd), strict=True) if odd else ((), (), ())
    return pa.table([pa.array(times, pa.int64()).cast(TIME), reasons, events], schema=MISFIT_SCHEMA)
