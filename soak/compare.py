"""What a round has lost: files that differ from the clean run's, rates that are wrong, and what should not be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq

from np6_assets_tests.support.events import KINDS, Population
from np6_assets_tests.support.oracle import day_bounds, expected_rates, expected_rows
from np6_assets_tests.support.tables import assert_alike, canonical, rows_of


def stored(folder: Path) -> dict[str, Path]:
    """The files below a folder, by relative path, but for hidden ones, over which every reader passes."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def hidden(folder: Path) -> int:
    """How many hidden files are below a folder: each is an upload whose process was killed."""
    return sum(path.is_file() and path.name.startswith(".") for path in folder.rglob("*"))


def differing(found: Path, clean: Path) -> list[str]:
    """Files that are not byte for byte those of the clean run."""
    one, other = stored(found), stored(clean)
    lost = [f"{name} is missing" for name in other.keys() - one.keys()]
    lost += [f"{name} should not be there" for name in one.keys() - other.keys()]
    both = one.keys() & other.keys()
    return sorted(lost + [f"{name} differs" for name in both if one[name].read_bytes() != other[name].read_bytes()])


def wrong(data: Path, made: Population, days: Iterable[date], timezone: str, window_days: int) -> list[str]:
    """Event files and rates that are not what the events themselves give, worked out in plain Python."""
    days = list(days)
    feeds = {
        kind: {day: expected_rows(kind, made.feed(kind), *day_bounds(day, timezone)) for day in days} for kind in KINDS
    }
    lost = []
    for day in days:
        for kind in KINDS:
            file = data / kind / f"event_date={day}" / "part-0.parquet"
            if canonical(_rows(file)) != canonical(feeds[kind][day]):
                lost.append(f"{kind} of {day} are not the events that were published")
        file = data / "reactivity_rates" / f"activation_date={day}" / "part-0.parquet"
        found = [{"activation_date": day, **row} for row in _rows(file)]
        try:
            assert_alike(found, expected_rates(day, timezone, window_days, feeds))
        except AssertionError:
            lost.append(f"rates of {day} are not those of the events")
    return lost


def _rows(file: Path) -> list[dict[str, object]]:
    return rows_of(pq.read_table(file, partitioning=None)) if file.exists() else []


def left_over(temporary: Path) -> list[str]:
    """What is left in the temporary folder: spools, spills."""
    return [f"{path.relative_to(temporary)} is left in the temporary folder" for path in sorted(temporary.rglob("*"))]


def leaked(folders: Iterable[Path], secrets: Mapping[str, bytes]) -> list[str]:
    """Secrets, by what they are, that stand in a file: data, Dagster's records, what was printed."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                content = _content(path)
                found += [f"{name} stands in {path.name}" for name, secret in secrets.items() if secret in content]
    return sorted(found)


def _content(path: Path) -> bytes:
    """The bytes of a file; of Parquet, which is compressed, also its values."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    return path.read_bytes() + str(pq.read_table(path, partitioning=None).to_pylist()).encode(errors="replace")
