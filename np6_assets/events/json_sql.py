"""The SQL that reads a part with DuckDB, generated from the table of event kinds.

Every leaf is read as text (a scalar becomes its text, an object or list its JSON text); numbers and booleans are cast
only if the text is exactly one, as DuckDB's own casts round 156.5 and take "yes" for true.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from np6_assets.events.kinds import JSON_OBJECTS, Column, EventKind, Reading
from np6_assets.np6.timestamps import MICROSECONDS_FROM, MILLISECONDS_FROM, NANOSECONDS_FROM

ID_HASH = "id_hash"
"""Helper column: a 64-bit hash of `event_id`."""

NEEDS_CHECK = "is_doubtful"
"""Helper column: whether the event may have to be rejected, which `reject.py` decides."""

UNREADABLE = "unreadable"
"""Helper column: bit i is set if the value of the i-th of `list_nullable_columns` cannot be read."""

LARGEST_EVENT = 8 * 2**20
"""Bytes that DuckDB reserves for an event; a larger one that it refuses is rejected."""

EVENTS_AT = f"""
    SELECT place, json FROM (
        SELECT row_number() OVER () - 1 AS place, json
        FROM read_json_objects($part, format = 'array', maximum_object_size = {LARGEST_EVENT})
    )
    WHERE place IN (SELECT unnest($places))
"""
"""Selects the texts of the events at some places of a part."""

Tree = dict[str, "Tree | None"]

_EXACT_INTEGER = (
    "CASE WHEN TRY_CAST({0} AS BIGINT)::VARCHAR = {0} THEN TRY_CAST({0} AS BIGINT) "
    # a JSON number with a fraction is a double, exact up to 15 digits
    "WHEN regexp_full_match({0}, '-?(0|[1-9][0-9]{{0,14}})[.]0+|-0') THEN TRY_CAST({0} AS DOUBLE)::BIGINT END"
)
_MILLISECONDS = (
    f"CASE WHEN {{0}} <= 0 THEN NULL WHEN {{0}} < {MILLISECONDS_FROM} THEN {{0}} * 1000 "
    f"WHEN {{0}} < {MICROSECONDS_FROM} THEN {{0}} "
    f"WHEN {{0}} < {NANOSECONDS_FROM} THEN {{0}} // 1000 ELSE {{0}} // 1000000 END"
)
_NEVER = "0001-01-01T00:00:00Z"
_YEAR_1 = -62_135_596_800_000
# what is finer than ms is cut off, not rounded: 9999-12-31T23:59:59.9999999Z stays in its year
_INSTANT = (
    "CASE WHEN regexp_matches({0}, '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') "
    "THEN epoch_ms(TRY_CAST(regexp_replace({0}, '([.][0-9]{{3}})[0-9]+', '\\1') AS TIMESTAMPTZ)) END"
)


@dataclass(frozen=True)
class _ColumnSql:
    """SQL of a column's value, of whether its event needs a check, and of whether the value is unreadable."""

    value: str
    needs_check: str | None = None
    unreadable: str | None = None


_IS_OF_UNKNOWN_AGENCY = """coalesce(len($agencies) > 0 AND NOT list_contains($agencies, "identity.agency"), false)"""


def build_part_query(kind: EventKind) -> str:
    """Build the query for a part ($part): the stored columns (times in ms) and the helper columns, in order.

    Events of other than the known $agencies need a check; if there are none, every one is admitted.
    """
    paths = dict.fromkeys(_find_json_object(column) or column.path for column in kind.columns)
    leaves = [f"{'.'.join(map(_quote, path.split('.')))} AS {_quote(path)}" for path in paths]
    texts = [
        f"{_EXACT_INTEGER.format(_quote(column.path))} AS {_quote_number(column)}"
        for column in kind.columns
        if column.reading in (Reading.INTEGER, Reading.TIME)
    ]
    for part in filter(JSON_OBJECTS.__contains__, paths):
        inside = [column.path for column in kind.columns if _find_json_object(column) == part]
        pointers = ", ".join(f"'${path.removeprefix(part)}'" for path in inside)
        texts.append(f"json_extract_string({_quote(part)}, [{pointers}]) AS {_quote_texts(part)}")
        texts += [f"{_quote_texts(part)}[{place}] AS {_quote(path)}" for place, path in enumerate(inside, 1)]
    values = [f"{_build_column_sql(column).value} AS {column.name}" for column in kind.columns]
    doubts = [
        doubt
        for column in kind.columns
        if column.used_by_rates and (doubt := _build_column_sql(column).needs_check) is not None
    ]
    bits = [
        f"CASE WHEN {_build_column_sql(column).unreadable} THEN {1 << bit} ELSE 0 END"
        for bit, column in enumerate(list_nullable_columns(kind))
    ]
    doubts.append(_IS_OF_UNKNOWN_AGENCY)
    return (
        f"SELECT {', '.join(values)}, hash({_quote(kind.columns[0].path)}) AS {ID_HASH}, "
        f"{' OR '.join(doubts)} AS {NEEDS_CHECK}, ({' + '.join(bits)})::UINTEGER AS {UNREADABLE} "
        f"FROM (SELECT *, {', '.join(texts)} FROM (SELECT {', '.join(leaves)} FROM {_build_reader(kind)}))"
    )


