"""DuckDB's connections: to decode parts, and to query single stored files in bounded memory."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from np6_assets.storage.files import Folder

_ROWS_PER_BATCH = 2**16


class Query:
    """Reads the files below a folder; in SQL one file, or several, is `read_parquet($file)`."""

    def __init__(self, database: duckdb.DuckDBPyConnection, folder: Folder) -> None:
        self._database = database
        self._folder = folder

    def batches(self, sql: str, files: Sequence[str], **parameters: Any) -> Iterator[pa.RecordBatch]:
        """The result, in no order of its own, as it is read."""
        reader: pa.RecordBatchReader = self._result(sql, files, parameters).to_arrow_reader(_ROWS_PER_BATCH)
        yield from reader

    def rows(self, sql: str, file: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The result, where it is small."""
        return self._result(sql, [file], parameters).fetchall()

    def _result(self, sql: str, files: Sequence[str], parameters: dict[str, Any]) -> duckdb.DuckDBPyRelation:
        paths = [self._folder.path(file) for file in files]
        return self._database.sql(sql, params={"file": paths, **parameters})


@contextmanager
def querying(folder: Folder) -> Iterator[Query]:
    """Query files for the length of the block."""
    # DuckDB makes this folder where memory does not suffice, and removes it
    spill = str(Path(tempfile.gettempdir()) / f"np6-{uuid.uuid4().hex}")
    # one thread reads as fast as the rest takes what is read, and two need a third more memory
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
    """A connection that decodes parts."""
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
