"""Change NP6_CONTACT_DATA from any mode to any other.

An accepted and a rejected event are stored under the old mode and not fetched again.
Another event is fetched under the new mode.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets_tests.support.deployment import PSEUDONYM_KEY, Deployment, read_files
from np6_assets_tests.support.events import HOUR_MS, MISSING, BadEvent, Population, build_event
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer

DAY = date(2026, 3, 20)
START = compute_day_bounds(DAY, "UTC")[0]
ADDRESS = "canary.bird@example.com"
KEYS = {"key A": PSEUDONYM_KEY, "key B": "another key for pseudonyms, long enough"}
MODES = ("keep", "drop", *KEYS)
QUICK = {("keep", "drop")}
PAIRS = [
    pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow) for pair in itertools.permutations(MODES, 2)
]


def build_hit(id_: str, hour: int, **fields: Any) -> Any:
    at = START + hour * HOUR_MS
    return build_event(
        "hits", id=id_, timestamp=at, unicity=ADDRESS, hash=ADDRESS, link_label=f"for {ADDRESS}", **fields
    )


def fetch(server: RudeServer, instance: dg.DagsterInstance, data: Path, modes: tuple[str, str], *, closed: bool):
    """Fetch a day in each mode. The second answer lacks the events of the first: they are too old, or forgotten."""
    first = Population(hits=[build_hit("first", 8)], bad_events=[build_bad_event()])
    for number, mode in enumerate(modes):
        population = Population(hits=[build_hit("second", 15)]) if number else first
        server.serve(population)
        now = datetime(2026, 3, 20, tzinfo=UTC) + timedelta(hours=(48 if closed else 12) + 6 * number)
        settings = {"NP6_CONTACT_DATA": "pseudonymize", "NP6_PSEUDONYM_KEY": KEYS[mode]} if mode in KEYS else {}
        deployment = Deployment(data, server, instance, lambda now=now: now, **{"NP6_CONTACT_DATA": mode, **settings})
        deployment.materialize("hits", DAY)
    return deployment


def build_bad_event() -> BadEvent:
    return BadEvent("no activation.id", "hits", START + 9 * HOUR_MS, 156, build_hit("odd", 9, activation_id=MISSING))


def treat_address(mode: str) -> str | None:
    """Return the address as a mode stores it."""
    if mode in KEYS:
        return hmac.digest(KEYS[mode].encode(), ADDRESS.encode(), hashlib.sha256).hex()
    return ADDRESS if mode == "keep" else None


@pytest.mark.parametrize(
    "closed", [pytest.param(False, id="open"), pytest.param(True, id="closed", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_new_mode_treats_stored_contact_data(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, old: str, new: str, closed: bool
):
    deployment = fetch(server, instance, tmp_path / "data", (old, new), closed=closed)
    stored = treat_address(new) if old == "keep" else None  # the old mode stored nothing that could be treated
    rows = {row["event_id"]: row for row in deployment.rows("hits", DAY)}
    assert rows.keys() == {"first", "second"}
    for id_, value in (("first", stored), ("second", treat_address(new))):
        assert (rows[id_]["receiver_unicity"], rows[id_]["receiver_hash"]) == (value, value)
    assert rows["first"]["link_label"] == "for [removed]"  # at most one of the modes is keep
    assert rows["second"]["link_label"] == (f"for {ADDRESS}" if new == "keep" else "for [removed]")
    [odd] = deployment.quarantine("hits", DAY)
    detail = json.loads(odd["event"])["source"]["detail"]
    assert detail["activation"]["receiver"]["value"]["unicity"] == stored
    assert detail["link"]["label"] == "for [removed]"
    fresh = fetch(server, instance, tmp_path / "fresh", (new, new), closed=closed)
    if old == "keep" or new == "drop":  # the new mode needs no more than the old one stored
        assert read_files(deployment.data) == read_files(fresh.data)
    else:
        assert {row["event_id"]: row for row in fresh.rows("hits", DAY)}["second"] == rows["second"]
