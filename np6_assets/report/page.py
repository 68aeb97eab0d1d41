"""The report as one HTML page, from the templates beside this file. Everything that is filled in is escaped."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import jinja2

from np6_assets.rates.columns import COLUMNS
from np6_assets.rates.pictures import BOUNCE, NONE, percent
from np6_assets.report import charts, words
from np6_assets.report.comparison import LEAST
from np6_assets.report.moments import Slot
from np6_assets.report.queries import Findings
from np6_assets.report.sentences import Sentence, best_time

STATES = {"final": "● final", "open": "○ provisional", "incomplete": "◇ incomplete"}
"""What the page calls a status."""

SHOWN = 20
"""How many notifications are shown before all are asked for, and are printed."""

PRINTED = 6
"""How many rows of every other table are printed; of versions, these are shown, too."""

_SHADES = 6


def render(findings: Findings, opening: tuple[Sentence, ...], made_at: datetime, timezone: str) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("np6_assets.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "count": words.count,
        "about": words.about,
        "between": words.between,
        "of_counts": words.of_counts,
        "points": words.points,
        "p_value": words.p_value,
        "stretches": words.stretches,
        "figures": words.figures,
        "dated": words.dated,
        "raw": _raw,
    }
    places = charts.axis(findings.days, findings.first, findings.last)
    return environment.get_template("page.html").render(
        findings=findings,
        opening=opening,
        made_at=made_at.astimezone(ZoneInfo(timezone)),
        timezone=timezone,
        measures=findings.measures,
        panels=[charts.panel(measure, findings.days, places.places) for measure in findings.measures],
        axis=places,
        trends={key: (shares, *charts.spark(shares)) for key, shares in findings.trends.items()},
        applications=_short(group.key for group in findings.applications),
        versions=_short(version for contest in findings.contests for version, _ in contest.versions),
        heat=_heat(findings.slots),
        best_time=best_time(findings.slots),
        hours=findings.hours,
        hits=sum(findings.hours),
        bounced=findings.total.shares[BOUNCE.column],
        is_few=words.is_few,
        stretch=words.stretch,
        hour_of=words.hour_of,
        weekday=words.weekday,
        dash=NONE,
        states=STATES,
        least=LEAST,
        shown=SHOWN,
        printed=PRINTED,
        columns=[(name, description) for name, _, description, _ in COLUMNS],
    )


def _short(ids: Any) -> dict[str, str]:
    return words.short_ids([id_ for id_ in ids if id_])


def _heat(slots: list[Slot]) -> dict[str, Any]:
    """The cells of the heat map by weekday and hour: a slot and its two shades, of the rate as sent and like for like.

    A shade is 0 (least) to 5; None where there are too few sends to tell.
    """
    sure = [slot for slot in slots if not words.is_few(slot.share) and slot.expected >= words.ENOUGH_CLICKS]
    rates = [slot.share.rate or 0.0 for slot in sure]
    alike = [slot.share.part / slot.expected for slot in sure]
    usual = sum(slot.share.part for slot in sure) / max(sum(slot.share.whole for slot in sure), 1)
    hours = sorted({slot.hour for slot in slots})
    cells = {
        (slot.weekday, slot.hour): (
            slot,
            _shade(slot.share.rate or 0.0, rates, usual) if slot in sure else None,
            _shade(slot.share.part / slot.expected, alike, 1.0) if slot in sure else None,
        )
        for slot in slots
    }
    return {
        "hours": range(hours[0], hours[-1] + 1) if hours else [],
        "cells": cells,
    }


def _shade(value: float, among: list[float], usual: float) -> int:
    """Where a value lies from the least to the greatest of some, or of what is a quarter off the usual.

    Values that hardly differ have shades that hardly differ.
    """
    low, high = min(*among, 0.75 * usual), max(*among, 1.25 * usual)
    return min(int((value - low) / (high - low) * _SHADES), _SHADES - 1) if high > low else 0


def _raw(number: float | None) -> str:
    """A number to sort by; one that is not there comes last."""
    return "-1" if number is None else repr(number)
