"""What the UI shows of a day: how many events are not there as the API sent them, and why."""

from __future__ import annotations

from np6_assets import markdown
from np6_assets.events.day import Facts
from np6_assets.events.fetch import FetchedDay


def absent_table(fetched: FetchedDay, facts: Facts) -> str:
    """A Markdown table; no line of it has more than five words."""
    counts = {
        "Kept, not in answer": facts.kept,
        "Dropped, outside the window": fetched.outside,
        "Dropped, receiver erased": fetched.of_erased,
        "Rejected, in quarantine": facts.rejected,
        "Unreadable values, null": sum(fetched.unreadable.values()),
    }
    if fetched.asked_ids is not None:
        counts["Missing notifications"] = len(fetched.missing)
    return markdown.table(("What", "Count"), [(what, f"{count:,}") for what, count in counts.items()])
