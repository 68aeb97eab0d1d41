"""The SQL by which DuckDB reads a part, generated from the table of event kinds.

Every leaf is read as text (a scalar becomes its text, an object or a list its JSON text), and numbers and booleans are
cast only where the text is exactly one: DuckDB's own casts round 156.5 and take "yes" for true.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from np6_assets.events.kinds import JSON_PARTS, Column, EventKind, Reading
from np6_assets.np6.timestamps import MICROSECONDS_FROM, MILLISECONDS_FROM, NANOSECONDS_FROM

ID_HASH = "id_hash"
"""A helper column beside the stored ones: a 64-bit hash of `event_id`."""

IS_DOUBTFUL = "is_doubtful"
"""A helper column: whether the event may have to be rejected, which `reject.py` decides."""

UNREADABLE = "unreadable"
"""A helper column: bit i is set where the value of the i-th of `nullable_columns` cannot be read."""

LARGEST_EVENT = 8 * 2**20
"""Bytes for which DuckDB makes room; a larger event that it refuses is rejected."""

EVENTS_AT = f"""
    SELECT place, json FROM (
        SELECT row_number() OVER () - 1 AS place, json
        FROM read_json_objects($part, format = 'array', maximum_object_size = {LARGEST_EVENT})
    )
    WHERE place IN (SELECT unnest($places))
"""
"""The text of the events at some places of a part."""

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
class _Sql:
    """A column's value; what makes it doubtful that its event can be stored; whether the value cannot be read."""

    value: str
    doubt: str | None = None
    unreadable: str | None = None


_FOREIGN = """coalesce(len($agencies) > 0 AND NOT list_contains($agencies, "identity.agency"), false)"""


def part_query(kind: EventKind) -> str:
    """Gives the stored columns (times as ms since 1970) and the helper columns, in the order of the part ($part).

    Events of others than the known $agencies are doubtful; where there are none, every one is admitted.
    """
    paths = dict.fromkeys(_part_of(column) or column.path for column in kind.columns)
    leaves = [f"{'.'.join(map(_quoted, path.split('.')))} AS {_quoted(path)}" for path in paths]
    texts = [
        f"{_EXACT_INTEGER.format(_quoted(column.path))} AS {_number(column)}"
        for column in kind.columns
        if column.reading in (Reading.INTEGER, Reading.TIME)
    ]
    for part in filter(JSON_PARTS.__contains__, paths):
        inside = [column.path for column in kind.columns if _part_of(column) == part]
        pointers = ", ".join(f"'${path.removeprefix(part)}'" for path in inside)
        texts.append(f"json_extract_string({_quoted(part)}, [{pointers}]) AS {_texts(part)}")
        texts += [f"{_texts(part)}[{place}] AS {_quoted(path)}" for place, path in enumerate(inside, 1)]
    values = [f"{_sql(column).value} AS {column.name}" for column in kind.columns]
    doubts = [doubt for column in kind.columns if column.rated and (doubt := _sql(column).doubt) is not None]
    bits = [
        f"CASE WHEN {_sql(column).unreadable} THEN {1 << bit} ELSE 0 END"
        for bit, column in enumerate(nullable_columns(kind))
    ]
    doubts.append(_FOREIGN)
    return (
        f"SELECT {', '.join(values)}, hash({_quoted(kind.columns[0].path)}) AS {ID_HASH}, "
        f"{' OR '.join(doubts)} AS {IS_DOUBTFUL}, ({' + '.join(bits)})::UINTEGER AS {UNREADABLE} "
        f"FROM (SELECT *, {', '.join(texts)} FROM (SELECT {', '.join(leaves)} FROM {_source(kind)}))"
    )


def nullable_columns(kind: EventKind) -> list[Column]:
    """The columns whose values may be unreadable in an event that is stored, in the order of UNREADABLE's bits."""
    return [column for column in kind.columns if _sql(column).unreadable is not None]


def tree(paths: Iterable[str]) -> Tree:
    """Nested names of the fields at `paths`; None stands for a value that is read whole."""
    root: Tree = {}
    for path in paths:
        *parents, leaf = path.split(".")
        node: Any = root
        for name in parents:
            node = node.setdefault(name, {})
        node.setdefault(leaf, None)
    return root


