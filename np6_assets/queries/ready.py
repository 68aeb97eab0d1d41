"""The ready queries: the SQL files beside this one, over the views of `views.sql`."""

from __future__ import annotations

from importlib.resources import files

VIEWS = files(__package__).joinpath("views.sql").read_text()

QUERIES = {
    file.name.removesuffix(".sql"): file.read_text()
    for file in sorted(files(__package__).iterdir(), key=lambda file: file.name)
    if file.name.endswith(".sql") and file.name != "views.sql"
}
"""SQL by query name."""


def describe_query(query: str) -> str:
    """Return the first line of a query's comment, which describes it."""
    return QUERIES[query].partition("\n")[0].removeprefix("-- ")
