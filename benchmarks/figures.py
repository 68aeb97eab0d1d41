"""Figures of the report, as text: medians, ranges and ratios of a contender's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Row = Mapping[str, Any]
"""A contender at a size, with its runs, each with what it cost."""


def sizes_of(rows: Sequence[Row]) -> list[int]:
    return sorted({row["size"] for row in rows})


def contenders_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["contender"] for row in rows))


def find(rows: Sequence[Row], size: int, name: str) -> Row:
    """The row of a contender at a size; one without runs if there is none."""
    found = (row for row in rows if row.get("size") == size and row["contender"] == name)
    return next(found, {"contender": name, "size": size, "runs": ()})


def good_runs(row: Row) -> list[Row]:
    """The runs of a contender, if none of them failed."""
    return [] if any(run["failed"] for run in row["runs"]) else list(row["runs"])


def why_not(row: Row) -> str:
    failed: str = next(run["failed"] for run in row["runs"] if run["failed"])
    return failed.splitlines()[0]


def middle(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def spread(runs: Sequence[Row], cost: str, form: str) -> str:
    return middle([run[cost] for run in runs], form)


def peak(runs: Sequence[Row]) -> str:
    return f"{peak_bytes(runs) / 2**20:,.0f}"


def peak_bytes(runs: Sequence[Row]) -> int:
    return max(run["peak"] for run in runs)


def peak_mib(row: Row) -> float | None:
    good = good_runs(row)
    return max(run["peak"] for run in good) / 2**20 if good else None


def median_of(row: Row, cost: str) -> float | None:
    good = good_runs(row)
    return float(median(run[cost] for run in good)) if good else None


def rate_of(row: Row) -> float | None:
    good = good_runs(row)
    return float(median(row["size"] / run["wall"] for run in good)) if good else None


def ratio(row: Row, base: Row, cost: str) -> str:
    """A contender's cost over that of another, round by round."""
    pairs = zip(good_runs(row), good_runs(base), strict=False)
    ratios = [run[cost] / other[cost] for run, other in pairs if other[cost]]
    return middle(ratios, ".2f") if ratios and row is not base else ("1" if ratios else "")
