"""Measure the rates of one large cohort, from Parquet to Parquet."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import commands
from benchmarks.cohort import COHORT, write_cohort
from benchmarks.rounds import THIS_PROJECT, WITHOUT_DAGSTER, Check, Contender, Rounds, WrongOutputError, build_rows

COUNTS = (
    "activations", "bounces_hard", "bounces_soft", "bounced", "delivered", "hit_activations", "hits", "other_hits",
    "optout_activations", "impression_activations", "reacting_activations", "orphan_reactions",
)  # fmt: skip
RATES = ("hit_rate", "optout_rate", "bounce_rate")


def measure(sends: int, rounds: Rounds) -> list[dict[str, Any]]:
    """Measure a cohort of so many sends, with a tenth as many reactions."""
    data = rounds.work / f"cohort-{sends}"
    write_cohort(data, sends, sends // 10)
    rows = build_rows(sends, rounds.measure(sends, _build_contenders(data, sends)))
    shutil.rmtree(data)
    return rows


def _build_contenders(data: Path, sends: int) -> list[Contender]:
    build_check = _build_checks(sends)

    def build_program(name: str, build_script: Callable[..., list[str]], program: str) -> Contender:
        return Contender(
            name,
            lambda folder: build_script(program, data, COHORT.key, folder / "out.parquet"),
            build_check("out.parquet"),
        )

    return [
        Contender(
            THIS_PROJECT,
            lambda folder: commands.build_materialize("reactivity_rates", COHORT.key),
            build_check("data/reactivity_rates/*/*.parquet"),
            lambda folder: commands.prepare_deployment(folder, "http://127.0.0.1:1"),
            prepare=lambda folder: _link_assets(data, folder / "data"),
        ),
        build_program(WITHOUT_DAGSTER, commands.build_project_script, "rates_without_dagster"),
        build_program("pandas", commands.build_peer_script, "rates_pandas"),
        build_program("Polars, streaming", commands.build_peer_script, "rates_polars"),
    ]


def _link_assets(data: Path, folder: Path) -> None:
    folder.mkdir()
    for asset in data.iterdir():
        (folder / asset.name).symlink_to(asset)


def _build_checks(sends: int) -> Callable[[str], Check]:
    """Return a builder of checks that every send is counted, and that all files have the rows of the first one."""
    first: list[Any] = []

    def build_check(file: str) -> Check:
        def check(folder: Path) -> Mapping[str, float]:
            columns = ", ".join([*COUNTS, *(f"round({rate}, 12)" for rate in RATES)])
            with duckdb.connect() as database:
                rows = database.execute(
                    f"SELECT activation_id, activation_version, application_id, {columns} FROM read_parquet(?) "
                    "ORDER BY ALL",
                    [str(folder / file)],
                ).fetchall()
            counted = sum(row[3] for row in rows)
            if counted != sends:
                raise WrongOutputError(f"{counted} sends, expected {sends}")
            if not first:
                first.extend(rows)
            if rows != first:
                raise WrongOutputError("the rows differ from those of the first contender")
            return {"rows": len(rows), "orphans": sum(row[3 + COUNTS.index("orphan_reactions")] for row in rows)}

        return check

    return build_check
