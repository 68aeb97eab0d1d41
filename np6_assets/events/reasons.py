"""The bounce reasons of a day, as the UI shows them."""

from __future__ import annotations

import re
from collections import Counter

import pyarrow as pa

from np6_assets import markdown
from np6_assets.contact.free_text import TextRedactor

BounceReasons = Counter[tuple[str, str]]
"""Number of bounces by reason and verdict."""

_COLUMNS = ("bounce_reason", "bounce_verdict")


def count_bounce_reasons(table: pa.Table) -> BounceReasons:
    """Count bounces by reason and verdict; events of other kinds have none."""
    found = BounceReasons()
    if set(_COLUMNS) <= set(table.column_names):
        counted = table.group_by(list(_COLUMNS)).aggregate([([], "count_all")]).to_pydict()
        for reason, verdict, count in zip(*(counted[name] for name in (*_COLUMNS, "count_all")), strict=True):
            found[clean_reason(reason), clean_reason(verdict)] += count
    return found


def build_reasons_table(reasons: BounceReasons) -> str:
    """Build a Markdown table, the most frequent reason first."""
    rows = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    cells = [(*(markdown.escaped(text) for text in key), f"{count:,}") for key, count in rows]
    return markdown.table(("Reason", "Verdict", "Bounces"), cells)


def clean_reason(text: str | None) -> str:
    """Return a reason or verdict that is safe to show: a longer text could name a receiver."""
    if not text:
        return "not given"
    return text if re.fullmatch(r"[\w .:/-]{1,60}", text) and TextRedactor().redact(text) == text else "another text"
