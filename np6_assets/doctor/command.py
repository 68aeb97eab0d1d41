"""The command: examines machine and account, and prints each diagnosis as soon as it is made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain

from rich.console import Console
from rich.table import Table
from rich.text import Text

from np6_assets.component import SECRETS
from np6_assets.doctor.diagnosis import Diagnosis, Verdict, find_worst
from np6_assets.doctor.examination import Examination
from np6_assets.doctor.judgements import examine
from np6_assets.doctor.loaded import LoadedAccounts

_STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "wrong": "bold red", "unknown": "cyan"}


def run(examination: Examination, loaded: LoadedAccounts, *, as_json: bool) -> int:
    """Examine one account, and whether all that Dagster loads here loads; print the diagnoses on standard output.

    Returns 1 where anything is wrong, and 0 otherwise.
    """
    secrets = list(_list_secrets(examination.environment, loaded))
    console = Console(highlight=False)
    diagnoses = []
    for found in chain([loaded.judge_definitions()], examine(examination)):
        diagnoses.append(found.mask(secrets))
        if not as_json:
            console.print(_build_row(diagnoses[-1]))
    traffic = {"requests": examination.traffic.requests, "bytes": examination.traffic.bytes}
    verdict = find_worst(diagnoses)
    if as_json:
        report = {"verdict": verdict, "findings": list(map(asdict, diagnoses)), "traffic": traffic}
        print(json.dumps(report, indent=2))
    else:
        console.print(f"\n{_summarize(diagnoses)} ({traffic['requests']} requests, {traffic['bytes'] / 1024:,.0f} KiB)")
    return 1 if verdict == "wrong" else 0


def _list_secrets(environment: Mapping[str, str], loaded: LoadedAccounts) -> Iterator[str]:
    names = {*SECRETS.values(), *(getattr(one, attribute) or "" for one in loaded.accounts for attribute in SECRETS)}
    yield from (environment.get(name, "").strip() for name in names)
    yield from re.findall(r"//([^/@]+)@", environment.get("NP6_DATA_DIR", ""))


def _build_row(found: Diagnosis) -> Table:
    row = Table.grid()
    row.add_column(min_width=8, style=_STYLES[found.verdict])
    row.add_column(min_width=16)
    row.add_column()
    row.add_row(found.verdict, found.subject, Text(found.text))
    if found.advice:
        row.add_row("", "", Text(f"-> {found.advice}"))
    return row


def _summarize(diagnoses: list[Diagnosis]) -> str:
    counts = {verdict: sum(one.verdict == verdict for one in diagnoses) for verdict in _STYLES}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
