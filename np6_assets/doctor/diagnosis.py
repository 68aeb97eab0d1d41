"""Diagnoses: what was found out about one subject, the verdict, and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warning", "wrong", "unknown"]

_SHORTEST_SECRET = 6
"""Shorter secrets are not masked: they would be found in ordinary words."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about one subject.

    `advice` is what to do, empty where there is nothing to do; `values` are the numbers behind `text`, for scripts.
    """

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def mask(self, secrets: Iterable[str]) -> Diagnosis:
        """Mask secrets that a server or a file system may have put into its words."""
        texts = json.dumps([self.text, self.advice, self.values])
        for secret in secrets:
            if len(secret) >= _SHORTEST_SECRET:
                texts = texts.replace(json.dumps(secret)[1:-1], "***")
        return Diagnosis(self.subject, self.verdict, *json.loads(texts))


def find_worst(diagnoses: Iterable[Diagnosis]) -> Verdict:
    """Find the worst verdict: wrong before warning, warning before unknown, unknown before ok."""
    order: tuple[Verdict, ...] = ("ok", "unknown", "warning", "wrong")
    return max((one.verdict for one in diagnoses), key=order.index, default="ok")


def mask_value(text: str | None) -> str:
    """Mask a value of the API unless it is a plain name, such as a type: it could be a person's."""
    if text is None:
        return "null"
    return text if re.fullmatch(r"[A-Za-z][A-Za-z_-]{0,31}", text) else "(not a plain name)"


def list_names(names: list[str], most: int = 5) -> str:
    """List the first names, and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
