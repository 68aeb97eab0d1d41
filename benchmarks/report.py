"""Write the report, Markdown tables and SVG charts, from results.json only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import backfill, chart, figures, refresh, report_ingest, requests, startup
from benchmarks.figures import Row
from benchmarks.rounds import THIS_PROJECT


def write_report(results: Mapping[str, Any], folder: Path) -> None:
    """Write README.md and its charts into a folder."""
    sections = {
        "ingest": report_ingest.build_section,
        "rates": _build_rates,
        "backfill": _build_backfill,
        "refresh": _build_refresh,
        "tick": _build_tick,
        "requests": _build_requests,
        "startup": _build_startup,
    }
    lines = ["# Measured", "", *_build_introduction(results)]
    for name, build_section in sections.items():
        if name in results:
            lines += ["", *build_section(results[name]["rows"], folder)]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def _build_introduction(results: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, part in results.items():
        machine = part["machine"]
        loads = [run["others"] for row in part["rows"] for run in row.get("runs", ()) if not run["failed"]]
        load = f"{median(loads):.2f}, {max(loads):.2f}" if loads else ""
        text = f"{machine['cores']} cores ({machine['cpu']}), {machine['memory'] / 2**30:.0f} GiB, {machine['linux']}"
        rows.append([name, machine["date"], f"`{machine['commit']}`", text, load])
    machine = next(iter(results.values()))["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        "Written by `make bench`. Each run is a whole process, from the start of Python to its end. Contenders run in "
        "rounds, each once a round; a ratio compares two runs of one round. Figures are medians, with minimum and "
        "maximum in brackets. *Memory* is the peak of what the whole process tree had resident. A contender whose "
        "output is wrong (rows, distinct ids, their values combined) has no figures.",
        "",
        *figures.build_table(
            ["Part", "Date", "Commit", "Machine", "Other programs' load in cores (median, maximum)"], rows
        ),
        "",
        f"With Python {machine['python']}, {versions}. Do not compare parts that were measured on different machines.",
    ]


def _build_rates(rows: Sequence[Row], folder: Path) -> list[str]:
    def format_figures(row: Row) -> list[str]:
        base = figures.find_row(rows, row["size"], THIS_PROJECT)
        return [*figures.format_costs(row), *(figures.format_ratio(row, base, cost) for cost in ("wall", "peak"))]

    seconds = figures.compute_by_size(rows, lambda row: figures.compute_median(row, "wall"))
    chart.write_chart(folder / "rates.svg", "Rates of a cohort: seconds (less is better)", seconds)
    return [
        "## Rates of one cohort, from Parquet to Parquet",
        "",
        "A tenth as many reactions as sends, over eight days. *Time* and *Memory*, at the end of a row, are the "
        "contender's divided by this project's through Dagster.",
        "",
        *figures.build_runs_table(
            ["Sends", "Contender", "Seconds", "CPU seconds", "Memory, MiB", "Time", "Memory"], rows, format_figures
        ),
        "",
        "![Seconds](rates.svg)",
    ]


def _build_backfill(rows: Sequence[Row], folder: Path) -> list[str]:
    def format_figures(row: Row) -> list[str]:
        base = figures.find_row(rows, row["size"], backfill.ONE_RUN)
        requests = figures.list_good_runs(row)[-1]["facts"]["requests"]
        costs = figures.format_costs(row, ",.1f")
        return [f"{row['dagster_runs']}", f"{requests:,}", *costs, figures.format_ratio(row, base, "wall")]

    return [
        "## Backfill of the simulated account's smallest size, all assets with partitions",
        "",
        f"*{backfill.DAILY_RUNS}* is estimated from runs of {backfill.SAMPLED_DAYS} days in each round, at even "
        "distances, times the number of days. Files of these days have the same bytes as those of the run over the "
        f"range. *{backfill.EMPTY_RUN}*: the same names and partitions, and only what Dagster records by itself: one "
        f"data version for all days. *{backfill.EMPTY_RUN_WITH_RECORDS}*: all that this project records. That is the "
        "bound.",
        "",
        *figures.build_runs_table(
            ["Days", "How", "Runs", "Requests", "Seconds", "CPU seconds", "Memory, MiB", "Time"], rows, format_figures
        ),
    ]


def _build_refresh(rows: Sequence[Row], folder: Path) -> list[str]:
    def format_figures(row: Row) -> list[str]:
        base = figures.find_row(rows, row["size"], refresh.FULL)
        downloaded = figures.list_good_runs(row)[-1]["facts"]["downloaded"]
        share = f"{downloaded / row['bytes']:.1%}"
        return [f"{downloaded / 1e6:.2f}", share, *figures.format_costs(row), figures.format_ratio(row, base, "wall")]

    return [
        f"## Refresh of a day of which {refresh.NEW_SHARE:.0%} is new",
        "",
        "The events are spread evenly over the day, so the default lookback of 60 minutes is another 4.2 % of it. Each "
        "run is a whole process, with its start-up.",
        "",
        *figures.build_runs_table(
            ["Events", "Asked for", "Downloaded, MB", "of the day", "Seconds", "CPU seconds", "Memory, MiB", "Time"],
            rows,
            format_figures,
        ),
    ]


def _build_tick(rows: Sequence[Row], folder: Path) -> list[str]:
    def format_cells(row: Row) -> list[str]:
        facts = [run["facts"] for run in figures.list_good_runs(row)]
        if not facts:
            return [row["contender"], figures.describe_failure(row)]
        times = [figures.format_median([1000 * fact[cost] for fact in facts], ".0f") for cost in ("seconds", "cpu")]
        return [row["contender"], f"{facts[-1]['requests']}", f"{facts[-1]['bytes']}", *times]

    return [
        "## A tick of the sensor when nothing is new",
        "",
        "Only the evaluation, in a process that is already running, as Dagster's daemon is.",
        "",
        *figures.build_table(
            ["Tick", "Requests", "Bytes of responses", "Milliseconds", "CPU milliseconds"],
            [format_cells(row) for row in rows],
        ),
    ]


def _build_requests(rows: Sequence[Row], folder: Path) -> list[str]:
    cells: list[list[str]] = []
    for row in rows:
        runs = figures.list_good_runs(row)
        if runs:
            cells += requests.build_table_rows(row["size"], runs[-1]["facts"])
        else:
            cells.append([f"{row['size']:,}", figures.describe_failure(row)])
    return [
        f"## Requests of a day, of which {requests.ACTIVE} notifications send",
        "",
        "Counted by the server. *List* is `GET /notifications`, *Feeds* are those of the whole account, *Activations* "
        "those of one notification, *Probes* all requests of the sensor. *All* is what the same runs would take if "
        "each asked every notification.",
        "",
        *figures.build_table(
            ["Notifications", "What", "Runs", "List", "Feeds", "Activations", "Probes", "Requests", "All"], cells
        ),
    ]


def _build_startup(rows: Sequence[Row], folder: Path) -> list[str]:
    imports = [row for row in rows if "runs" in row]
    cells = []
    for row in imports:
        base = figures.find_row(imports, row["size"], startup.IMPORT_DAGSTER)
        cells.append([f"`{row['contender']}`", *figures.format_costs(row), figures.format_ratio(row, base, "wall")])
    packages = next(row["packages"] for row in rows if "packages" in row)
    text = ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in packages.items())
    return [
        "## Start-up",
        "",
        *figures.build_table(["Command", "Seconds", "CPU seconds", "Memory, MiB", "Time"], cells),
        "",
        f"Milliseconds by package (`python -X importtime`, own modules): {text}.",
    ]
