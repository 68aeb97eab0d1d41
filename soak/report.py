"""Build the report of a soak: the faults, and the losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from soak import month
from soak.faults import FAULTS
from soak.round import Outcome

KILL, FULL_DISK = "killed (SIGKILL)", "full disk"


def build_report(outcomes: Sequence[Outcome], seed: int) -> str:
    """Build the report, in Markdown."""
    injected: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    for outcome in outcomes:
        faults = outcome.faults + Counter({KILL: outcome.kills, FULL_DISK: outcome.full_disks})
        injected += faults
        survived += Counter() if outcome.losses else faults
    losses = [f"round {outcome.number}, seed {outcome.seed}: {loss}" for outcome in outcomes for loss in outcome.losses]
    lines = [
        "# Endurance",
        "",
        f"{len(outcomes)} rounds from seed {seed}, in {sum(outcome.seconds for outcome in outcomes):.0f} seconds: "
        f"{sum(outcome.requests for outcome in outcomes)} requests, "
        f"{sum(outcome.faults.total() for outcome in outcomes)} faults; "
        f"{sum(outcome.starts for outcome in outcomes)} workers and runs of months, "
        f"{sum(outcome.kills for outcome in outcomes)} of them killed; "
        f"{sum(outcome.files for outcome in outcomes)} files compared with those of a run without faults, or with what "
        "plain Python computes from the events.",
        "",
        f"**Lost: {len(losses)}.**",
        "",
        *(f"- {loss}" for loss in losses),
        *([""] if losses else []),
        "| Fault | Injected | Survived | In rounds that lost something |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {injected[name]} | {survived[name]} | {injected[name] - survived[name]} |"
            for name in (*FAULTS, KILL, FULL_DISK, *month.FAULTS)
        ),
        "",
        "| Round | Seed | Days | Clock first | Disk | Window's end | Sorts | Workers or runs | Killed | Disk full "
        "| Requests | Faults | Files | Lost |",
        "| ---: | ---: | ---: | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for outcome in outcomes:
        disk = "full at times" if outcome.limited_disk else "local"
        clock = f"{outcome.clock:%Y-%m-%d %H:%M:%S} UTC"
        settings = (outcome.days, clock, disk, outcome.end, "yes" if outcome.sorts else "no")
        events = (outcome.starts, outcome.kills, outcome.full_disks, outcome.requests, outcome.faults.total())
        cells = (outcome.number, outcome.seed, *settings, *events, outcome.files, len(outcome.losses))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
