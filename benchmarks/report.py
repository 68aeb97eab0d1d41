"""The report: Markdown tables and SVG charts, from results alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import backfill, chart, refresh, report_ingest, requests, startup
from benchmarks.figures import (
    Row,
    contenders_of,
    find,
    good_runs,
    median_of,
    middle,
    peak,
    ratio,
    sizes_of,
    spread,
    why_not,
)
from benchmarks.rounds import DAGSTER


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write README.md and its charts into a folder."""
    sections = {
        "ingest": report_ingest.section,
        "rates": _rates,
        "backfill": _backfill,
        "refresh": _refresh,
        "tick": _tick,
        "requests": _requests,
        "startup": _startup,
    }
    lines = ["# Measured", "", *_introduction(results)]
    for name, section in sections.items():
        if name in results:
            lines += ["", *section(results[name], folder)]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def _introduction(results: Mapping[str, Any]) -> list[str]:
    lines = [
        "Made by `make bench`. Each run is a whole process, from the start of Python to its end; contenders run in "
        "turn, in rounds, and a ratio compares runs of one round. Figures are medians, with the least and the greatest "
        "in brackets. *Memory* is the most that the process tree had resident at once. An output that is not right "
        "(rows, distinct ids, their values combined) has no figure.",
        "",
        "| Part | Date | Commit | Machine | Other programs' load meanwhile, in cores (median, most) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, part in results.items():
        machine = part["machine"]
        loads = [run["others"] for row in part["rows"] for run in row.get("runs", ()) if not run["failed"]]
        noise = f"{median(loads):.2f}, {max(loads):.2f}" if loads else ""
        where = f"{machine['cores']} cores ({machine['cpu']}), {machine['memory'] / 2**30:.0f} GiB, {machine['linux']}"
        lines.append(f"| {name} | {machine['date']} | `{machine['commit']}` | {where} | {noise} |")
    machine = next(iter(results.values()))["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        *lines,
        "",
        f"With Python {machine['python']}, {versions}. Figures of one part are not to be compared with those of a part "
        "that was measured on another machine.",
    ]


def _rates(part: Row, folder: Path) -> list[str]:
    rows = part["rows"]
    lines = [
        "## Rates of one cohort, from Parquet to Parquet",
        "",
        "A tenth as many reactions as sends, over eight days. *Time* and *memory* are the contender's over this "
        "project's through Dagster.",
        "",
        "| Sends | Contender | Seconds | CPU seconds | Memory, MiB | Time | Memory |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size in sizes_of(rows):
        base = find(rows, size, DAGSTER)
        for row in (row for row in rows if row["size"] == size):
            good = good_runs(row)
            if not good:
                lines.append(f"| {size:,} | {row['contender']} | {why_not(row)} | | | | |")
                continue
            lines.append(
                f"| {size:,} | {row['contender']} | {spread(good, 'wall', '.2f')} | {spread(good, 'cpu', '.2f')} "
                f"| {peak(good)} | {ratio(row, base, 'wall')} | {ratio(row, base, 'peak')} |"
            )
    seconds = {
        name: {size: median_of(find(rows, size, name), "wall") for size in sizes_of(rows)}
        for name in contenders_of(rows)
    }
    chart.write(folder / "rates.svg", "Rates of a cohort: seconds (less is better)", seconds)
    return [*lines, "", "![Seconds](rates.svg)"]


def _backfill(part: Row, folder: Path) -> list[str]:
    rows = part["rows"]
    lines = [
        "## Backfill of the simulated account's smallest size, all assets with partitions",
        "",
        f"*{backfill.SINGLE}* is taken from {backfill.SINGLE_DAYS} runs at even distances in each round, times the "
        "number of days, one after the other. The days that were fetched alone have the same bytes as in the range. "
        f"*{backfill.NOTHING}* has the same names and partitions, and Dagster's own records alone, which give all days "
        f"of a range one data version; *{backfill.VERSIONS}* has what this project records: the bound.",
        "",
        "| Days | How | Runs | Requests | Seconds | CPU seconds | Memory, MiB | Time |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        good = good_runs(row)
        if not good:
            lines.append(f"| {row['size']} | {row['contender']} | {why_not(row)} | | | | | |")
            continue
        base = find(rows, row["size"], backfill.RANGE)
        lines.append(
            f"| {row['size']} | {row['contender']} | {row['dagster_runs']} | {good[-1]['facts']['requests']:,} "
            f"| {spread(good, 'wall', ',.1f')} | {spread(good, 'cpu', ',.1f')} | {peak(good)} "
            f"| {ratio(row, base, 'wall')} |"
        )
    return lines


def _refresh(part: Row, folder: Path) -> list[str]:
    rows = part["rows"]
    lines = [
        f"## Refresh of a day of which {refresh.NEW:.0%} is new",
        "",
        "The events are spread evenly over the day, so the 60 minutes that are asked for again by default are another "
        "4.2 % of it. Whole processes: start-up is in each.",
        "",
        "| Events | Asked for | Downloaded, MB | of the day | Seconds | CPU seconds | Memory, MiB | Time |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        good = good_runs(row)
        if not good:
            lines.append(f"| {row['size']:,} | {row['contender']} | {why_not(row)} | | | | | |")
            continue
        base = find(rows, row["size"], refresh.FULL)
        sent = good[-1]["facts"]["downloaded"]
        lines.append(
            f"| {row['size']:,} | {row['contender']} | {sent / 1e6:.2f} | {sent / row['bytes']:.1%} "
            f"| {spread(good, 'wall', '.2f')} | {spread(good, 'cpu', '.2f')} | {peak(good)} "
            f"| {ratio(row, base, 'wall')} |"
        )
    return lines


def _tick(part: Row, folder: Path) -> list[str]:
    lines = [
        "## A tick of the sensor when nothing is new",
        "",
        "The evaluation alone, in a process that is there already, as Dagster's daemon has it.",
        "",
        "| Tick | Requests | Bytes of answers | Milliseconds | CPU milliseconds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in part["rows"]:
        good = good_runs(row)
        facts = [run["facts"] for run in good]
        if not good:
            lines.append(f"| {row['contender']} | {why_not(row)} | | | |")
            continue
        lines.append(
            f"| {row['contender']} | {facts[-1]['requests']} | {facts[-1]['bytes']} "
            f"| {middle([1000 * one['seconds'] for one in facts], '.0f')} "
            f"| {middle([1000 * one['cpu'] for one in facts], '.0f')} |"
        )
    return lines


def _requests(part: Row, folder: Path) -> list[str]:
    lines = [
        f"## Requests of a day, of which {requests.ACTIVE} notifications send",
        "",
        "Counted by the server. *List* is `GET /notifications`, *feeds* are those of the whole account, *activations* "
        "those of one notification, *probes* the sensor's. *All* is what the same runs would take if each asked every "
        "notification.",
        "",
        "| Notifications | What | Runs | List | Feeds | Activations | Probes | Requests | All |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in part["rows"]:
        good = good_runs(row)
        if not good:
            lines.append(f"| {row['size']:,} | {why_not(row)} | | | | | | | |")
            continue
        lines += requests.lines(row["size"], good[-1]["facts"])
    return lines


def _startup(part: Row, folder: Path) -> list[str]:
    rows = [row for row in part["rows"] if "runs" in row]
    lines = [
        "## Start-up",
        "",
        "| Command | Seconds | CPU seconds | Memory, MiB | Time |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        base = find(rows, row["size"], startup.DAGSTER_ALONE)
        good = good_runs(row)
        lines.append(
            f"| `{row['contender']}` | {spread(good, 'wall', '.2f')} | {spread(good, 'cpu', '.2f')} | {peak(good)} "
            f"| {ratio(row, base, 'wall')} |"
        )
    packages = next(row["packages"] for row in part["rows"] if "packages" in row)
    took = ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in packages.items())
    return [*lines, "", f"Milliseconds by package (`python -X importtime`, own modules): {took}."]
