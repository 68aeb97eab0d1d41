"""What the UI shows of a day of bounces: how many there are for each reason."""

from __future__ import annotations

import re
from collections import Counter

import pyarrow as pa

from np6_assets import markdown
from np6_assets.contact.free_text import FreeText

Reasons = Counter[tuple[str, str]]
"""How many bounces there are of each reason and verdict."""

_COLUMNS = ("bounce_reason", "bounce_verdict")


def reasons_of(table: pa.Table) -> Reasons:
    """Some events, counted; those of other kinds have no reasons."""
    found = Reasons()
    if set(_COLUMNS) <= set(table.column_names):
        counted = table.group_by(list(_COLUMNS)).aggregate([([], "count_all")]).to_pydict()
        for reason, verdict, count in zip(*(counted[name] for name in (*_COLUMNS, "count_all")), strict=True):
            found[word(reason), word(verdict)] += count
    return found


def reasons_table(reasons: Reasons) -> str:
    """A Markdown table, the most frequent first."""
    rows = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    cells = [(*(markdown.escaped(text) for text in key), f"{count:,}") for key, count in rows]
    return markdown.table(("Reason", "Verdict", "Bounces"), cells)


def word(text: str | None) -> str:
    """A reason or a verdict as it is shown: a longer text could name a receiver."""
    if not text:
        return "not given"
    return text if re.fullmatch(r"[\w .:/-]{1,60}", text) and FreeText().treated(text) == text else "another text"
