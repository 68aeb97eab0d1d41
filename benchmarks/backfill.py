"""A year of the simulated account's smallest size, all assets: in one run over the range, and in a run a day."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.measure import Run
from benchmarks.rounds import Contender, Rounds, WrongOutputError, in_dagster, materialize
from benchmarks.server import Served, serving

FIRST = date(2025, 1, 1)
EVENTS = "hits,optouts,bounces,impressions,activations"
ASSETS = f"{EVENTS},reactivity_rates"
RANGE = "one run over the range"
SINGLE = "a run a day"
NOTHING = "one run of assets that do nothing"
VERSIONS = "the same, with a data version, a line and check results for each day"
SINGLE_DAYS = 5
"""How many runs of a day are made; the others are taken to cost as much."""


def measure(days: list[int], rounds: Rounds) -> list[dict[str, Any]]:
    """Runs by number of days."""
    rows = []
    with serving("sandbox", str(FIRST - timedelta(days=30))) as server:
        for count in days:
            last = FIRST + timedelta(days=count - 1)
            every = max(count // SINGLE_DAYS, 1)
            some = [FIRST + timedelta(days=number * every) for number in range(min(SINGLE_DAYS, count))]
            alone: dict[date, dict[str, bytes]] = {}
            singles = [_single(server, day, alone) for day in some]
            ranged = _ranged(server, last, alone)
            bounds = [_nothing(server, last, NOTHING), _nothing(server, last, VERSIONS, VERSIONS="yes")]
            runs = rounds.measure(count, [*singles, ranged, *bounds], server.cpu)
            rows += [
                {"size": count, "contender": name, "runs": runs.pop(name), "dagster_runs": 1}
                for name in (RANGE, NOTHING, VERSIONS)
            ]
            rows.append({"size": count, "contender": SINGLE, "runs": _extrapolated(runs, count), "dagster_runs": count})
    return rows


def _forget(server: Served) -> None:
    server.sent()


def _environment(server: Served, folder: Path) -> dict[str, str]:
    return in_dagster(server.url, folder / "data", folder / "home", NP6_START_DATE=str(FIRST))


def _ranged(server: Served, last: date, alone: dict[date, dict[str, bytes]]) -> Contender:
    return Contender(
        RANGE,
        lambda folder: materialize(ASSETS, f"{FIRST}...{last}"),
        _whole(server, last, alone),
        lambda folder: _environment(server, folder),
        before=lambda folder: _forget(server),
    )


def _nothing(server: Served, last: date, name: str, **more: str) -> Contender:
    return Contender(
        name,
        lambda folder: materialize(ASSETS, f"{FIRST}...{last}", "benchmarks.contenders.records"),
        lambda folder: server.sent(),
        lambda folder: _environment(server, folder) | more,
        before=lambda folder: _forget(server),
    )


def _single(server: Served, day: date, alone: dict[date, dict[str, bytes]]) -> Contender:
    def check(folder: Path) -> Mapping[str, float]:
        alone[day] = _events_of(folder / "data", day)
        if len(alone[day]) != EVENTS.count(",") + 1:
            raise WrongOutputError(f"{day}: {sorted(alone[day])}")
        return server.sent()

    return Contender(
        f"{SINGLE}: {day}",
        lambda folder: materialize(ASSETS, str(day)),
        check,
        lambda folder: _environment(server, folder),
        before=lambda folder: _forget(server),
    )


def _whole(server: Served, last: date, alone: dict[date, dict[str, bytes]]) -> Callable[[Path], Mapping[str, float]]:
    """Every day of every asset is there, and those that were fetched alone have the same bytes."""

    def check(folder: Path) -> Mapping[str, float]:
        data = folder / "data"
        days = (last - FIRST).days + 1
        for asset in ASSETS.split(","):
            found = len(list((data / asset).glob("*/part-0.parquet")))
            if found != days:
                raise WrongOutputError(f"{asset}: {found} days in place of {days}")
        for day, files in alone.items():
            if _events_of(data, day) != files:
                raise WrongOutputError(f"{day} has other bytes than when it is fetched alone")
        rows = sum(pq.read_metadata(file).num_rows for file in data.glob("*/event_date=*/part-0.parquet"))
        return {**server.sent(), "rows": rows}

    return check


def _events_of(data: Path, day: date) -> dict[str, bytes]:
    return {file.parts[-3]: file.read_bytes() for file in data.glob(f"*/event_date={day}/part-0.parquet")}


def _extrapolated(runs: Mapping[str, list[Run]], days: int) -> list[Run]:
    """What all days would cost, for each round."""
    made = []
    for rounds in zip(*runs.values(), strict=True):
        failed = next((one.failed for one in rounds if one.failed), "")
        times = days / len(rounds)
        made.append(
            Run(
                sum(one.wall for one in rounds) * times,
                sum(one.cpu for one in rounds) * times,
                max(one.peak for one in rounds),
                sum(one.others for one in rounds) / len(rounds),
                failed,
                {"requests": round(sum(one.facts.get("requests", 0) for one in rounds) * times)},
            )
        )
    return made
