"""DuckDB connections: to decode parts, and to query stored files in bounded memory."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from np6_assets.storage.files import Folder


class Query:
    """Queries the files below a folder; in SQL they are `read_parquet($file)`."""

    def __init__(self, database: duckdb.DuckDBPyConnection, folder: Folder) -> None:
        self._database = database
        self._folder = folder

    def fetch_rows(self, sql: str, *files: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Fetch a small result."""
        paths = [self._folder.path(file) for file in files]
        return self._database.sql(sql, params={"file": paths, **parameters}).fetchall()


@contextmanager
def open_query(folder: Folder) -> Iterator[Query]:
    """Open a Query for the length of the block."""
    # DuckDB creates this folder if it needs more memory, and removes it
    spill = str(Path(tempfile.gettempdir()) / f"np6-{uuid.uuid4().hex}")
    # two threads need a third more memory
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": "200MB",
        "temp_directory": spill,
        "autoinstall_known_extensions": False,
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=config) as database:
        if (filesystem := folder.filesystem) is not None:
            database.register_filesystem(filesystem)
        yield Query(database, folder)


def connect_decoder() -> duckdb.DuckDBPyConnection:
    """Connect to a database that decodes parts."""
    # One thread a query, as parts are decoded side by side. Extensions are built in; nothing is fetched, spilled or
    # cached: the parts' paths are used again.
    return duckdb.connect(
        config={
            "threads": 1,
            "memory_limit": "1GB",
            "temp_directory": "",
            "enable_external_file_cache": False,
            "autoinstall_known_extensions": False,
            "TimeZone": "UTC",
        }
    )
