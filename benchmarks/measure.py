"""Run a command as a whole process and measure what it costs. Linux only: reads /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Limits:
    """Seconds and bytes of memory beyond which a run is killed."""

    seconds: float = 600
    bytes: int = 14 * 2**30


@dataclass
class Run:
    """What one run cost.

    `wall` and `cpu` are seconds; `cpu` and `peak` (bytes resident) are of the whole process tree. `others` is how many
    cores other programs used meanwhile, on average. `failed` is the reason of a failure, empty if there was none.
    `facts` are what the check of the output counted.
    """

    wall: float
    cpu: float
    peak: int
    others: float
    failed: str = ""
    facts: dict[str, float] = field(default_factory=dict)


def measure_command(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    limits: Limits = Limits(),
    read_server_cpu: Callable[[], float] = lambda: 0.0,
) -> Run:
    """Run a command to its end, with its output in `log`.

    `read_server_cpu` returns the CPU seconds that the server has used so far: they count neither for the command nor
    for other programs.
    """
    machine_cpu, server_cpu, started = _read_machine_cpu(), read_server_cpu(), time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={**_build_environment(), **(environment or {})},
            start_new_session=True,
        )
        peak, failed = 0, ""
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            peak = max(peak, _read_resident_bytes(process.pid))
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
    other_cpu = _read_machine_cpu() - machine_cpu - cpu - (read_server_cpu() - server_cpu)
    if process.returncode and not failed:
        text = log.read_text(errors="replace").strip()
        failed = f"exit status {process.returncode}: {text.rpartition(chr(10))[2]}\n{text[-2000:]}"
    return Run(wall, cpu, peak, max(other_cpu, 0.0) / wall, failed)


def read_process_cpu(pid: int) -> float:
    """Read the CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _build_environment() -> dict[str, str]:
    """Build this process' environment without settings of the project, of Dagster and of a virtual environment."""
    dropped = ("NP6_", "DAGSTER", "VIRTUAL_ENV", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def _read_machine_cpu() -> float:
    """Read the CPU seconds that all programs have used since boot, with those that the machine's host took (steal)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = (
        int(number) for number in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def _read_resident_bytes(root: int) -> int:
    """Read the bytes resident now of a process tree, or the peak of its root process if that is more."""
    total, pids = 0, [root]
    while pids:
        pid = pids.pop()
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
    with contextlib.suppress(OSError):
        # The peak that wait4 reports includes this program's memory at the fork.
        for line in Path(f"/proc/{root}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total = max(total, int(line.split()[1]) * 1024)
    return total
