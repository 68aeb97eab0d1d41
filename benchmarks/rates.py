"""The rates of one large cohort, from Parquet to Parquet."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import inputs
from benchmarks.rounds import (
    ALONE,
    DAGSTER,
    PEERS,
    PROJECT,
    Contender,
    Rounds,
    WrongOutputError,
    in_dagster,
    materialize,
    script,
)

COUNTS = (
    "activations", "bounces_hard", "bounces_soft", "bounced", "delivered", "hit_activations", "hits", "other_hits",
    "optout_activations", "impression_activations", "reacting_activations", "orphan_reactions",
)  # fmt: skip
RATES = ("hit_rate", "optout_rate", "bounce_rate")


def measure(sizes: list[int], rounds: Rounds) -> list[dict[str, Any]]:
    """Runs by number of sends and contender."""
    rows = []
    for sends in sorted(sizes):
        data = rounds.work / f"cohort-{sends}"
        inputs.cohort(data, sends, sends // 10)
        runs = rounds.measure(sends, contenders(data, sends))
        rows += [{"size": sends, "contender": name, "runs": found} for name, found in runs.items()]
        shutil.rmtree(data)
    return rows


def contenders(data: Path, sends: int) -> list[Contender]:
    """Everyone, for one cohort."""
    day = inputs.COHORT.isoformat()
    check = _checked(sends)

    def program(name: str, python: Path, file: str) -> Contender:
        return Contender(
            name, lambda folder: script(python, file, str(data), day, str(folder / "out.parquet")), check("out.parquet")
        )

    return [
        Contender(
            DAGSTER,
            lambda folder: materialize("reactivity_rates", day),
            check("data/reactivity_rates/*/*.parquet"),
            lambda folder: in_dagster("http://127.0.0.1:1", folder / "data", folder / "home"),
            before=lambda folder: _link(data, folder / "data"),
        ),
        program(ALONE, PROJECT, "rates_alone"),
        program("pandas", PEERS, "rates_pandas"),
        program("Polars, streaming", PEERS, "rates_polars"),
    ]


def _link(data: Path, folder: Path) -> None:
    folder.mkdir()
    for asset in data.iterdir():
        (folder / asset.name).symlink_to(asset)


def _checked(sends: int) -> Callable[[str], Callable[[Path], Mapping[str, float]]]:
    """Every send is counted, and every contender has the same rows as the first one."""
    first: list[Any] = []

    def check_file(file: str) -> Callable[[Path], Mapping[str, float]]:
        def check(folder: Path) -> Mapping[str, float]:
            columns = ", ".join([*COUNTS, *(f"round({rate}, 12)" for rate in RATES)])
            with duckdb.connect() as database:
                rows = database.execute(
                    f"SELECT activation_id, activation_version, application_id, {columns} FROM read_parquet(?) "
                    "ORDER BY ALL",
                    [str(folder / file)],
                ).fetchall()
            if sum(row[3] for row in rows) != sends:
                raise WrongOutputError(f"{sum(row[3] for row in rows)} sends in place of {sends}")
            if not first:
                first.extend(rows)
            if rows != first:
                raise WrongOutputError("the rows are not those of the first contender")
            return {"rows": len(rows), "orphans": sum(row[3 + COUNTS.index("orphan_reactions")] for row in rows)}

        return check

    return check_file
