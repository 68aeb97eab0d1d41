"""The metadata that the UI shows of a materialized event day, the most important first."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dagster as dg

from np6_assets import markdown
from np6_assets.events.day import DayFacts, DayMerge
from np6_assets.events.fanout import count_reasons
from np6_assets.events.reasons import build_reasons_table
from np6_assets.events.receive import FetchedDay

SUMMARY = "events"
"""Metadata key of the day in one line, for people; the figures have keys of their own."""


def build_metadata(merge: DayMerge, watermark: datetime) -> dict[str, Any]:
    """Build a day's metadata from the facts of its fetch and merge."""
    facts, fetched = merge.facts, merge.fetched
    plan = fetched.plan
    gained = None if plan.stored is None else facts.rows - plan.stored.rows
    metadata: dict[str, Any] = {
        SUMMARY: format_summary(facts, gained),
        "events_received": fetched.received,
        **({} if gained is None else {"events_gained": gained}),
        "quarantined": facts.rejected,
        "absent": dg.MetadataValue.md(_build_absent_table(fetched, facts)),
        **({"reasons": dg.MetadataValue.md(build_reasons_table(facts.reasons))} if facts.reasons else {}),
        "events_kept": facts.kept,
        "events_outside_window": fetched.outside_window,
        "events_of_erased": fetched.erased_count,
        "events_before_send": facts.before_send,
        "unknown_fields": dg.MetadataValue.json(fetched.unknown_fields),
        "unreadable_values": dg.MetadataValue.json(fetched.unreadable_values),
    }
    if fetched.requested_ids is not None:
        metadata["notifications_asked"] = dg.MetadataValue.json(count_reasons(fetched.requested_ids))
        metadata["notifications_missing"] = dg.MetadataValue.json(sorted(fetched.missing_ids))
        metadata["notifications_gone"] = dg.MetadataValue.json(sorted(fetched.gone_ids))
    return metadata | {
        "hours_after_end": round((fetched.requested_at.at - plan.day.end).total_seconds() / 3600, 2),
        "fetched_from": dg.MetadataValue.timestamp(plan.start),
        "fetched_until": dg.MetadataValue.timestamp(watermark),
        "seconds_before_send": -facts.most_before_send / 1000,
    }


def format_summary(facts: DayFacts, gained: int | None) -> str:
    """Format a day in one line: the events stored, how many more than before, and which share was rejected."""
    share = facts.rejected / (facts.rows + facts.rejected) if facts.rejected else 0.0
    more = "" if gained is None else f" ({gained:+,})"
    return f"{facts.rows:,} stored{more}, {facts.rejected:,} rejected ({share:.2%})"


def _build_absent_table(fetched: FetchedDay, facts: DayFacts) -> str:
    """Build the Markdown table of what is not stored as the API sent it; no line has more than five words."""
    counts = {
        "Kept, not in answer": facts.kept,
        "Dropped, outside the window": fetched.outside_window,
        "Dropped, receiver erased": fetched.erased_count,
        "Rejected, in quarantine": facts.rejected,
        "Unreadable values, null": sum(fetched.unreadable_values.values()),
    }
    if fetched.requested_ids is not None:
        counts["Missing notifications"] = len(fetched.missing_ids)
    return markdown.table(("What", "Count"), [(what, f"{count:,}") for what, count in counts.items()])
