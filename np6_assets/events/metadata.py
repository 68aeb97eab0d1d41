"""What the UI shows of a materialization of an event day: what counts first, where it lies last."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dagster as dg

from np6_assets.events.absent import absent_table
from np6_assets.events.day import Facts, MergedDay
from np6_assets.events.fanout import reasons
from np6_assets.events.reasons import reasons_table

SUMMARY = "events"
"""The day in a line, for people; what programs read has keys of its own."""


def metadata_of(merged: MergedDay, until: datetime) -> dict[str, Any]:
    """What the fetch and the merge of a day found out, in the order in which Dagster shows it."""
    facts, fetched = merged.facts, merged.fetched
    plan = fetched.plan
    gained = None if plan.stored is None else facts.rows - plan.stored.rows
    metadata: dict[str, Any] = {
        SUMMARY: summary(facts, gained),
        "events_received": fetched.received,
        **({} if gained is None else {"events_gained": gained}),
        "quarantined": facts.rejected,
        "absent": dg.MetadataValue.md(absent_table(fetched, facts)),
        **({"reasons": dg.MetadataValue.md(reasons_table(facts.reasons))} if facts.reasons else {}),
        "events_kept": facts.kept,
        "events_outside_window": fetched.outside,
        "events_of_erased": fetched.of_erased,
        "events_before_send": facts.early,
        "unknown_fields": dg.MetadataValue.json(fetched.unknown),
        "unreadable_values": dg.MetadataValue.json(fetched.unreadable),
    }
    if fetched.asked_ids is not None:
        metadata["notifications_asked"] = dg.MetadataValue.json(reasons(fetched.asked_ids))
        metadata["notifications_missing"] = dg.MetadataValue.json(sorted(fetched.missing))
        metadata["notifications_gone"] = dg.MetadataValue.json(sorted(fetched.gone))
    return metadata | {
        "hours_after_end": round((fetched.asked.at - plan.day.end).total_seconds() / 3600, 2),
        "fetched_from": dg.MetadataValue.timestamp(plan.start),
        "fetched_until": dg.MetadataValue.timestamp(until),
        "seconds_before_send": -facts.earliest / 1000,
    }


def summary(facts: Facts, gained: int | None) -> str:
    """A day in a line: the events stored, how many more than before, and which share was rejected."""
    share = facts.rejected / (facts.rows + facts.rejected) if facts.rejected else 0.0
    more = "" if gained is None else f" ({gained:+,})"
    return f"{facts.rows:,} stored{more}, {facts.rejected:,} rejected ({share:.2%})"
