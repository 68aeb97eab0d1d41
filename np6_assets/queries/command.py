"""Run `np6-assets sql`: print a query as a table or CSV, read SQL from a terminal, or write a file of the views."""

from __future__ import annotations

import code
import csv
import sys
from pathlib import Path

import duckdb

from np6_assets.queries.ready import QUERIES
from np6_assets.queries.views import open_views, write_views
from np6_assets.settings import Settings

_UNLIMITED = 2**31 - 1
_FETCH_ROWS = 2**13

_HELP = "SQL ends with a semicolon; SHOW TABLES; lists the views. A query's name runs it: {names}. Ctrl-D ends."


class QueryError(Exception):
    """A query failed; the text is one line."""


def run(settings: Settings, query: str | None, *, as_csv: bool) -> None:
    """Run a query (a ready query's name, a .sql file or SQL) and print its rows; without one, read standard input.

    Raises QueryError, or OSError if a file cannot be read.
    """
    if query is None and sys.stdin.isatty():
        import readline  # noqa: F401 -- gives input() history and line editing

        sys.ps1, sys.ps2 = "np6-> ", "     > "
        _Session(open_views(settings)).interact(_HELP.format(names=", ".join(QUERIES)), exitmsg="")
        return
    text = sys.stdin.read() if query is None else _read_query(query)
    with open_views(settings) as database:
        try:
            _print_rows(database, text, as_csv=as_csv)
        except duckdb.Error as error:
            raise QueryError(str(error).partition("\n")[0]) from error


def write(settings: Settings, path: Path) -> None:
    """Write a DuckDB file of the views, and print what its readers need. Raises QueryError or OSError."""
    try:
        absent = write_views(settings, path)
    except duckdb.Error as error:
        raise QueryError(f"{path}: {str(error).partition(chr(10))[0]}") from error
    print(f"{path} has the views and no data: it reads {settings.data_dir} on this machine.")
    if "://" in settings.data_dir:
        protocol = settings.data_dir.partition("://")[0]
        print(
            f"It names the files that are there now: write it again for new days. What opens it needs access to "
            f"{protocol}://; DuckDB itself: INSTALL httpfs; CREATE SECRET (TYPE {protocol}, PROVIDER credential_chain);"
        )
    if absent:
        print(f"Not stored yet, so empty until it is written again: {', '.join(absent)}")


def _read_query(query: str) -> str:
    if query in QUERIES:
        return QUERIES[query]
    if query.endswith(".sql"):
        return Path(query).read_text()
    if query.isidentifier():
        raise QueryError(f"there is no query {query!r}; there are {', '.join(QUERIES)}")
    return query


def _print_rows(database: duckdb.DuckDBPyConnection, text: str, *, as_csv: bool = False) -> None:
    """Run each statement and print its rows: rounded to 4 digits in a table, exact in CSV."""
    for statement in duckdb.extract_statements(text):
        if as_csv:
            _write_csv(database.execute(statement.query))
            continue
        relation = database.sql(statement.query)
        columns = (f'"{column.replace(chr(34), chr(34) * 2)}"' for column in relation.columns)
        shown = [
            f"round({column}, 4) AS {column}" if str(type_) == "DOUBLE" else column
            for column, type_ in zip(columns, relation.types, strict=True)
        ]
        # no limit where the output is no terminal
        width = None if sys.stdout.isatty() else _UNLIMITED
        relation.project(", ".join(shown)).show(max_width=width, max_rows=_UNLIMITED, null_value="")


def _write_csv(result: duckdb.DuckDBPyConnection) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(column for column, *_ in result.description or ())
    while rows := result.fetchmany(_FETCH_ROWS):
        writer.writerows(rows)


class _Session(code.InteractiveConsole):
    """Reads statements from the terminal and prints their rows, until the end of input."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        super().__init__()
        self._database = database

    def runsource(self, source: str, *_: str) -> bool:
        """Run what was typed; True if it goes on on the next line."""
        query = QUERIES.get(source.strip().removesuffix(";"))
        if query is None and source.strip() and not source.rstrip().endswith(";"):
            return True
        try:
            _print_rows(self._database, query or source)
        except duckdb.Error as error:
            print(error)
        return False
