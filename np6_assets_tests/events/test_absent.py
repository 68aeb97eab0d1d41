"""Table of the events that a fetch did not store, in the metadata of each day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg

from np6_assets_tests.support.deployment import Deployment
from np6_assets_tests.support.events import DAY_MS, HOUR_MS, MISSING, BadEvent, Population, build_event
from np6_assets_tests.support.oracle import compute_day_bounds
from np6_assets_tests.support.rude_server import RudeServer

DAY = date(2026, 3, 20)
START = compute_day_bounds(DAY, "UTC")[0]
LATER = datetime(2026, 3, 25, tzinfo=UTC)


def build_hit(number: int, at: int = START) -> dict[str, object]:
    return build_event("hits", id=f"hit {number}", timestamp=at + number, activation_id=101)


def test_metadata_counts_kept_dropped_rejected_and_missing_events(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    rejected = build_event("hits", id="odd", timestamp=START + HOUR_MS, activation_id=MISSING)
    population = Population(
        notifications=[{"id": 101}, {"id": 102}],
        activations=[build_event("activations", id="send", timestamp=START, activation_id=101)],
        hits=[build_hit(number) for number in range(5)],
        bad_events=[BadEvent("no id", "hits", START + HOUR_MS, 101, rejected)],
    )
    server.serve(population)
    deployment = Deployment(tmp_path / "data", server, instance, lambda: LATER)
    deployment.materialize("hits", DAY)
    # the answer lacks three, and has two of another day
    population.hits = [build_hit(3), build_hit(4), build_hit(8, START + DAY_MS), build_hit(9, START + DAY_MS)]
    server.serve(population)
    server.end_mode = "ignored"
    server.script("/notifications/102/events/activations", "403")
    deployment.materialize(["hits", "activations"], DAY)
    rows = {
        "Kept, not in answer": (3, 0),
        "Dropped, outside the window": (2, 0),
        "Dropped, receiver erased": (0, 0),
        "Rejected, in quarantine": (1, 0),
        "Unreadable values, null": (0, 0),
    }
    tables = [deployment.metadata(asset, DAY)["absent"] for asset in ("hits", "activations")]
    for number, table in enumerate(tables):
        lines = [
            "| What | Count |",
            "| --- | ---: |",
            *(f"| {what} | {counts[number]} |" for what, counts in rows.items()),
        ]
        assert table.splitlines() == lines + ["| Missing notifications | 1 |"] * number
        assert all(len(line.replace("|", " ").split()) <= 5 for line in lines)
    # also as numbers, for other programs
    assert deployment.metadata("hits", DAY)["events_kept"] == 3
    # counts come first, locations last
    names = list(deployment.metadata("hits", DAY))
    assert names[:5] == ["dagster/partition_row_count", "events", "events_received", "events_gained", "quarantined"]
    assert names[-3:] == ["bytes", "path", "rows_digest"]
    assert deployment.metadata("hits", DAY)["events"] == "5 stored (+0), 1 rejected (16.67%)"
