"""Diagnoses: what was found out about one subject, the verdict, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
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

    def as_json(self) -> dict[str, Any]:
        """Give the fields that `--json` prints."""
        return asdict(self)

    def mask(self, secrets: Iterable[str]) -> Diagnosis:
        """Mask secrets that a server or a file system may have put into its words."""
        clean = _build_mask([secret for secret in secrets if len(secret) >= _SHORTEST_SECRET])
        return Diagnosis(self.subject, self.verdict, clean(self.text), clean(self.advice), clean(dict(self.values)))


def _build_mask(secrets: list[str]) -> Any:
    def clean(value: Any) -> Any:
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, "***")
            return value
        if isinstance(value, dict):
            return {clean(key): clean(one) for key, one in value.items()}
        return [clean(one) for one in value] if isinstance(value, list) else value

    return clean


def find_worst(diagnoses: Iterable[Diagnosis]) -> Verdict:
    """Find the worst verdict: wrong before warning, warning before unknown, unknown before ok."""
    found = {one.verdict for one in diagnoses}
    order: tuple[Verdict, ...] = ("wrong", "warning", "unknown")
    return next((verdict for verdict in order if verdict in found), "ok")


def mask_value(text: str | None) -> str:
    """Mask a value of the API unless it is a plain name, such as a type: it could be a person's."""
    if text is None:
        return "null"
    return text if re.fullmatch(r"[A-Za-z][A-Za-z_-]{0,31}", text) else "(not a plain name)"


def format_duration(seconds: float) -> str:
    """Write a length of time as people say it: `3 minutes`."""
    for size, unit in ((2 * 86400, "days"), (2 * 3600, "hours"), (2 * 60, "minutes")):
        if seconds >= size:
            return f"{seconds / (size / 2):.0f} {unit}"
    return f"{seconds:.0f} s"