def list_nullable_columns(kind: EventKind) -> list[Column]:
    """List the columns that may be unreadable in a stored event, in the order of UNREADABLE's bits."""
    return [column for column in kind.columns if _build_column_sql(column).unreadable is not None]


def build_tree(paths: Iterable[str]) -> Tree:
    """Nest the field names of some paths; None stands for a value that is read whole."""
    root: Tree = {}
    for path in paths:
        *parents, leaf = path.split(".")
        node: Any = root
        for name in parents:
            node = node.setdefault(name, {})
        node.setdefault(leaf, None)
    return root


def build_kind_tree(kind: EventKind) -> Tree:
    """Build the tree of what DuckDB reads as objects; what is below a None may have any shape."""
    return build_tree(_find_json_object(column) or column.path for column in kind.columns)


def _build_column_sql(column: Column) -> _ColumnSql:
    part, leaf, number = _find_json_object(column), _quote(column.path), _quote_number(column)
    if part is not None:
        return _build_json_column_sql(column, part)
    is_no_number = f"({leaf} IS NOT NULL AND {number} IS NULL)"
    match column.reading:
        case Reading.INTEGER:
            return _ColumnSql(number, f"{number} IS NULL" if column.required else is_no_number)
        case Reading.TIME:
            doubt = f"coalesce({number}, 0) <= 0" if column.required else is_no_number
            return _ColumnSql(_MILLISECONDS.format(number), doubt)
        case Reading.BOOLEAN:
            value = f"CASE {leaf} WHEN 'true' THEN true WHEN 'false' THEN false END"
            return _ColumnSql(value, unreadable=f"{leaf} NOT IN ('true', 'false')")
        case Reading.ISO_TIME:
            instant, is_time = _INSTANT.format(leaf), f"CASE WHEN {leaf} <> '{_NEVER}' THEN"
            return _ColumnSql(
                f"{is_time} nullif({instant}, {_YEAR_1}) END", unreadable=f"{is_time} {instant} IS NULL END"
            )
        case _:
            # an object or a list, or a string that looks like one
            doubt = f"coalesce(prefix({leaf}, '{{') OR prefix({leaf}, '['), false)"
            return _ColumnSql(leaf, f"{doubt} OR coalesce({leaf}, '') = ''" if column.required else doubt)


def _build_json_column_sql(column: Column, part: str) -> _ColumnSql:
    """Build the SQL of a column whose value is inside an object that is read as JSON."""
    leaf, type_ = _quote(column.path), _quote(f"{part}.type")
    # a string is a shape that the API's samples show of the subject and of the receiver's value
    as_text = "$" if part.endswith("subject") else "$.value"
    is_text = f"{_build_json_type(part, as_text)} = 'VARCHAR'"
    text_counts = {
        Reading.RECEIVER_ID: f"{type_} = 'id' AND {is_text}",
        Reading.RECEIVER_UNICITY: f"{type_} IS DISTINCT FROM 'id' AND {is_text}",
        Reading.SUBJECT: is_text,
    }.get(column.reading, "false")
    names = f"${column.path.removeprefix(part)}".split(".")[:-1]
    above = [".".join(names[:depth]) for depth in range(1, len(names) + 1)]
    right = {one: "'OBJECT', 'NULL', 'VARCHAR'" if one == as_text else "'OBJECT', 'NULL'" for one in above}
    wrong = " OR ".join(f"{_build_json_type(part, one)} NOT IN ({types})" for one, types in right.items())
    return _ColumnSql(
        f"CASE WHEN {leaf} IS NOT NULL THEN {leaf} WHEN {text_counts} THEN {_quote(part)}->>'{as_text}' END",
        unreadable=f"CASE WHEN {leaf} IS NULL AND {_quote(part)} IS NOT NULL THEN {wrong} END",
    )


def _find_json_object(column: Column) -> str | None:
    """Find the object that is read as JSON and holds the column's value."""
    return next((part for part in JSON_OBJECTS if column.path.startswith(f"{part}.")), None)


def _build_json_type(part: str, path: str) -> str:
    return f"coalesce(json_type({_quote(part)}, '{path}'), 'NULL')"


def _quote(name: str) -> str:
    return f'"{name}"'


def _quote_number(column: Column) -> str:
    return _quote(f"{column.path} as a number")


def _quote_texts(part: str) -> str:
    return _quote(f"texts in {part}")


def _build_reader(kind: EventKind) -> str:
    """Build DuckDB's reader of one part, with structs down to leaves."""

    def struct(node: Tree | None, path: str) -> str:
        if node is None:
            return "JSON" if path in JSON_OBJECTS else "VARCHAR"
        fields = (f"{_quote(name)} {struct(child, f'{path}.{name}')}" for name, child in node.items())
        return f"STRUCT({', '.join(fields)})"

    columns = ", ".join(f"'{name}': '{struct(child, name)}'" for name, child in build_kind_tree(kind).items())
    return f"read_json($part, format = 'array', columns = {{{columns}}}, maximum_object_size = {LARGEST_EVENT})"
