"""Build the report's section about ingest: whole runs, start-up, and what is beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks import chart, figures
from benchmarks.figures import Row
from benchmarks.ingest import DUCKDB
from benchmarks.inputs import NOTIFICATION_COUNT, Shape
from benchmarks.rounds import THIS_PROJECT, WITHOUT_DAGSTER

_SHAPES = {
    Shape.PLAIN: "Hits, sorted",
    Shape.ESCAPES: "Hits, sorted, with escapes in each event",
    Shape.RANDOM: "Hits, in completely random order",
    Shape.NOTIFICATIONS: f"Activations over {NOTIFICATION_COUNT} notifications, each sorted",
}
_COLUMNS = (
    "Events", "Contender", "Events a second", "Seconds", "CPU seconds", "Memory, MB (MiB)", "Parquet, MB", "Time",
    "CPU", "Start-up, seconds", "Rate of `COPY`'s", "Dagster adds, seconds", "Dagster adds, MB",
)  # fmt: skip
_MARGINAL_COLUMNS = (
    "From", "To", "Contender", "Events a second", "of DuckDB's", "CPU microseconds an event", "More memory, MiB",
)  # fmt: skip


def build_section(rows: Sequence[Row], folder: Path) -> list[str]:
    """Build the section's lines, and write its charts into a folder."""
    lines = [
        "## Ingest: a day of events from a loopback server to Parquet",
        "",
        "*Events a second* is of whole runs. *Time* and *CPU* are the contender's divided by this project's through "
        "Dagster, in the same round: above 1 is slower. *Start-up* is the same command for an empty day of hits: one "
        "request, no event. *Rate of `COPY`'s* is the rate beyond start-up divided by that of DuckDB's `COPY` of one "
        "array with the same bytes, in the same round: above 1 is faster. It is left out where a run took no longer "
        "than its start-up. *Dagster adds* compares this project's runs with and without Dagster: seconds beyond "
        "start-up, and peak memory.",
    ]
    for shape, title in _SHAPES.items():
        of_shape = [row for row in rows if row.get("shape", Shape.PLAIN) == shape]
        if of_shape:
            lines += ["", f"### {title}", "", *_build_main_table(of_shape)]
        if of_shape and shape is Shape.PLAIN:
            lines += _build_charts(of_shape, folder)
    return lines


def _build_main_table(rows: Sequence[Row]) -> list[str]:
    def format_figures(row: Row) -> list[str]:
        size, runs = row["size"], figures.list_good_runs(row)
        base, other, copy = (figures.find_row(rows, size, name) for name in (THIS_PROJECT, WITHOUT_DAGSTER, DUCKDB))
        seconds, cpu_seconds, mib = figures.format_costs(row)
        return [
            figures.format_median([size / run["wall"] for run in runs], ",.0f"),
            seconds,
            cpu_seconds,
            f"{(figures.compute_peak(row) or 0) / 1e6:,.0f} ({mib})",
            f"{runs[-1]['facts']['bytes'] / 1e6:.1f}",
            *(figures.format_ratio(row, base, cost) for cost in ("wall", "cpu")),
            _format_start_up(row),
            _format_rate_of_copy(row, copy),
            *(_format_what_dagster_adds(row, other) if row is base else ()),
        ]

    return figures.build_runs_table(_COLUMNS, rows, format_figures)


def _build_charts(rows: Sequence[Row], folder: Path) -> list[str]:
    rates = figures.compute_by_size(rows, figures.compute_rate)
    peaks = figures.compute_by_size(rows, _compute_peak_mib)
    chart.write_chart(folder / "ingest-rate.svg", "Ingest: events a second (more is better)", rates)
    chart.write_chart(folder / "ingest-memory.svg", "Ingest: peak memory, MiB (less is better)", peaks)
    lines = ["", "![Events a second](ingest-rate.svg)", "", "![Peak memory](ingest-memory.svg)"]
    return [*lines, *_build_marginal_table(rows)]


def _compute_peak_mib(row: Row) -> float | None:
    peak = figures.compute_peak(row)
    return None if peak is None else peak / 2**20


def _format_start_up(row: Row) -> str:
    runs = row.get("start_up", ())
    failed = next((run["failed"].splitlines()[0] for run in runs if run["failed"]), "")
    return failed or (figures.format_median([run["wall"] for run in runs], ".2f") if runs else "")


def _compute_seconds_beyond_start_up(row: Row) -> list[float]:
    """Compute a run's seconds less those of its start-up, by round; none if a run or a start-up failed."""
    runs, start_ups = figures.list_good_runs(row), row.get("start_up", ())
    if len(runs) != len(start_ups) or any(start_up["failed"] for start_up in start_ups):
        return []
    return [run["wall"] - start_up["wall"] for run, start_up in zip(runs, start_ups, strict=True)]


def _format_rate_of_copy(row: Row, copy: Row) -> str:
    pairs = list(zip(_compute_seconds_beyond_start_up(row), _compute_seconds_beyond_start_up(copy), strict=False))
    if not pairs or min(min(pair) for pair in pairs) <= 0:  # leaving out single rounds would favour one side
        return ""
    return "1" if row is copy else figures.format_median([bound / seconds for seconds, bound in pairs], ".2f")


def _format_what_dagster_adds(row: Row, other: Row) -> list[str]:
    """Format seconds beyond start-up and MB at the peak, each also as a share."""
    peak, other_peak = figures.compute_peak(row), figures.compute_peak(other)
    if peak is None or other_peak is None:
        return []
    memory = f"{(peak - other_peak) / 1e6:,.0f} ({peak / other_peak - 1:.0%})"
    pairs = list(zip(_compute_seconds_beyond_start_up(row), _compute_seconds_beyond_start_up(other), strict=False))
    if not pairs:
        return ["", memory]
    seconds = median(dagster - without for dagster, without in pairs)
    base = median(without for _, without in pairs)
    return [f"{seconds:.2f}" + (f" ({seconds / base:.0%})" if base > 0 else ""), memory]


def _build_marginal_table(rows: Sequence[Row]) -> list[str]:
    """Build the table of what each further event costs, without start-up."""
    sizes = figures.list_sizes(rows)
    if len(sizes) < 2:
        return []
    cells = []
    for small, large in pairwise(sizes):
        bound = _compute_slope(rows, small, large, DUCKDB, "wall")
        for name in figures.list_contenders(rows):
            seconds, cpu = (_compute_slope(rows, small, large, name, cost) for cost in ("wall", "cpu"))
            if seconds is None or cpu is None or seconds <= 0:
                continue
            share = f"{bound / seconds:.2f}" if bound and bound > 0 else ""
            peaks = [_compute_peak_mib(figures.find_row(rows, size, name)) or 0 for size in (small, large)]
            growth = f"{peaks[1] - peaks[0]:,.0f}"
            cells.append([f"{small:,}", f"{large:,}", name, f"{1 / seconds:,.0f}", share, f"{cpu * 1e6:.1f}", growth])
    return [
        "",
        "Without start-up, from one size to the next: further events divided by further seconds (medians), and the "
        "growth of the peak.",
        "",
        *figures.build_table(_MARGINAL_COLUMNS, cells),
    ]


def _compute_slope(rows: Sequence[Row], small: int, large: int, name: str, cost: str) -> float | None:
    """Compute a contender's cost per further event between two sizes."""
    few, many = (figures.compute_median(figures.find_row(rows, size, name), cost) for size in (small, large))
    return None if few is None or many is None else (many - few) / (large - small)
