"""Find the losses of a round: files that differ from the clean run's, wrong rows, and files that should not exist.

Each `find_*` function returns a line for each loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from np6_assets_tests.support.events import KINDS, BadEvent, Population, compare_quarantine
from np6_assets_tests.support.oracle import (
    Row,
    compute_day_bounds,
    expect_rates,
    expect_rows,
    parse_day,
    read_event_time,
)
from np6_assets_tests.support.tables import assert_rows_equal, canonicalize, read_rows


def list_files(folder: Path) -> dict[str, Path]:
    """List the files below a folder by relative path, without hidden ones, which no reader opens."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def find_different_files(data: Path, clean: Path) -> list[str]:
    """Find files that are not byte for byte the clean run's; for quarantine use `find_quarantine_errors`."""
    found, expected = (
        {name: path for name, path in list_files(folder).items() if not name.startswith("quarantine/")}
        for folder in (data, clean)
    )
    losses = [f"{name} is missing" for name in expected.keys() - found.keys()]
    losses += [f"{name} should not exist" for name in found.keys() - expected.keys()]
    both = found.keys() & expected.keys()
    return sorted(
        losses + [f"{name} differs" for name in both if found[name].read_bytes() != expected[name].read_bytes()]
    )


def find_wrong_rows(
    data: Path, population: Population, days: Sequence[date], timezone: str, window_days: int
) -> list[str]:
    """Find files of events, rates and quarantine that differ from what plain Python computes from the events."""
    expected = {kind: _compute_rows(kind, population, days, timezone) for kind in KINDS}
    losses = [
        f"{kind} of {day} are not the events that were published"
        for day in days
        for kind in KINDS
        if canonicalize(_read_rows(_get_event_file(data, kind, day))) != canonicalize(expected[kind][day])
    ]
    for day in days:
        file = data / "reactivity_rates" / f"activation_date={day}" / "part-0.parquet"
        rates = [{"activation_date": day, **row} for row in _read_rows(file)]
        try:
            assert_rows_equal(rates, expect_rates(day, timezone, window_days, expected))
        except AssertionError:
            losses.append(f"rates of {day} are not those of the events")
    return losses + find_quarantine_errors(data, population, days, timezone)


def find_quarantine_errors(
    data: Path, population: Population, days: Sequence[date], timezone: str, *, in_order: bool = True
) -> list[str]:
    """Find rejected events that are missing from quarantine, and unexpected rows in it.

    Args:
        data: the data folder.
        population: what was published.
        days: the days that were fetched.
        timezone: IANA name of the zone that days are in.
        in_order: whether every response was sorted and cut to its window. If not, an event without a readable time
            may be in quarantine on any of the days, also on several.
    """
    losses: list[str] = []
    for kind in KINDS:
        untimed: list[BadEvent] = []
        untimed_keys: set[str] = set()
        for day in days:
            start, end = compute_day_bounds(day, timezone)
            rejected = [
                event for event in population.bad_events if event.kind == kind and start <= event.placed_ms < end
            ]
            rows = _read_rows(_get_event_file(data / "quarantine", kind, day))
            keys = [row["event_key"] for row in rows]
            place = f"quarantine of {kind} of {day}"
            losses += [f"{place}: {row['event_key']} has no reason" for row in rows if not row["reason"]]
            if in_order:
                losses += [f"{place}: {error}" for error in compare_quarantine(keys, rejected)]
                continue
            timed = [event for event in rejected if read_event_time(event.event) is not None]
            untimed += [event for event in rejected if read_event_time(event.event) is None]
            losses += [f"{place}: {event.name} is missing" for event in timed if not event.keys.intersection(keys)]
            untimed_keys.update(set(keys).difference(*(event.keys for event in timed)))
        if not in_order:
            losses += [f"quarantine of {kind}: {error}" for error in compare_quarantine(untimed_keys, untimed)]
    return losses


def find_open_days(data: Path, days: Iterable[date], timezone: str) -> list[str]:
    """Find files of events that are missing, whose day is not closed, or that lack a notification."""
    losses = []
    for day in days:
        end = compute_day_bounds(day, timezone)[1] / 1000
        for kind in KINDS:
            file = _get_event_file(data, kind, day)
            if not file.exists():
                losses.append(f"{kind} of {day} is missing")
                continue
            metadata = pq.read_metadata(file).metadata
            if datetime.fromisoformat(metadata[b"np6.fetched_until"].decode()).timestamp() != end:
                losses.append(f"{kind} of {day} is not closed")
            if missing_ids := metadata.get(b"np6.missing_ids"):
                losses.append(f"{kind} of {day} misses {missing_ids.decode()}")
    return losses


def find_wrong_names(data: Path, names: Mapping[int, str | None]) -> list[str]:
    """Find notifications that are not stored, or not with these names, and others that are stored."""
    stored = {row["activation_id"]: row["name"] for row in _read_rows(data / "notifications" / "part-0.parquet")}
    pairs = {id_: (stored.get(id_, "nothing"), names.get(id_, "nothing")) for id_ in sorted({*stored, *names})}
    return [
        f"notification {id_}: stored is {found}, expected {expected}"
        for id_, (found, expected) in pairs.items()
        if found != expected
    ]


def find_wrong_identity(data: Path, population: Population, days: Sequence[date], timezone: str) -> list[str]:
    """Find whether np6.json has other agencies and customers than the events."""
    expected: dict[str, set[str]] = {}
    for kind in KINDS:
        for row in (row for rows in _compute_rows(kind, population, days, timezone).values() for row in rows):
            if row["agency"] is not None:
                expected.setdefault(row["agency"], set()).update({row["customer"]} - {None})
    found = json.loads((data / "np6.json").read_text())["agencies"]
    is_right = found == {agency: sorted(customers) for agency, customers in expected.items()}
    return [] if is_right else [f"np6.json has the agencies {found}"]


def find_leftover_files(temporary: Path) -> list[str]:
    """Find files left in the temporary folder."""
    return [f"{path.relative_to(temporary)} is left in the temporary folder" for path in sorted(temporary.rglob("*"))]


def find_leaks(folders: Iterable[Path], secrets: Mapping[str, bytes]) -> list[str]:
    """Find files that contain a secret, given by name: data, Dagster's records, logs."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                content = _read_content(path)
                found += [f"{name} is in {path.name}" for name, secret in secrets.items() if secret in content]
    return sorted(found)


def _read_content(path: Path) -> bytes:
    """Read the bytes of a file, and the values of a Parquet file, which is compressed."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    return path.read_bytes() + str(pq.read_table(path, partitioning=None).to_pylist()).encode(errors="replace")


def _compute_rows(kind: str, population: Population, days: Sequence[date], timezone: str) -> dict[date, list[Row]]:
    """Compute the rows of consecutive days in plain Python."""
    start, end = compute_day_bounds(days[0], timezone)[0], compute_day_bounds(days[-1], timezone)[1]
    by_day: dict[date, list[Row]] = {day: [] for day in days}
    for row in expect_rows(kind, population.feed(kind), start, end):
        by_day[parse_day(row["event_time"], timezone)].append(row)
    return by_day


def _get_event_file(data: Path, kind: str, day: date) -> Path:
    return data / kind / f"event_date={day}" / "part-0.parquet"


def _read_rows(file: Path) -> list[dict[str, Any]]:
    return read_rows(pq.read_table(file, partitioning=None)) if file.exists() else []
