"""The command: measure the parts, add the runs to OUT/results.json and write OUT/README.md from them."""

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

from benchmarks import backfill, ingest, rates, refresh, report, requests, startup, tick
from benchmarks.inputs import Shape
from benchmarks.measure import Limits, Run
from benchmarks.rounds import PEERS, ROOT, Rounds

Part = Callable[[list[int], Rounds], list[dict[str, Any]]]


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for row in results.get("ingest", {}).get("rows", ()):
        row.setdefault("shape", str(Shape.PLAIN))  # results of before there were several
    parts: dict[str, tuple[Part, list[int]]] = {
        "ingest": (partial(ingest.measure, shapes=options.shapes), options.sizes),
        "rates": (rates.measure, options.sends),
        "backfill": (backfill.measure, [options.days]),
        "refresh": (refresh.measure, options.sizes[-1:]),
        "tick": (tick.measure, options.sizes[:1]),
        "requests": (requests.measure, [requests.NOTIFICATIONS]),
        "startup": (startup.measure, [max(3 * options.repeats, 5)]),
    }
    with tempfile.TemporaryDirectory(prefix="np6-bench-", dir=options.work) as work:
        for name in options.parts or parts:
            print(f"{name}:", file=sys.stderr)
            measure, sizes = parts[name]
            rounds = Rounds(Path(work), options.repeats, Limits(options.seconds, options.gib * 2**30))
            before = results.get(name, {}).get("rows", [])
            rounds.remember(before)
            measured = _plain(measure(sizes, rounds))
            replaced = {_input(row) for row in measured}
            rows = [*(row for row in before if "size" in row and _input(row) not in replaced), *measured]
            results[name] = {"machine": _machine(), "rows": sorted(rows, key=lambda row: row.get("size", 0))}
            file.write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, options.out)
    print(f"The report is {options.out / 'README.md'}")


def _input(row: dict[str, Any]) -> tuple[str, int | None]:
    """The shape and size of a row's input."""
    return row.get("shape", ""), row.get("size")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--sizes", type=_numbers, default="20000,100000", help="events of a day, for ingest and refresh"
    )
    parser.add_argument(
        "--shapes",
        type=_shapes,
        default=(),
        help=f"shapes of ingest, of {' '.join(Shape)}; default: plain at all sizes, the others at the largest",
    )
    parser.add_argument(
        "--sends", type=_numbers, default="1000000", help="sends of a cohort; a tenth as many reactions"
    )
    parser.add_argument("--days", type=int, default=60, help="days of the backfill")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--seconds", type=float, default=600, help="longest run; what would take longer is not run")
    parser.add_argument("--gib", type=int, default=14, help="most memory of a run, in GiB; it is ended beyond that")
    parser.add_argument("--parts", type=str.split, help="which parts, separated by spaces; default: all")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench", help="folder of the report")
    parser.add_argument("--work", type=Path, help="folder for large files, removed at the end; default: the system's")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return sorted(int(number) for number in text.replace(",", " ").split())


def _shapes(text: str) -> list[Shape]:
    names = text.replace(",", " ").split()
    if unknown := [name for name in names if name not in list(Shape)]:
        raise argparse.ArgumentTypeError(f"{' '.join(unknown)} is none of {' '.join(Shape)}")
    return [Shape(name) for name in names]


def _machine() -> dict[str, Any]:
    """What it was measured on."""
    packages = ("dagster", "duckdb", "pyarrow", "pandas", "httpx")
    listed = subprocess.run(
        [PEERS / "python", "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    peers = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _first_line("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "linux": platform.release(),
        "versions": {name: version(name) for name in packages}
        | {name: peers[name] for name in ("polars", "orjson", "dlt")},
        "commit": _commit(),
    }


def _first_line(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    return subprocess.run(
        [git, "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        if isinstance(value, Run):
            return {name: round(part, 4) if isinstance(part, float) else part for name, part in asdict(value).items()}
        return [plain(one) for one in value] if isinstance(value, list) else value

    return [{name: plain(value) for name, value in row.items()} for row in rows]


if __name__ == "__main__":
    main()
