"""Build the account from which version 0.1 wrote the folders in `version_0_1/`.

Notification 101 sends four times on the first day and three times on the second, notification 102 twice on the first.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from np6_assets_tests.support.events import DAY_MS, HOUR_MS, KINDS, MISSING, BadEvent, Population, build_event
from np6_assets_tests.support.oracle import compute_day_bounds

FIRST, SECOND = date(2026, 3, 20), date(2026, 3, 21)
NOON_MS = compute_day_bounds(SECOND, "UTC")[0] + 12 * HOUR_MS
"""When version 0.1 last fetched both days."""

_START = compute_day_bounds(FIRST, "UTC")[0]


def build_account(until: int) -> Population:
    """Build the events published before a time, in ms."""
    population = Population(notifications=[{"id": 101, "name": "Spring sale"}, {"id": 102, "name": "Reminder"}])

    def add(
        kind: str, send: str, day: int, hour: float, sent: float = 8, sent_day: int | None = None, **more: Any
    ) -> None:
        """Add an event of a send; sends of notification 102 are called `t...`."""
        at = _START + day * DAY_MS + round(hour * HOUR_MS)
        stamp = _START + (day if sent_day is None else sent_day) * DAY_MS + round(sent * HOUR_MS)
        who = {"receiver_id": f"contact {send}", "unicity": f"{send}@example.com", "hash": f"hash of {send}"}
        id_ = 102 if send.startswith("t") else 101
        fields = {"activation_id": id_, "stamp_id": send, "subscription": f"device {send}", "stamp_time": stamp}
        population.feed(kind).append(build_event(kind, id=f"{kind} {send} {at}", timestamp=at, **fields, **who, **more))

    for send in ("s1", "s2", "s3", "s4", "t1", "t2"):
        add("activations", send, 0, 8)
    for send in ("s1", "s2"):
        add("impressions", send, 0, 8.25)
    add("hits", "s1", 0, 8.5)
    add("hits", "s1", 0, 9.5)
    add("hits", "s2", 0, 8.5, link_type="dismissal")
    add("hits", "t1", 1, 7, sent_day=0)
    add("optouts", "s3", 0, 8.25)
    add("bounces", "s4", 0, 8.25)
    for send in ("u1", "u2"):
        add("activations", send, 1, 8)
    add("hits", "u1", 1, 9)
    add("activations", "u3", 1, 15, sent=15)
    add("hits", "u3", 1, 16, sent=15)
    for kind in KINDS:
        population.feed(kind)[:] = [one for one in population.feed(kind) if one["timestamp"] < until]
    odd = build_event(
        "hits", id="odd", timestamp=_START + 9 * HOUR_MS, activation_id=MISSING, unicity="odd@example.com"
    )
    population.bad_events.append(BadEvent("activation.id missing", "hits", _START + 9 * HOUR_MS, 101, odd))
    return population
