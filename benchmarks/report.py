"""The report: Markdown tables and SVG charts, from results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import backfill, refresh, requests, startup
from benchmarks.ingest import DUCKDB
from benchmarks.inputs import NOTIFICATION_COUNT, Shape
from benchmarks.rounds import ALONE, DAGSTER

Row = Mapping[str, Any]


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write README.md and its charts into a folder."""
    sections = {
        "ingest": _ingest,
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


# --- Parts ----------------------------------------------------------------------------------------


_SHAPES = {
    Shape.PLAIN: "Hits, sorted",
    Shape.ESCAPES: "Hits, sorted, with escapes in each event",
    Shape.RANDOM: "Hits, in completely random order",
    Shape.NOTIFICATIONS: f"Activations over {NOTIFICATION_COUNT} notifications, each sorted",
}


def _ingest(part: Row, folder: Path) -> list[str]:
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
    for size in _sizes(rows):
        base, alone, copy = (_find(rows, size, name) for name in (DAGSTER, ALONE, DUCKDB))
        for row in (row for row in rows if row["size"] == size):
            good = _good(row)
            if not good:
                lines.append(f"| {size:,} | {row['contender']} | {_why_not(row)} |{' |' * 10}")
                continue
            seconds, more = _added(row, alone) if row is base else ("", "")
            lines.append(
                f"| {size:,} | {row['contender']} | {_middle([size / run['wall'] for run in good], ',.0f')} "
                f"| {_spread(good, 'wall', '.2f')} | {_spread(good, 'cpu', '.2f')} "
                f"| {_peak_bytes(good) / 1e6:,.0f} ({_peak(good)}) "
                f"| {good[-1]['facts']['bytes'] / 1e6:.1f} | {_ratio(row, base, 'wall')} | {_ratio(row, base, 'cpu')} "
                f"| {_start_up(row)} | {_rate_of_copy(row, copy)} | {seconds} | {more} |"
            )
    return lines


def _ingest_charts(rows: Sequence[Row], folder: Path) -> list[str]:
    sizes = _sizes(rows)
    rates = {name: {size: _rate(_find(rows, size, name)) for size in sizes} for name in _contenders(rows)}
    peaks = {name: {size: _peak_mib(_find(rows, size, name)) for size in sizes} for name in _contenders(rows)}
    _chart(folder / "ingest-rate.svg", "Ingest: events a second (more is better)", rates)
    _chart(folder / "ingest-memory.svg", "Ingest: peak memory, MiB (less is better)", peaks)
    lines = ["", "![Events a second](ingest-rate.svg)", "", "![Peak memory](ingest-memory.svg)"]
    return [*lines, *_marginal(rows)]


def _start_up(row: Row) -> str:
    runs = row.get("start_up", ())
    failed = next((run["failed"].splitlines()[0] for run in runs if run["failed"]), "")
    return failed or (_spread(runs, "wall", ".2f") if runs else "")


def _beyond_start_up(row: Row) -> list[float]:
    """Seconds beyond the start-up of the same round, by round; empty where a run failed or start-up has no figure."""
    runs, starts = _good(row), row.get("start_up", ())
    if len(runs) != len(starts) or any(start["failed"] for start in starts):
        return []
    return [run["wall"] - start["wall"] for run, start in zip(runs, starts, strict=True)]


def _rate_of_copy(row: Row, copy: Row) -> str:
    pairs = list(zip(_beyond_start_up(row), _beyond_start_up(copy), strict=False))
    if not pairs or min(min(pair) for pair in pairs) <= 0:  # leaving out single rounds would favour one side
        return ""
    return "1" if row is copy else _middle([bound / seconds for seconds, bound in pairs], ".2f")


def _added(dagster: Row, alone: Row) -> tuple[str, str]:
    """What Dagster's run adds, in seconds beyond start-up and in MB at the peak, each also as a share."""
    runs, others = _good(dagster), _good(alone)
    if not runs or not others:
        return "", ""
    ours, theirs = _peak_bytes(runs), _peak_bytes(others)
    memory = f"{(ours - theirs) / 1e6:,.0f} ({ours / theirs - 1:.0%})"
    pairs = list(zip(_beyond_start_up(dagster), _beyond_start_up(alone), strict=False))
    if not pairs:
        return "", memory
    seconds = median(one - other for one, other in pairs)
    base = median(other for _, other in pairs)
    return f"{seconds:.2f}" + (f" ({seconds / base:.0%})" if base > 0 else ""), memory


def _marginal(rows: Sequence[Row]) -> list[str]:
    """What each further event costs, which start-up has no part in."""
    sizes = _sizes(rows)
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
        for name in _contenders(rows):
            seconds, cpu = (_slope(rows, small, large, name, cost) for cost in ("wall", "cpu"))
            if seconds is None or cpu is None or seconds <= 0:
                continue
            share = f"{bound / seconds:.2f}" if bound and bound > 0 else ""
            more = (_peak_mib(_find(rows, large, name)) or 0) - (_peak_mib(_find(rows, small, name)) or 0)
            lines.append(
                f"| {small:,} | {large:,} | {name} | {1 / seconds:,.0f} | {share} | {cpu * 1e6:.1f} | {more:,.0f} |"
            )
    return lines


def _slope(rows: Sequence[Row], small: int, large: int, name: str, cost: str) -> float | None:
    few, many = _good(_find(rows, small, name)), _good(_find(rows, large, name))
    if not few or not many:
        return None
    return float(median(run[cost] for run in many) - median(run[cost] for run in few)) / (large - small)


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
    for size in _sizes(rows):
        base = _find(rows, size, DAGSTER)
        for row in (row for row in rows if row["size"] == size):
            good = _good(row)
            if not good:
                lines.append(f"| {size:,} | {row['contender']} | {_why_not(row)} | | | | |")
                continue
            lines.append(
                f"| {size:,} | {row['contender']} | {_spread(good, 'wall', '.2f')} | {_spread(good, 'cpu', '.2f')} "
                f"| {_peak(good)} | {_ratio(row, base, 'wall')} | {_ratio(row, base, 'peak')} |"
            )
    seconds = {
        name: {size: _middle_of(_find(rows, size, name), "wall") for size in _sizes(rows)} for name in _contenders(rows)
    }
    _chart(folder / "rates.svg", "Rates of a cohort: seconds (less is better)", seconds)
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
        good = _good(row)
        if not good:
            lines.append(f"| {row['size']} | {row['contender']} | {_why_not(row)} | | | | | |")
            continue
        base = _find(rows, row["size"], backfill.RANGE)
        lines.append(
            f"| {row['size']} | {row['contender']} | {row['dagster_runs']} | {good[-1]['facts']['requests']:,} "
            f"| {_spread(good, 'wall', ',.1f')} | {_spread(good, 'cpu', ',.1f')} | {_peak(good)} "
            f"| {_ratio(row, base, 'wall')} |"
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
        good = _good(row)
        if not good:
            lines.append(f"| {row['size']:,} | {row['contender']} | {_why_not(row)} | | | | | |")
            continue
        base = _find(rows, row["size"], refresh.FULL)
        sent = good[-1]["facts"]["downloaded"]
        lines.append(
            f"| {row['size']:,} | {row['contender']} | {sent / 1e6:.2f} | {sent / row['bytes']:.1%} "
            f"| {_spread(good, 'wall', '.2f')} | {_spread(good, 'cpu', '.2f')} | {_peak(good)} "
            f"| {_ratio(row, base, 'wall')} |"
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
        good = _good(row)
        facts = [run["facts"] for run in good]
        if not good:
            lines.append(f"| {row['contender']} | {_why_not(row)} | | | |")
            continue
        lines.append(
            f"| {row['contender']} | {facts[-1]['requests']} | {facts[-1]['bytes']} "
            f"| {_middle([1000 * one['seconds'] for one in facts], '.0f')} "
            f"| {_middle([1000 * one['cpu'] for one in facts], '.0f')} |"
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
        good = _good(row)
        if not good:
            lines.append(f"| {row['size']:,} | {_why_not(row)} | | | | | | | |")
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
        base = _find(rows, row["size"], startup.DAGSTER_ALONE)
        good = _good(row)
        lines.append(
            f"| `{row['contender']}` | {_spread(good, 'wall', '.2f')} | {_spread(good, 'cpu', '.2f')} | {_peak(good)} "
            f"| {_ratio(row, base, 'wall')} |"
        )
    packages = next(row["packages"] for row in part["rows"] if "packages" in row)
    took = ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in packages.items())
    return [*lines, "", f"Milliseconds by package (`python -X importtime`, own modules): {took}."]


# --- Figures --------------------------------------------------------------------------------------


def _sizes(rows: Sequence[Row]) -> list[int]:
    return sorted({row["size"] for row in rows})


def _contenders(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["contender"] for row in rows))


def _find(rows: Sequence[Row], size: int, name: str) -> Row:
    """The row of a contender at a size; one without runs if there is none."""
    found = (row for row in rows if row.get("size") == size and row["contender"] == name)
    return next(found, {"contender": name, "size": size, "runs": ()})


def _good(row: Row) -> list[Row]:
    """The runs of a contender, if none of them failed."""
    return [] if any(run["failed"] for run in row["runs"]) else list(row["runs"])


def _why_not(row: Row) -> str:
    failed: str = next(run["failed"] for run in row["runs"] if run["failed"])
    return failed.splitlines()[0]


def _middle(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _spread(runs: Sequence[Row], cost: str, form: str) -> str:
    return _middle([run[cost] for run in runs], form)


def _peak(runs: Sequence[Row]) -> str:
    return f"{_peak_bytes(runs) / 2**20:,.0f}"


def _peak_bytes(runs: Sequence[Row]) -> int:
    return max(run["peak"] for run in runs)


def _peak_mib(row: Row) -> float | None:
    good = _good(row)
    return max(run["peak"] for run in good) / 2**20 if good else None


def _middle_of(row: Row, cost: str) -> float | None:
    good = _good(row)
    return float(median(run[cost] for run in good)) if good else None


def _rate(row: Row) -> float | None:
    good = _good(row)
    return float(median(row["size"] / run["wall"] for run in good)) if good else None


def _ratio(row: Row, base: Row, cost: str) -> str:
    """A contender's cost over that of another, round by round."""
    pairs = zip(_good(row), _good(base), strict=False)
    ratios = [run[cost] / other[cost] for run, other in pairs if other[cost]]
    return _middle(ratios, ".2f") if ratios and row is not base else ("1" if ratios else "")


# --- Charts ---------------------------------------------------------------------------------------

_COLOURS = ("#9aa5b1", "#5b7c99", "#24435c", "#0d1b26")
_LEFT, _WIDTH, _BAR = 220, 560, 14


def _chart(file: Path, title: str, values: Mapping[str, Mapping[int, float | None]]) -> None:
    """Horizontal bars, one group a contender and one bar a size."""
    sizes = sorted({size for series in values.values() for size in series})
    most = max((value or 0 for series in values.values() for value in series.values()), default=1) or 1
    parts, y = [_text(10, 22, title, 15, "bold")], 40
    for number, size in enumerate(sizes):
        x = 10 + number * 130
        parts += [_bar(x, y, 12, 12, number), _text(x + 18, y + 11, f"{size:,}", 12)]
    y += 32
    for name, series in values.items():
        ours = "bold" if name in (DAGSTER, ALONE) else "normal"
        parts.append(_text(_LEFT - 10, y + len(sizes) * _BAR / 2 + 4, name, 12, ours, "end"))
        for number, size in enumerate(sizes):
            value = series.get(size)
            width = (value or 0) / most * (_WIDTH - 90)
            parts.append(_bar(_LEFT, y, width, _BAR - 2, number))
            shown = "none" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
            parts.append(_text(_LEFT + width + 5, y + _BAR - 4, shown, 11))
            y += _BAR
        y += 10
    frame = f'width="{_LEFT + _WIDTH}" height="{y}" viewBox="0 0 {_LEFT + _WIDTH} {y}"'
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="sans-serif">'
        + "\n".join([background, *parts])
        + "</svg>\n"
    )


def _bar(x: float, y: float, width: float, height: float, number: int) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{max(width, 1):.0f}" height="{height}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, size: int, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="#111">{text}</text>'
    )
