"""Runs a command as a whole process and says what it cost. Linux alone: reads /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Limits:
    """Beyond these a run is ended, and the contender has none at that size."""

    seconds: float = 600
    bytes: int = 14 * 2**30


@dataclass
class Run:
    """What one run cost.

    `wall` and `cpu` are seconds, `cpu` and `peak` (bytes resident) of the whole process tree. `others` is how many
    cores other programs had meanwhile, on average. `failed` says what went wrong, and is empty where nothing did.
    """

    wall: float
    cpu: float
    peak: int
    others: float
    failed: str = ""
    facts: dict[str, float] = field(default_factory=dict)


def run(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    limits: Limits = Limits(),
    serving: Callable[[], float] = lambda: 0.0,
) -> Run:
    """Run a command to its end. What it says goes to `log`.

    `serving` tells how many CPU seconds the server has used so far, which are not other programs'.
    """
    busy, served, started = _busy(), serving(), time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={**_environment(), **(environment or {})},
            start_new_session=True,
        )
        peak, failed = 0, ""
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            peak = max(peak, _resident(process.pid))
            if not failed and time.perf_counter() - started > limits.seconds:
                failed = f"more than {limits.seconds:.0f} s"
            if not failed and peak > limits.bytes:
                failed = f"more than {limits.bytes / 2**30:.0f} GiB"
            if failed:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(SAMPLE_SECONDS)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    others = max(_busy() - busy - cpu - (serving() - served), 0.0) / wall
    text = log.read_text(errors="replace").strip()
    if process.returncode and not failed:
        failed = f"exit status {process.returncode}: {text.rpartition(chr(10))[2]}\n{text[-2000:]}"
    return Run(wall, cpu, peak, others, failed)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _environment() -> dict[str, str]:
    """The environment without settings of the project, of Dagster and of a virtual environment."""
    dropped = ("NP6_", "DAGSTER", "VIRTUAL_ENV", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def _busy() -> float:
    """CPU seconds of all programs since the machine was started, and those that its host took away."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = (
        int(number) for number in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICK


def _resident(root: int) -> int:
    """Bytes resident of a process and all that it started, now; or the most that the process alone ever had."""
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
    with contextlib.suppress(OSError):
        # What wait4 says of it would count what this program had when it forked.
        for line in Path(f"/proc/{root}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total = max(total, int(line.split()[1]) * 1024)
    return total
