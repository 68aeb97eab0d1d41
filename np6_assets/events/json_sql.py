"""The SQL that DuckDB's JSON reader runs, generated from the table of event kinds.

Two ways to read the same columns. The strict one reads every value as JSON and judges it by its own type. The plain one
lets the reader make of each value what the column holds, which costs half as much and hides a number in a text column,
and a text in a number's: the decoder takes its rows only where it can account for every byte of the part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from np6_assets.events.kinds import Column, EventKind, Reading

ID_HASH = "id_hash"
"""A helper column beside the stored ones: a 64-bit hash of `event_id`."""

REASON = "reason"
"""A helper column of the strict query: why the event does not fit; null where it does."""

REST_BYTES = "rest_bytes"
REST_QUOTES = "rest_quotes"
"""Helper columns of the plain query: how many bytes and quotation marks of the event stand in the columns that are not
plain; null where one of these does not fit."""

LARGEST_EVENT = 8 * 2**20
"""Bytes of the largest event that DuckDB is to read."""

STRUCTURES = f"""SELECT DISTINCT json_structure(json)
    FROM read_json_objects(?, format='array', maximum_object_size={LARGEST_EVENT})"""
"""Gives the distinct structures of the events of a part, as DuckDB's json_structure describes them."""

EARLIEST = -62_135_596_800_000
LATEST = 253_402_300_799_999
"""The years 1 to 9999 in ms since 1970."""

Tree = dict[str, "Tree | None"]

_PLAIN = {
    Reading.TEXT: ("VARCHAR",),
    Reading.REQUIRED_TEXT: ("VARCHAR",),
    Reading.INTEGER: ("BIGINT", "UBIGINT"),
    Reading.MILLISECONDS: ("BIGINT", "UBIGINT"),
    Reading.BOOLEAN: ("BOOLEAN",),
}
"""What the plain query reads as it is stored: the type that it gives to it, and others that json_structure may see."""
_IS_TEXT = "prefix({0}, '\"')"
_NUMBER = "TRY_CAST({0}::VARCHAR AS BIGINT)"
_NO_NUMBER = f"{_NUMBER} IS NULL OR {_NUMBER}::VARCHAR <> {{0}}::VARCHAR"
# what is finer than ms is cut off, not rounded: 9999-12-31T23:59:59.9999999Z stays in its year
_INSTANT = (
    "CASE WHEN regexp_matches({0}->>'$', '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') "
    "THEN epoch_ms(TRY_CAST(regexp_replace({0}->>'$', '([.][0-9]{{3}})[0-9]+', '\\1') AS TIMESTAMPTZ)) END"
)
_NEVER = '"0001-01-01T00:00:00Z"'
_TYPE_OF = "json_type({0}, '{1}') NOT IN ('{2}', 'NULL')"

