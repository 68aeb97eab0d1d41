"""Findings: what was found out about one subject, the verdict, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warning", "wrong", "unknown"]

_SHORTEST_SECRET = 6
"""Shorter ones are in half the words that there are."""


@dataclass(frozen=True)
class Finding:
    """What was found out about one subject.

    `advice` is what to do, empty where there is nothing to do; `values` are the numbers behind `text`, for scripts.
    """

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The finding as `--json` prints it."""
        return asdict(self)

    def without(self, secrets: Iterable[str]) -> Finding:
        """The finding, should a server or a file system have put a secret into what it says, without it."""
        clean = _cleaner([secret for secret in secrets if len(secret) >= _SHORTEST_SECRET])
        return Finding(self.subject, self.verdict, clean(self.text), clean(self.advice), clean(dict(self.values)))


def _cleaner(secrets: list[str]) -> Any:
    def clean(value: Any) -> Any:
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, "***")
            return value
        if isinstance(value, dict):
            return {clean(key): clean(one) for key, one in value.items()}
        return [clean(one) for one in value] if isinstance(value, list) else value

    return clean


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict on all of them: wrong before warning, warning before unknown, unknown before ok."""
    found = {finding.verdict for finding in findings}
    order: tuple[Verdict, ...] = ("wrong", "warning", "unknown")
    return next((verdict for verdict in order if verdict in found), "ok")


def shown(text: str | None) -> str:
    """A value of the API's as it may be printed: names of types and the like, and nothing that could be a person's."""
    if text is None:
        return "null"
    return text if re.fullmatch(r"[A-Za-z][A-Za-z_-]{0,31}", text) else "(not a plain name)"


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    for size, unit in ((2 * 86400, "days"), (2 * 3600, "hours"), (2 * 60, "minutes")):
        if seconds >= size:
            return f"{seconds / (size / 2):.0f} {unit}"
    return f"{seconds:.0f} s"
