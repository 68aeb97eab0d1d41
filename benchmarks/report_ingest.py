"""The report's section about ingest: whole runs, start-up, and what is beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks import chart
from benchmarks.figures import (
    Row,
    contenders_of,
    find,
    good_runs,
    middle,
    peak,
    peak_bytes,
    peak_mib,
    rate_of,
    ratio,
    sizes_of,
    spread,
    why_not,
)
from benchmarks.ingest import DUCKDB
from benchmarks.inputs import NOTIFICATION_COUNT, Shape
from benchmarks.rounds import ALONE, DAGSTER

_SHAPES = {
    Shape.PLAIN: "Hits, sorted",
    Shape.ESCAPES: "Hits, sorted, with escapes in each event",
    Shape.RANDOM: "Hits, in completely random order",
    Shape.NOTIFICATIONS: f"Activations over {NOTIFICATION_COUNT} notifications, each sorted",
}


def section(part: Row, folder: Path) -> list[str]:
    lines = [
        "## Ingest: a day of events from a loopback server to Parquet",
        "",
        "The rate is of whole runs. *Time* and *CPU* are the contender's over this project's through Dagster, in the "
        "same round: above 1 it is slower. *Start-up* is the same command's time for an empty day of hits: one "
        "request, no event. *Rate of `COPY`'s* is the rate beyond start-up over that of DuckDB's `COPY` of one array "
        "with the same bytes, in the same round, each without its own start-up: above 1 it is faster. It is left out "
        "where a run took no longer than its start-up. *Dagster adds* is what the run through Dagster takes more than "
        "client, decoder and writer alone: seconds beyond start-up, and memory at the peak.",
    ]
    by_shape = {shape: [row for row in part["rows"] if row.get("shape", Shape.PLAIN) == shape] for shape in _SHAPES}
    for shape, rows in by_shape.items():
        if rows:
            lines += ["", f"### {_SHAPES[shape]}", "", *_ingest_table(rows)]
        if rows and shape is Shape.PLAIN:
            lines += _ingest_charts(rows, folder)
    return lines


def _ingest_table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| Events | Contender | Events a second | Seconds | CPU seconds | Memory, MB (MiB) | Parquet, MB | Time | CPU "
        "| Start-up, seconds | Rate of `COPY`'s | Dagster adds, seconds | Dagster adds, MB |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size in sizes_of(rows):
        base, alone, copy = (find(rows, size, name) for name in (DAGSTER, ALONE, DUCKDB))
        for row in (row for row in rows if row["size"] == size):
            good = good_runs(row)
            if not good:
                lines.append(f"| {size:,} | {row['contender']} | {why_not(row)} |{' |' * 10}")
                continue
            seconds, more = _added(row, alone) if row is base else ("", "")
            lines.append(
                f"| {size:,} | {row['contender']} | {middle([size / run['wall'] for run in good], ',.0f')} "
                f"| {spread(good, 'wall', '.2f')} | {spread(good, 'cpu', '.2f')} "
                f"| {peak_bytes(good) / 1e6:,.0f} ({peak(good)}) "
                f"| {good[-1]['facts']['bytes'] / 1e6:.1f} | {ratio(row, base, 'wall')} | {ratio(row, base, 'cpu')} "
                f"| {_start_up(row)} | {_rate_of_copy(row, copy)} | {seconds} | {more} |"
            )
    return lines


def _ingest_charts(rows: Sequence[Row], folder: Path) -> list[str]:
    sizes = sizes_of(rows)
    rates = {name: {size: rate_of(find(rows, size, name)) for size in sizes} for name in contenders_of(rows)}
    peaks = {name: {size: peak_mib(find(rows, size, name)) for size in sizes} for name in contenders_of(rows)}
    chart.write(folder / "ingest-rate.svg", "Ingest: events a second (more is better)", rates)
    chart.write(folder / "ingest-memory.svg", "Ingest: peak memory, MiB (less is better)", peaks)
    lines = ["", "![Events a second](ingest-rate.svg)", "", "![Peak memory](ingest-memory.svg)"]
    return [*lines, *_marginal(rows)]


def _start_up(row: Row) -> str:
    runs = row.get("start_up", ())
    failed = next((run["failed"].splitlines()[0] for run in runs if run["failed"]), "")
    return failed or (spread(runs, "wall", ".2f") if runs else "")


def _beyond_start_up(row: Row) -> list[float]:
    """Seconds beyond the start-up of the same round, by round; empty where a run failed or start-up has no figure."""
    runs, starts = good_runs(row), row.get("start_up", ())
    if len(runs) != len(starts) or any(start["failed"] for start in starts):
        return []
    return [run["wall"] - start["wall"] for run, start in zip(runs, starts, strict=True)]


def _rate_of_copy(row: Row, copy: Row) -> str:
    pairs = list(zip(_beyond_start_up(row), _beyond_start_up(copy), strict=False))
    if not pairs or min(min(pair) for pair in pairs) <= 0:  # leaving out single rounds would favour one side
        return ""
    return "1" if row is copy else middle([bound / seconds for seconds, bound in pairs], ".2f")


def _added(dagster: Row, alone: Row) -> tuple[str, str]:
    """What Dagster's run adds, in seconds beyond start-up and in MB at the peak, each also as a share."""
    runs, others = good_runs(dagster), good_runs(alone)
    if not runs or not others:
        return "", ""
    ours, theirs = peak_bytes(runs), peak_bytes(others)
    memory = f"{(ours - theirs) / 1e6:,.0f} ({ours / theirs - 1:.0%})"
    pairs = list(zip(_beyond_start_up(dagster), _beyond_start_up(alone), strict=False))
    if not pairs:
        return "", memory
    seconds = median(one - other for one, other in pairs)
    base = median(other for _, other in pairs)
    return f"{seconds:.2f}" + (f" ({seconds / base:.0%})" if base > 0 else ""), memory


def _marginal(rows: Sequence[Row]) -> list[str]:
    """What each further event costs, which start-up has no part in."""
    sizes = sizes_of(rows)
    if len(sizes) < 2:
        return []
    lines = [
        "",
        "Without start-up: events a second from one size to the next (the further events over the further seconds, "
        "medians), and megabytes more at the peak.",
        "",
        "| From | To | Contender | Events a second | of DuckDB's | CPU microseconds an event | More memory, MiB |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for small, large in pairwise(sizes):
        bound = _slope(rows, small, large, DUCKDB, "wall")
        for name in contenders_of(rows):
            seconds, cpu = (_slope(rows, small, large, name, cost) for cost in ("wall", "cpu"))
            if seconds is None or cpu is None or seconds <= 0:
                continue
            share = f"{bound / seconds:.2f}" if bound and bound > 0 else ""
            more = (peak_mib(find(rows, large, name)) or 0) - (peak_mib(find(rows, small, name)) or 0)
            lines.append(
                f"| {small:,} | {large:,} | {name} | {1 / seconds:,.0f} | {share} | {cpu * 1e6:.1f} | {more:,.0f} |"
            )
    return lines


def _slope(rows: Sequence[Row], small: int, large: int, name: str, cost: str) -> float | None:
    few, many = good_runs(find(rows, small, name)), good_runs(find(rows, large, name))
    if not few or not many:
        return None
    return float(median(run[cost] for run in many) - median(run[cost] for run in few)) / (large - small)