_READINGS: Mapping[Reading, tuple[str, str]] = {
    # the value, and what makes the event a misfit; {0} is the JSON leaf, not null
    Reading.TEXT: ("{0}->>'$'", f"NOT {_IS_TEXT}"),
    Reading.REQUIRED_TEXT: ("{0}->>'$'", f"NOT {_IS_TEXT} OR {{0}} = '\"\"'"),
    Reading.INTEGER: (_NUMBER, _NO_NUMBER),
    Reading.MILLISECONDS: (_NUMBER, f"{_NO_NUMBER} OR {_NUMBER} NOT BETWEEN {EARLIEST} AND {LATEST}"),
    Reading.BOOLEAN: ("{0} = 'true'", "{0} NOT IN ('true', 'false')"),
    Reading.ISO_TIME: (
        f"CASE WHEN {{0}} <> '{_NEVER}' THEN nullif({_INSTANT}, {EARLIEST}) END",
        f"{{0}} <> '{_NEVER}' AND (NOT {_IS_TEXT} OR {_INSTANT} IS NULL)",
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


def strict_query(kind: EventKind) -> str:
    """Gives the stored columns (times as ms since 1970), ID_HASH and REASON, in the order of the part."""
    misfits = [line for column in kind.columns for line in _misfit(column)]
    columns = [*(_value(column) for column in kind.columns), _hash(kind), f"CASE {' '.join(misfits)} END AS {REASON}"]
    return f"SELECT {', '.join(columns)} FROM {_source(kind, {})}"


def plain_query(kind: EventKind) -> str:
    """Gives the stored columns (times as ms since 1970), ID_HASH, REST_BYTES and REST_QUOTES."""
    # several columns may read one leaf: it is counted once, and has to fit them all
    rest: dict[str, list[Reading]] = {}
    for column in kind.columns:
        if not is_plain(column):
            rest.setdefault(_leaf(column), []).append(column.reading)
    columns = [
        *(f"{_leaf(column)} AS {column.name}" if is_plain(column) else _value(column) for column in kind.columns),
        f"hash({_leaf(kind.columns[0])}) AS {ID_HASH}",
        f"{' + '.join(_size(leaf, readings) for leaf, readings in rest.items()) or '0'} AS {REST_BYTES}",
        f"{' + '.join(_quotes(leaf, readings[0]) for leaf, readings in rest.items()) or '0'} AS {REST_QUOTES}",
    ]
    types = {column.path: _PLAIN[column.reading][0] for column in kind.columns if is_plain(column)}
    return f"SELECT {', '.join(columns)} FROM {_source(kind, types)}"


def is_plain(column: Column) -> bool:
    """Whether the plain query reads the column as it is stored."""
    return column.reading in _PLAIN


def plain_types(column: Column) -> tuple[str, ...]:
    """What json_structure calls the values that a plain column takes."""
    return _PLAIN[column.reading]


def _value(column: Column) -> str:
    return f"{_READINGS[column.reading][0].format(_leaf(column))} AS {column.name}"


def _hash(kind: EventKind) -> str:
    identity = kind.columns[0]
    return f"hash({_READINGS[identity.reading][0].format(_leaf(identity))}) AS {ID_HASH}"


def _misfit(column: Column) -> Iterator[str]:
    if column.required:
        yield f"WHEN {_leaf(column)} IS NULL THEN '{column.path} is missing'"
    wrong = _READINGS[column.reading][1].format(_leaf(column))
    right = column.reading.value.split(";")[0]
    if wrong != "false":
        yield f"WHEN {_leaf(column)} IS NOT NULL AND ({wrong}) THEN '{column.path} is not {right}'"


def _size(leaf: str, readings: list[Reading]) -> str:
    """How many bytes a leaf takes; null where it does not fit each of its readings."""
    reading, *_ = readings
    wrong = " OR ".join(f"({_READINGS[each][1].format(leaf)})" for each in readings)
    known = f"WHEN {leaf} = '{_NEVER}' THEN {len(_NEVER)} " if reading is Reading.ISO_TIME else ""
    return f"CASE WHEN {leaf} IS NULL THEN 4 {known}WHEN NOT ({wrong}) THEN strlen({leaf}::VARCHAR) END"


def _quotes(leaf: str, reading: Reading) -> str:
    """How many quotation marks stand in a leaf that fits."""
    if reading is Reading.ISO_TIME:
        return f"CASE WHEN {leaf} IS NULL THEN 0 ELSE 2 END"
    text = f"{leaf}::VARCHAR"
    return f"coalesce(strlen({text}) - strlen(replace({text}, '\"', '')), 0)"


def _leaf(column: Column) -> str:
    return ".".join(f'"{name}"' for name in column.path.split("."))


def tree(paths: Iterable[str]) -> Tree:
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


def _source(kind: EventKind, types: Mapping[str, str]) -> str:
    """DuckDB's reader for one part, with structs down to leaves, which are of type JSON where no other is given."""

    def struct(node: Tree | None, path: str) -> str:
        if node is None:
            return types.get(path, "JSON")
        return (
            "STRUCT(" + ", ".join(f'"{name}" {struct(child, f"{path}.{name}")}' for name, child in node.items()) + ")"
        )

    root = tree(column.path for column in kind.columns)
    columns = ", ".join(f"'{name}': '{struct(child, name)}'" for name, child in root.items())
    return f"read_json(?, format='array', columns={{{columns}}}, maximum_object_size={LARGEST_EVENT})"
