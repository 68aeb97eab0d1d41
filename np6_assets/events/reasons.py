"""What the UI shows of a day of bounces: how many there are for each reason."""

from __future__ import annotations

import re
from collections import Counter

import pyarrow as pa

from np6_assets import markdown
from np6_assets.contact.free_text import FreeText

_COLUMNS = ("bounce_reason", "bounce_verdict")


class Reasons:
    """Counts events by reason and verdict while they go by. Events of other kinds have none."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, table: pa.Table) -> None:
        """Count some events."""
        if not set(_COLUMNS) <= set(table.column_names):
            return
        counted = table.group_by(list(_COLUMNS)).aggregate([([], "count_all")]).to_pydict()
        for reason, verdict, count in zip(*(counted[name] for name in (*_COLUMNS, "count_all")), strict=True):
            self._counts[word(reason), word(verdict)] += count

    def markdown(self) -> str | None:
        """A Markdown table, the most frequent first; None where nothing was counted."""
        if not self._counts:
            return None
        rows = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return markdown.table(
            ("Reason", "Verdict", "Bounces"),
            [(*(markdown.escaped(text) for text in key), f"{count:,}") for key, count in rows],
        )


def word(text: str | None) -> str:
    """A reason or a verdict as it is shown: a longer text could name a receiver."""
    if not text:
        return "not given"
    return text if re.fullmatch(r"[\w .:/-]{1,60}", text) and FreeText().treated(text) == text else "another text"
