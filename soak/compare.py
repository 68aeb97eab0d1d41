"""Find what a round lost: files that differ from the clean run's, wrong rows, and files that should not be there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from np6_assets_tests.support.events import KINDS, Misfit, Population, quarantine_errors
from np6_assets_tests.support.oracle import Row, day_bounds, event_time, expected_rates, expected_rows, parse_day
from np6_assets_tests.support.tables import assert_alike, canonical, rows_of


def stored(folder: Path) -> dict[str, Path]:
    """The files below a folder by relative path, less hidden ones, which no reader opens."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def hidden(folder: Path) -> int:
    """Number of hidden files below a folder: each is an upload whose process was killed."""
    return sum(path.is_file() and path.name.startswith(".") for path in folder.rglob("*"))


def differing(found: Path, clean: Path) -> list[str]:
    """Files that are not byte for byte those of the clean run; for quarantine see `wrongly_quarantined`."""
    one, other = (
        {name: path for name, path in stored(data).items() if not _is_quarantine(name)} for data in (found, clean)
    )
    lost = [f"{name} is missing" for name in other.keys() - one.keys()]
    lost += [f"{name} should not be there" for name in one.keys() - other.keys()]
    both = one.keys() & other.keys()
    return sorted(lost + [f"{name} differs" for name in both if one[name].read_bytes() != other[name].read_bytes()])


def _is_quarantine(name: str) -> bool:
    return name.startswith("quarantine/")


def wrong(data: Path, made: Population, days: Iterable[date], timezone: str, window_days: int) -> list[str]:
    """Files of events, rates and quarantine that do not follow from the events, as plain Python computes them."""
    days = list(days)
    feeds = {kind: _expected(kind, made, days, timezone) for kind in KINDS}
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
    return lost + wrongly_quarantined(data, made, days, timezone)


def wrongly_quarantined(
    data: Path, made: Population, days: Iterable[date], timezone: str, *, in_order: bool = True
) -> list[str]:
    """Rejected events that are missing from quarantine, and rows there that should not be.

    Args:
        data: the data folder.
        made: what was published.
        days: the days that were fetched.
        timezone: IANA name of the zone that days are in.
        in_order: whether every answer was sorted and cut to its window. If not, an event without a readable time
            may be in quarantine on any of the days, also on several.
    """
    lost: list[str] = []
    for kind in KINDS:
        untimed: list[Misfit] = []
        left: set[str] = set()
        for day in days:
            start, end = day_bounds(day, timezone)
            rejected = [one for one in made.misfits if one.kind == kind and start <= one.placed_ms < end]
            rows = _rows(data / "quarantine" / kind / f"event_date={day}" / "part-0.parquet")
            keys = [row["event_key"] for row in rows]
            where = f"quarantine of {kind} of {day}"
            lost += [f"{where}: {row['event_key']} has no reason" for row in rows if not row["reason"]]
            if in_order:
                lost += [f"{where}: {error}" for error in quarantine_errors(keys, rejected)]
                continue
            timed = [one for one in rejected if event_time(one.event) is not None]
            untimed += [one for one in rejected if event_time(one.event) is None]
            lost += [f"{where}: {one.name} is missing" for one in timed if not one.keys.intersection(keys)]
            left.update(set(keys).difference(*(one.keys for one in timed)))
        if not in_order:
            lost += [f"quarantine of {kind}: {error}" for error in quarantine_errors(left, untimed)]
    return lost


def not_closed(data: Path, days: Iterable[date], timezone: str) -> list[str]:
    """Files of events that do not say that the day is complete."""
    lost = []
    for day in days:
        end = day_bounds(day, timezone)[1] / 1000
        for kind in KINDS:
            file = data / kind / f"event_date={day}" / "part-0.parquet"
            if not file.exists():
                lost.append(f"{kind} of {day} is missing")
                continue
            said = pq.read_metadata(file).metadata
            if datetime.fromisoformat(said[b"np6.fetched_until"].decode()).timestamp() != end:
                lost.append(f"{kind} of {day} is not closed")
            if missing := said.get(b"np6.missing_ids"):
                lost.append(f"{kind} of {day} misses {missing.decode()}")
    return lost


def wrongly_named(data: Path, names: Mapping[int, str | None]) -> list[str]:
    """Notifications that are not stored with their last name, and other ones that are stored."""
    found = {row["activation_id"]: row["name"] for row in _rows(data / "notifications" / "part-0.parquet")}
    different = sorted(id_ for id_ in {*found, *names} if found.get(id_, "nothing") != names.get(id_, "no one"))
    return [f"notification {id_} is {found.get(id_)}, not {names.get(id_)}" for id_ in different]


def wrong_identity(data: Path, made: Population, days: Sequence[date], timezone: str) -> list[str]:
    """Whether np6.json names other agencies and customers than the events do."""
    expected: dict[str, set[str]] = {}
    for kind in KINDS:
        for row in (row for rows in _expected(kind, made, days, timezone).values() for row in rows):
            if row["agency"] is not None:
                expected.setdefault(row["agency"], set()).update({row["customer"]} - {None})
    found = json.loads((data / "np6.json").read_text())["agencies"]
    is_right = found == {agency: sorted(customers) for agency, customers in expected.items()}
    return [] if is_right else [f"np6.json names {found}"]


def _expected(kind: str, made: Population, days: Sequence[date], timezone: str) -> dict[date, list[Row]]:
    """The rows of each of some consecutive days, as plain Python computes them."""
    start, end = day_bounds(days[0], timezone)[0], day_bounds(days[-1], timezone)[1]
    by_day: dict[date, list[Row]] = {day: [] for day in days}
    for row in expected_rows(kind, made.feed(kind), start, end):
        by_day[parse_day(row["event_time"], timezone)].append(row)
    return by_day


def _rows(file: Path) -> list[dict[str, Any]]:
    return rows_of(pq.read_table(file, partitioning=None)) if file.exists() else []


def left_over(temporary: Path) -> list[str]:
    """Files left in the temporary folder."""
    return [f"{path.relative_to(temporary)} is left in the temporary folder" for path in sorted(temporary.rglob("*"))]


def leaked(folders: Iterable[Path], secrets: Mapping[str, bytes]) -> list[str]:
    """Secrets, by name, that a file contains: data, Dagster's records, logs."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                content = _content(path)
                found += [f"{name} stands in {path.name}" for name, secret in secrets.items() if secret in content]
    return sorted(found)


def _content(path: Path) -> bytes:
    """The bytes of a file; for Parquet, which is compressed, its values as well."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    return path.read_bytes() + str(pq.read_table(path, partitioning=None).to_pylist()).encode(errors="replace")
