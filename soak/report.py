"""Write the report of a soak: the faults, and what was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from soak import month
from soak.faults import FAULTS
from soak.round import Outcome


def markdown(outcomes: Sequence[Outcome], seed: int) -> str:
    """The report, in Markdown."""
    injected: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    for outcome in outcomes:
        events = outcome.faults + Counter({"killed (SIGKILL)": outcome.kills, "full disk": outcome.refusals})
        injected += events
        survived += Counter() if outcome.lost else events
    lost = [f"round {outcome.number}, seed {outcome.seed}: {text}" for outcome in outcomes for text in outcome.lost]
    lines = [
        "# Endurance",
        "",
        f"{len(outcomes)} rounds from seed {seed}, in {sum(outcome.seconds for outcome in outcomes):.0f} seconds: "
        f"{sum(outcome.requests for outcome in outcomes)} requests, "
        f"{sum(outcome.faults.total() for outcome in outcomes)} faults; "
        f"{sum(outcome.starts for outcome in outcomes)} workers and runs of months, "
        f"{sum(outcome.kills for outcome in outcomes)} of them killed; "
        f"{sum(outcome.files for outcome in outcomes)} files compared with those of a run without "
        "faults, or with what the events say.",
        "",
        f"**Lost: {len(lost)}.**",
        "",
        *(f"- {text}" for text in lost),
        *([""] if lost else []),
        "| Fault | Injected | Survived | In rounds that lost something |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {injected[name]} | {survived[name]} | {injected[name] - survived[name]} |"
            for name in (*FAULTS, "killed (SIGKILL)", "full disk", *month.FAULTS)
        ),
        "",
        "| Round | Seed | Days | Clock first | Disk | Window's end | Sorts | Workers or runs | Killed | Disk full "
        "| Requests | Faults | Files | Lost |",
        "| ---: | ---: | ---: | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in outcomes:
        disk = "full at times" if one.on_full_disk else "local"
        server = (disk, one.end, "yes" if one.sorts else "no")
        workers = (one.starts, one.kills, one.refusals, one.requests, one.faults.total(), one.files, len(one.lost))
        cells = (one.number, one.seed, one.days, f"{one.clock:%Y-%m-%d %H:%M:%S} UTC", *server, *workers)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
