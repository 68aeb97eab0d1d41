"""The command: examines machine and account, and prints each finding as soon as it is there."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.text import Text

from np6_assets.component import SECRETS, NP6Account
from np6_assets.doctor import judge, judge_events, machine, runs, stored
from np6_assets.doctor.finding import Finding, Verdict, worst
from np6_assets.doctor.loaded import Loaded
from np6_assets.doctor.probe import LONGEST_BODY, Now
from np6_assets.doctor.survey import survey
from np6_assets.np6.client import NP6Client
from np6_assets.np6.connection import Traffic
from np6_assets.refresh.jobs import DAILY_INGEST, SENSOR, catchers_of_late_events
from np6_assets.sandbox import simulated_account
from np6_assets.settings import Settings

_STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "wrong": "bold red", "unknown": "cyan"}
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 15.0


def run(
    environment: Mapping[str, str],
    *,
    as_json: bool,
    watch_seconds: int,
    loaded: Loaded,
    account: NP6Account | None,
) -> int:
    """Examine one account, and whether what Dagster loads here loads; print the findings on standard output.

    Without an account the environment's settings are examined. Returns 1 where anything is wrong, and 0 otherwise.
    """
    traffic = Traffic()
    names = {*SECRETS.values(), *(getattr(one, attribute) or "" for one in loaded.accounts for attribute in SECRETS)}
    secrets = [environment.get(name, "").strip() for name in names]
    secrets += re.findall(r"//([^/@]+)@", environment.get("NP6_DATA_DIR", ""))
    console = Console(highlight=False)
    findings = []
    for finding in (loaded.examine(), *examine(environment, traffic, watch_seconds, account=account)):
        findings.append(finding.without(secrets))
        if not as_json:
            console.print(_text(findings[-1], console.width), soft_wrap=True)
    verdict = worst(findings)
    if as_json:
        report = {
            "verdict": verdict,
            "findings": [finding.as_json() for finding in findings],
            "traffic": {"requests": traffic.requests, "bytes": traffic.bytes},
        }
        print(json.dumps(report, indent=2))
    else:
        console.print(f"\n{_summary(findings)} ({traffic.requests} requests, {traffic.bytes / 1024:,.0f} KiB)")
    return 1 if verdict == "wrong" else 0


def examine(
    environment: Mapping[str, str],
    traffic: Traffic,
    watch_seconds: int = 0,
    *,
    now: Now = lambda: datetime.now(UTC),
    wait: Callable[[float], None] = time.sleep,
    account: NP6Account | None = None,
) -> Iterator[Finding]:
    """Every finding about an account, this machine's first. What the API is sent and sends is added to `traffic`.

    Without an account, or with the one that has no prefix, the settings are those of the environment.
    """
    home = machine.home_of(environment)
    has_prefix = account is not None and account.asset_key_prefix is not None
    read = machine.read_attributes(account) if account and has_prefix else machine.read_settings(environment)
    yield from judge.settings(read, now())
    if read.settings is not None:
        yield judge.folder("data folder", machine.data_folder(read.settings.data_dir), "NP6_DATA_DIR")
        yield from stored.examine(read.settings, now())
        yield from _kept_events(read.settings, now(), home)
    yield judge.folder("temporary files", machine.temporary_folder(), "TMPDIR")
    yield judge.dagster(machine.dagster_home(environment))
    catchers = catchers_of_late_events(read.settings) if read.settings else (SENSOR, DAILY_INGEST)
    yield judge_events.late_events(machine.late_event_catchers(home, catchers), *catchers)
    yield runs.examine(home)
    if read.settings is None or read.settings.missing is not None:
        yield Finding(
            "API", "unknown", "no request was sent: the settings come first", "Put right what is wrong above."
        )
        return
    key = "" if read.settings.is_sandbox else environment.get(read.settings.key_variable, "").strip()
    with _client(read.settings, key, now) as client:
        found = survey(client, now, wait, watch_seconds)
        traffic.requests, traffic.bytes = client.traffic.requests, client.traffic.bytes
    proxies = list(machine.proxies(environment))
    yield from judge.api(found, read.settings, proxies)


def _kept_events(settings: Settings, now: datetime, home: Path) -> Iterator[Finding]:
    """What Dagster's records say of the last fetches; nothing where there are none."""
    if not machine.has_records(home):
        return
    try:
        with machine.dagster_records(home) as instance:
            yield stored.kept_events(settings, now, instance)
    except Exception as error:  # noqa: BLE001 -- every storage has errors of its own
        text = f"Dagster's records in {home} could not be read: {type(error).__name__}"
        yield Finding("kept events", "unknown", text, "See DAGSTER_HOME.")


@contextmanager
def _client(settings: Settings, api_key: str, now: Now) -> Iterator[NP6Client]:
    with _address(settings, now) as address:
        timeout = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
        stall = LONGEST_BODY.total_seconds()
        client = NP6Client(address, api_key, timeout=timeout, stall_seconds=stall, concurrency=1, now=now)
        try:
            yield client
        finally:
            client.close()


@contextmanager
def _address(settings: Settings, now: Now) -> Iterator[str]:
    if not settings.is_sandbox:
        yield settings.base_url
        return
    with simulated_account(now) as address:
        yield address


def _text(finding: Finding, width: int) -> Text:
    """The finding in lines: verdict and subject once, what there is to say beside them."""
    indent = " " * 24
    lines = [finding.text, *([f"-> {finding.advice}"] if finding.advice else [])]
    wrapped = [
        part
        for line in lines
        for part in textwrap.wrap(line, max(width - len(indent), 30), break_on_hyphens=False) or [""]
    ]
    head = Text.assemble((f"{finding.verdict:<8}", _STYLES[finding.verdict]), f"{finding.subject:<16}")
    return head + Text(f"\n{indent}".join(wrapped))


def _summary(findings: list[Finding]) -> str:
    counts = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in _STYLES}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