def containers(kind: EventKind) -> Tree:
    """What DuckDB reads as objects; everything below a None is read in any shape."""
    return tree(_part_of(column) or column.path for column in kind.columns)


def _sql(column: Column) -> _Sql:
    part, leaf, number = _part_of(column), _quoted(column.path), _number(column)
    if part is not None:
        return _sql_of_json(column, part)
    is_no_number = f"({leaf} IS NOT NULL AND {number} IS NULL)"
    match column.reading:
        case Reading.INTEGER:
            return _Sql(number, f"{number} IS NULL" if column.required else is_no_number)
        case Reading.TIME:
            doubt = f"coalesce({number}, 0) <= 0" if column.required else is_no_number
            return _Sql(_MILLISECONDS.format(number), doubt)
        case Reading.BOOLEAN:
            value = f"CASE {leaf} WHEN 'true' THEN true WHEN 'false' THEN false END"
            return _Sql(value, unreadable=f"{leaf} NOT IN ('true', 'false')")
        case Reading.ISO_TIME:
            instant, is_time = _INSTANT.format(leaf), f"CASE WHEN {leaf} <> '{_NEVER}' THEN"
            return _Sql(f"{is_time} nullif({instant}, {_YEAR_1}) END", unreadable=f"{is_time} {instant} IS NULL END")
        case _:
            # an object or a list, or a string that looks like one
            doubt = f"coalesce(prefix({leaf}, '{{') OR prefix({leaf}, '['), false)"
            return _Sql(leaf, f"{doubt} OR coalesce({leaf}, '') = ''" if column.required else doubt)


def _sql_of_json(column: Column, part: str) -> _Sql:
    """The SQL of a column whose value is in an object that is read as JSON."""
    leaf, type_ = _quoted(column.path), _quoted(f"{part}.type")
    # a string is a shape that the API's samples show of the subject and of the receiver's value
    as_text = "$" if part.endswith("subject") else "$.value"
    is_text = f"{_type_of(part, as_text)} = 'VARCHAR'"
    text_counts = {
        Reading.RECEIVER_ID: f"{type_} = 'id' AND {is_text}",
        Reading.RECEIVER_UNICITY: f"{type_} IS DISTINCT FROM 'id' AND {is_text}",
        Reading.SUBJECT: is_text,
    }.get(column.reading, "false")
    names = f"${column.path.removeprefix(part)}".split(".")[:-1]
    above = [".".join(names[:depth]) for depth in range(1, len(names) + 1)]
    right = {one: "'OBJECT', 'NULL', 'VARCHAR'" if one == as_text else "'OBJECT', 'NULL'" for one in above}
    wrong = " OR ".join(f"{_type_of(part, one)} NOT IN ({types})" for one, types in right.items())
    return _Sql(
        f"CASE WHEN {leaf} IS NOT NULL THEN {leaf} WHEN {text_counts} THEN {_quoted(part)}->>'{as_text}' END",
        unreadable=f"CASE WHEN {leaf} IS NULL AND {_quoted(part)} IS NOT NULL THEN {wrong} END",
    )


def _part_of(column: Column) -> str | None:
    """The object that is read as JSON and that the column's value is in."""
    return next((part for part in JSON_PARTS if column.path.startswith(f"{part}.")), None)


def _type_of(part: str, path: str) -> str:
    return f"coalesce(json_type({_quoted(part)}, '{path}'), 'NULL')"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _number(column: Column) -> str:
    return _quoted(f"{column.path} as a number")


def _texts(part: str) -> str:
    return _quoted(f"texts in {part}")


def _source(kind: EventKind) -> str:
    """DuckDB's reader for one part, with structs down to leaves."""

    def struct(node: Tree | None, path: str) -> str:
        if node is None:
            return "JSON" if path in JSON_PARTS else "VARCHAR"
        fields = (f"{_quoted(name)} {struct(child, f'{path}.{name}')}" for name, child in node.items())
        return f"STRUCT({', '.join(fields)})"

    columns = ", ".join(f"'{name}': '{struct(child, name)}'" for name, child in containers(kind).items())
    return f"read_json($part, format = 'array', columns = {{{columns}}}, maximum_object_size = {LARGEST_EVENT})"
