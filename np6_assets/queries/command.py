"""`np6-assets sql`: one query as a table or CSV, a session in the terminal, or a file of the views for other tools."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import duckdb

from np6_assets.queries.ready import QUERIES
from np6_assets.queries.views import open_views, write_views
from np6_assets.settings import Settings

_ALL = 2**31 - 1
_ROWS_AT_ONCE = 2**13

_HELP = "SQL ends with a semicolon; SHOW TABLES; lists the views. A query's name runs it: {names}. Ctrl-D ends."


class QueryError(Exception):
    """A query cannot be run; the text is one line."""


def run(settings: Settings, query: str | None, *, as_csv: bool) -> None:
    """Run a query, given by its name, its file or its text, and print the result; without one, read from the terminal.

    Raises QueryError, or OSError where a file cannot be read.
    """
    if query is None and sys.stdin.isatty():
        _run_session(open_views(settings))
        return
    text = sys.stdin.read() if query is None else _read_query(query)
    with open_views(settings) as database:
        try:
            _print_rows(database, text, as_csv=as_csv)
        except duckdb.Error as error:
            raise QueryError(str(error).partition("\n")[0]) from error


def write(settings: Settings, path: Path) -> None:
    """Write a file of the views, and say what other programs need. Raises QueryError or OSError."""
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
    """Run each statement of a text, and print its rows: rounded to 4 digits in a table, as they are in CSV."""
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
        # as wide as it is where no terminal says how much there is room for
        width = None if sys.stdout.isatty() else _ALL
        relation.project(", ".join(shown)).show(max_width=width, max_rows=_ALL, null_value="")


def _write_csv(result: duckdb.DuckDBPyConnection) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(column for column, *_ in result.description or ())
    while rows := result.fetchmany(_ROWS_AT_ONCE):
        writer.writerows(rows)


def _run_session(database: duckdb.DuckDBPyConnection) -> None:
    """Read statements from the terminal and show what they give, until the end of input."""
    import readline  # noqa: F401 -- gives input() a history and keys to edit with

    print(_HELP.format(names=", ".join(QUERIES)))
    text = ""
    while True:
        try:
            text += input("     > " if text else "np6-> ") + "\n"
            named = QUERIES.get(text.strip().removesuffix(";"))
            if named is None and text.strip() and not text.rstrip().endswith(";"):
                continue
            _print_rows(database, named or text)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:  # of a statement, or of what was typed of one
            print()
        except duckdb.Error as error:
            print(error)
        text = ""
