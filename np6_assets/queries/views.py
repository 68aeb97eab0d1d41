"""Create the views of `views.sql` over the stored assets, in memory or in a DuckDB file."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from np6_assets.events.kinds import KINDS
from np6_assets.partitions import ACTIVATION_DATE, EVENT_DATE
from np6_assets.queries.ready import VIEWS
from np6_assets.rates.columns import SCHEMA
from np6_assets.rates.compute import open_duckdb
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

# columns that the views read; the file may have more
_NOTIFICATIONS = pa.schema({"activation_id": pa.int64(), "name": pa.string()})

# asset: (columns, partition column)
_ASSETS: Mapping[str, tuple[pa.Schema, str | None]] = {
    **{kind.asset: (kind.schema, EVENT_DATE) for kind in KINDS},
    "notifications": (_NOTIFICATIONS, None),
    "reactivity_rates": (SCHEMA, ACTIVATION_DATE),
}

_OLDEST_READER = "v1.0.0"
"""The oldest version of DuckDB that reads a written file: other tools ship older versions."""


def open_views(settings: Settings) -> duckdb.DuckDBPyConnection:
    """Open an in-memory database with the views.

    Each query sees the files that are stored when it runs; in a remote folder, those stored now.
    """
    database = open_duckdb()
    _create_views(database, settings)
    return database


def write_views(settings: Settings, path: Path) -> list[str]:
    """Write a DuckDB file with the views and no data; return the assets without files, whose views are empty.

    Raises FileExistsError if the file exists: it could hold tables.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already: remove it, or name another file")
    with duckdb.connect(
        str(path), config={"storage_compatibility_version": _OLDEST_READER, "autoinstall_known_extensions": False}
    ) as database:
        return _create_views(database, settings)


def _create_views(database: duckdb.DuckDBPyConnection, settings: Settings) -> list[str]:
    folder = Folder(settings.data_dir).cache_listing()
    if (filesystem := folder.filesystem) is not None:
        database.register_filesystem(filesystem)
    database.execute("CREATE SCHEMA stored")
    database.execute(f"CREATE VIEW settings AS SELECT {_quote_literal(settings.timezone)} AS timezone")
    absent = []
    for asset, (schema, partition_column) in _ASSETS.items():
        name = f"stored.{asset}" if asset == "reactivity_rates" else asset
        columns = _write_empty_query(schema, partition_column)
        stored = _find_files(folder, asset, partition_column)
        if not stored:
            absent.append(asset)
            database.execute(f"CREATE VIEW {name} AS {columns}")
            continue
        # older files of rates lack newer columns; the columns of events have never changed
        union = ", union_by_name => true" if asset == "reactivity_rates" else ""
        paths = ", ".join(map(_quote_literal, stored))
        scan = f"FROM read_parquet([{paths}], hive_partitioning => {partition_column is not None}{union})"
        database.execute(f"CREATE VIEW {name} AS {columns} UNION ALL BY NAME {scan}")
    database.execute(VIEWS)
    return absent


def _find_files(folder: Folder, asset: str, partition_column: str | None) -> list[str]:
    """Return a glob pattern of an asset's local files, or the list of its remote files; empty if it has none."""
    files = [file for file in folder.list_files(asset) if posixpath.basename(file) == parquet.FILE_NAME]
    if not files or not folder.is_local:
        return list(map(folder.path, files))
    root = glob.escape(str(Path(folder.root).absolute()))
    return [f"{root}/{parquet.build_path(asset, partition_column, partition_column and '*')}"]


def _write_empty_query(schema: pa.Schema, partition_column: str | None) -> str:
    all_columns = schema if partition_column is None else schema.append(pa.field(partition_column, pa.date32()))
    relation = duckdb.from_arrow(all_columns.empty_table())
    columns = ", ".join(
        f"CAST(NULL AS {type_}) AS {name}" for name, type_ in zip(relation.columns, relation.types, strict=True)
    )
    return f"SELECT {columns} WHERE false"


def _quote_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
