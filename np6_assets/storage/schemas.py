"""Column schemas: one declaration, as Dagster shows it and as Arrow needs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg
import pyarrow as pa

_TYPES = {
    str(type_): type_
    for type_ in (pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("ms", tz="UTC"))
}

COLUMN_SCHEMA = "dagster/column_schema"
"""Dagster's metadata key for an asset's columns."""

PARTITION_COLUMN = "partition_expr"
"""Dagster's metadata key for the column that an asset is partitioned by."""


def build_storage_metadata(
    columns: Iterable[tuple[str, pa.DataType, str, bool]], partition_column: str | None = None
) -> dict[str, Any]:
    """Build an asset's metadata: columns (name, type, description, nullable) and partition column."""
    schema = dg.TableSchema(
        [
            dg.TableColumn(name, str(type_), description, dg.TableColumnConstraints(nullable=nullable))
            for name, type_, description, nullable in columns
        ]
    )
    metadata: dict[str, Any] = {COLUMN_SCHEMA: schema}
    return metadata if partition_column is None else metadata | {PARTITION_COLUMN: partition_column}


def build_arrow_schema(metadata: Any) -> pa.Schema:
    """Build the Arrow schema that an asset's metadata declares."""
    declared = metadata[COLUMN_SCHEMA]
    schema = declared.value if isinstance(declared, dg.TableSchemaMetadataValue) else declared
    return pa.schema(
        [pa.field(column.name, _TYPES[column.type], column.constraints.nullable) for column in schema.columns]
    )
