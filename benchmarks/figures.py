"""Compute and format the report's figures: medians, ranges and ratios of a contender's runs; build its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Row = Mapping[str, Any]
"""A row of results.json: a contender at a size, with its runs."""

_TEXT_COLUMNS = {"Contender", "How", "Asked for", "Tick", "What", "Command", "Part", "Date", "Commit", "Machine"}


def list_sizes(rows: Sequence[Row]) -> list[int]:
    return sorted({row["size"] for row in rows})


def list_contenders(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["contender"] for row in rows))


def find_row(rows: Sequence[Row], size: int, contender: str) -> Row:
    """Find the row of a contender at a size; if there is none, return one without runs."""
    found = (row for row in rows if row.get("size") == size and row["contender"] == contender)
    return next(found, {"contender": contender, "size": size, "runs": ()})


def list_good_runs(row: Row) -> list[Row]:
    """Return the runs of a row, or none if one of them failed."""
    return [] if any(run["failed"] for run in row["runs"]) else list(row["runs"])


def compute_median(row: Row, cost: str) -> float | None:
    runs = list_good_runs(row)
    return float(median(run[cost] for run in runs)) if runs else None


def compute_rate(row: Row) -> float | None:
    """Compute the median of events a second."""
    runs = list_good_runs(row)
    return float(median(row["size"] / run["wall"] for run in runs)) if runs else None


def compute_peak(row: Row) -> int | None:
    """Compute the most bytes resident in any run."""
    return max((run["peak"] for run in list_good_runs(row)), default=None)


def compute_by_size(rows: Sequence[Row], compute: Callable[[Row], float | None]) -> dict[str, dict[int, float | None]]:
    """Compute a figure of each contender at each size, as a chart needs them."""
    sizes = list_sizes(rows)
    return {name: {size: compute(find_row(rows, size, name)) for size in sizes} for name in list_contenders(rows)}


def format_median(values: Sequence[float], number_format: str) -> str:
    if len(values) == 1:
        return f"{values[0]:{number_format}}"
    low, middle, high = (f"{value:{number_format}}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})"


def format_costs(row: Row, number_format: str = ".2f") -> list[str]:
    """Format seconds, CPU seconds and peak memory in MiB."""
    runs = list_good_runs(row)
    times = [format_median([run[cost] for run in runs], number_format) for cost in ("wall", "cpu")]
    return [*times, f"{(compute_peak(row) or 0) / 2**20:,.0f}"]


def format_ratio(row: Row, base: Row, cost: str) -> str:
    """Format a contender's cost over that of another, compared round by round."""
    pairs = zip(list_good_runs(row), list_good_runs(base), strict=False)
    ratios = [run[cost] / other[cost] for run, other in pairs if other[cost]]
    if not ratios:
        return ""
    return "1" if row is base else format_median(ratios, ".2f")


def build_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Build a Markdown table; short rows are filled with empty cells."""
    alignments = ["---" if column in _TEXT_COLUMNS else "---:" for column in columns]
    return [_join_cells([*row, *[""] * (len(columns) - len(row))]) for row in (columns, alignments, *rows)]


def build_runs_table(
    columns: Sequence[str], rows: Iterable[Row], format_figures: Callable[[Row], Sequence[str]]
) -> list[str]:
    """Build a table of rows: size, contender, and the figures of the runs or the reason of their failure."""
    cells = []
    for row in rows:
        figures = format_figures(row) if list_good_runs(row) else [describe_failure(row)]
        cells.append([f"{row['size']:,}", row["contender"], *figures])
    return build_table(columns, cells)


def describe_failure(row: Row) -> str:
    failed: str = next(run["failed"] for run in row["runs"] if run["failed"])
    return failed.splitlines()[0]


def _join_cells(cells: Iterable[str]) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"
