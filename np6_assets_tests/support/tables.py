"""Convert between Arrow tables and the oracle's rows, in which times are whole milliseconds since epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from np6_assets_tests.support.builders import dump_json
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
    """Return the rows of a table."""
    numbers = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in table.itercolumns()
    ]
    rows: list[Row] = pa.table(numbers, names=table.column_names).to_pylist()
    return rows


def read_types(table: pa.Table | pa.Schema) -> dict[str, str]:
    """Return the type of each column, as the oracle spells it."""
    schema = table if isinstance(table, pa.Schema) else table.schema
    return {field.name: str(field.type) for field in schema}


def canonicalize(rows: Iterable[Row]) -> list[Row]:
    """Sort the fields of objects in JSON texts, whose order the API may change."""
    return [{name: _canonicalize_value(value) for name, value in row.items()} for row in rows]


def _canonicalize_value(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        return dump_json(json.loads(value))
    except ValueError:
        return value


def build_table(rows: Iterable[Row], types: Mapping[str, str]) -> pa.Table:
    """Build a table from the oracle's rows."""
    rows = list(rows)
    columns = [
        pa.array([row[name] for row in rows], _choose_input_type(type_)).cast(_TYPES[type_])
        for name, type_ in types.items()
    ]
    return pa.table(columns, names=list(types))


def _choose_input_type(type_: str) -> pa.DataType:
    return pa.int64() if type_.startswith("timestamp") else _TYPES[type_]


def assert_rows_equal(found: Sequence[Row], expected: Sequence[Row]) -> None:
    """Assert that rows are equal, floating-point values but for the last few bits."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            if isinstance(value, float):
                assert math.isclose(one[name], value, rel_tol=1e-12, abs_tol=1e-15), (name, one, other)
            else:
                assert one[name] == value, (name, one, other)
