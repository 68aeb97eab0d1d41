"""Convert between Arrow tables and the oracle's rows: dicts in which times are whole milliseconds since epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from np6_assets_tests.support.oracle import Row

_TYPES = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "timestamp[ms, tz=UTC]": pa.timestamp("ms", tz="UTC"),
}


def read_rows(table: pa.Table) -> list[Row]:
    """The table's rows, in its order."""
    numbers = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in table.itercolumns()
    ]
    rows: list[Row] = pa.table(numbers, names=table.column_names).to_pylist()
    return rows


def read_types(table: pa.Table | pa.Schema) -> dict[str, str]:
    """Column -> type, as the oracle spells it, in the table's order."""
    schema = table if isinstance(table, pa.Schema) else table.schema
    return {field.name: str(field.type) for field in schema}


def canonicalize(rows: Iterable[Row]) -> list[Row]:
    """The rows, with the fields of every object in a JSON text in alphabetical order.

    The API may send the fields of one object in another order each time.
    """
    return [{name: _canonical(value) for name, value in row.items()} for row in rows]


def _canonical(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        return json.dumps(json.loads(value), sort_keys=True)
    except ValueError:
        return value


def build_table(rows: Iterable[Row], types: Mapping[str, str]) -> pa.Table:
    """A table of these columns from the oracle's rows."""
    rows = list(rows)
    columns = [
        pa.array([row[name] for row in rows], _number(type_)).cast(_TYPES[type_]) for name, type_ in types.items()
    ]
    return pa.table(columns, names=list(types))


def _number(type_: str) -> pa.DataType:
    return pa.int64() if type_.startswith("timestamp") else _TYPES[type_]


def assert_rows_equal(found: Sequence[Row], expected: Sequence[Row]) -> None:
    """The same rows; counts exactly, floating point to the last few bits."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            if isinstance(value, float):
                assert math.isclose(one[name], value, rel_tol=1e-12, abs_tol=1e-15), (name, one, other)
            else:
                assert one[name] == value, (name, one, other)
