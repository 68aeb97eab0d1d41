"""Measure parts, add their runs to OUT/results.json, and write the report OUT/README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import backfill, ingest, rates, refresh, requests, startup, tick
from benchmarks.commands import PEERS_BIN, ROOT
from benchmarks.inputs import Shape
from benchmarks.measure import Limits, Run
from benchmarks.report import write_report
from benchmarks.rounds import Rounds

Measurement = Callable[[Rounds], list[dict[str, Any]]]
"""Measures one input and returns its rows of results.json."""


def main() -> None:
    options = _parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for row in results.get("ingest", {}).get("rows", ()):
        row.setdefault("shape", str(Shape.PLAIN))  # older results have no shape
    parts = _plan_parts(options)
    with tempfile.TemporaryDirectory(prefix="np6-bench-", dir=options.work) as work:
        for name in options.parts or parts:
            print(f"{name}:", file=sys.stderr)
            earlier = results.get(name, {}).get("rows", [])
            rounds = Rounds(Path(work), options.repeats, Limits(options.seconds, options.gib * 2**30))
            rounds.load_results(earlier)
            measured = [_convert_row(row) for measure in parts[name] for row in measure(rounds)]
            replaced = {_get_input(row) for row in measured}
            rows = [*(row for row in earlier if "size" in row and _get_input(row) not in replaced), *measured]
            results[name] = {"machine": _describe_machine(), "rows": sorted(rows, key=lambda row: row.get("size", 0))}
            file.write_text(json.dumps(results, indent=1) + "\n")
    write_report(results, options.out)
    print(f"The report is {options.out / 'README.md'}")


def _plan_parts(options: argparse.Namespace) -> dict[str, list[Measurement]]:
    """Return the measurements of each part, smaller sizes first."""
    largest = options.sizes[-1]
    return {
        "ingest": [
            partial(ingest.measure, size, shape=shape)
            for shape in options.shapes or Shape
            for size in options.sizes
            if options.shapes or shape is Shape.PLAIN or size == largest
        ],
        "rates": [partial(rates.measure, sends) for sends in options.sends],
        "backfill": [partial(backfill.measure, options.days)],
        "refresh": [partial(refresh.measure, largest)],
        "tick": [partial(tick.measure, options.sizes[0])],
        "requests": [partial(requests.measure, requests.NOTIFICATIONS)],
        "startup": [partial(startup.measure, max(3 * options.repeats, 5))],
    }


def _get_input(row: dict[str, Any]) -> tuple[str, int | None]:
    """Return the shape and size of a row's input."""
    return row.get("shape", ""), row.get("size")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--sizes",
        type=_parse_numbers,
        default="20000,100000",
        help="events of a day: ingest; refresh takes the largest, tick the smallest",
    )
    parser.add_argument(
        "--shapes",
        type=_parse_shapes,
        default=(),
        help=f"shapes of ingest: {' '.join(Shape)}; default: plain at all sizes, the others at the largest",
    )
    parser.add_argument(
        "--sends",
        type=_parse_numbers,
        default="1000000",
        help="sends of the cohorts of rates; a tenth as many reactions",
    )
    parser.add_argument("--days", type=int, default=60, help="days of the backfill")
    parser.add_argument("--repeats", type=int, default=3, help="number of rounds")
    parser.add_argument("--seconds", type=float, default=600, help="kill a run that takes longer; skip one that would")
    parser.add_argument("--gib", type=int, default=14, help="the same for the memory of a run, in GiB")
    parser.add_argument("--parts", type=str.split, help="parts to measure, separated by spaces; default: all")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench", help="folder of the report")
    parser.add_argument("--work", type=Path, help="folder for large files, removed at the end; default: the system's")
    return parser.parse_args()


def _parse_numbers(text: str) -> list[int]:
    return sorted(int(number) for number in text.replace(",", " ").split())


def _parse_shapes(text: str) -> list[Shape]:
    names = text.replace(",", " ").split()
    if unknown := [name for name in names if name not in list(Shape)]:
        raise argparse.ArgumentTypeError(f"no such shape: {' '.join(unknown)}; there are {' '.join(Shape)}")
    return [Shape(name) for name in names]


def _describe_machine() -> dict[str, Any]:
    """Describe this machine and the versions of what is compared."""
    packages = ("dagster", "duckdb", "pyarrow", "pandas", "httpx")
    listed = subprocess.run(
        [PEERS_BIN / "python", "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    peers = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _read_cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "linux": platform.release(),
        "versions": {name: version(name) for name in packages}
        | {name: peers[name] for name in ("polars", "orjson", "dlt")},
        "commit": _describe_commit(),
    }


def _read_cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _describe_commit() -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    return subprocess.run(
        [git, "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


def _convert_row(row: dict[str, Any]) -> dict[str, Any]:
    """Convert the runs of a row to what JSON can hold."""
    return row | {key: [_convert_run(run) for run in row[key]] for key in ("runs", "start_up") if key in row}


def _convert_run(run: Run) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(run).items()}


if __name__ == "__main__":
    main()
