"""Render the report as one HTML page, from the templates beside this file. All values are escaped."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import jinja2

from np6_assets.rates.columns import COLUMNS
from np6_assets.rates.measures import BOUNCE, NONE, Cohort, format_percent
from np6_assets.rates.panel import build_axis, build_panel, build_sparkline
from np6_assets.report.comparison import LEAST
from np6_assets.report.formatting import (
    ENOUGH_CLICKS,
    format_count,
    format_date,
    format_estimate,
    format_hour,
    format_interval,
    format_p_value,
    format_points,
    format_range,
    format_ranges,
    format_share,
    format_weekday,
    is_few,
    shorten_ids,
    split_figures,
)
from np6_assets.report.moments import Slot
from np6_assets.report.queries import ReportData
from np6_assets.report.sentences import Sentence, describe_best_time

STATES = {"final": "● final", "open": "○ provisional", "incomplete": "◇ incomplete"}
"""The labels of a status."""

SHOWN = 20
"""How many notifications are shown until the reader opens the rest, and are printed."""

PRINTED = 6
"""How many rows of every other table are printed; of versions, these are shown, too."""

_SHADES = 6


def render_page(report: ReportData, opening: tuple[Sentence, ...], made_at: datetime, timezone: str) -> str:
    """Render the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("np6_assets.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": format_percent,
        "count": format_count,
        "about": format_estimate,
        "between": format_interval,
        "of_counts": format_share,
        "points": format_points,
        "p_value": format_p_value,
        "stretches": format_ranges,
        "figures": split_figures,
        "dated": format_date,
        "raw": _write_sort_key,
    }
    cohorts = [Cohort(day.key, day.shares, day.status) for day in report.days]
    axis = build_axis((cohort.day for cohort in cohorts), report.first, report.last)
    return environment.get_template("page.html").render(
        report=report,
        opening=opening,
        made_at=made_at.astimezone(ZoneInfo(timezone)),
        timezone=timezone,
        measures=report.measures,
        panels=[build_panel(measure, cohorts, axis.places) for measure in report.measures],
        axis=axis,
        trends={key: (shares, *build_sparkline(shares)) for key, shares in report.trends.items()},
        applications=_shorten_ids(group.key for group in report.applications),
        versions=_shorten_ids(version for contest in report.contests for version, _ in contest.versions),
        heat=_build_heat_map(report.slots),
        best_time=describe_best_time(report.slots),
        hours=report.hours,
        hits=sum(report.hours),
        bounced=report.total.shares[BOUNCE.column],
        is_few=is_few,
        stretch=format_range,
        hour_of=format_hour,
        weekday=format_weekday,
        dash=NONE,
        states=STATES,
        least=LEAST,
        shown=SHOWN,
        printed=PRINTED,
        columns=[(name, description) for name, _, description, _ in COLUMNS],
    )


def _shorten_ids(ids: Any) -> dict[str, str]:
    return shorten_ids([id_ for id_ in ids if id_])


def _build_heat_map(slots: list[Slot]) -> dict[str, Any]:
    """Build the heat map by weekday and hour: a slot and its two shades, of the rate as sent and like for like.

    A shade is 0 (least) to 5; None where there are too few sends to tell.
    """
    sure = [slot for slot in slots if not is_few(slot.share) and slot.expected >= ENOUGH_CLICKS]
    rates = [slot.share.rate or 0.0 for slot in sure]
    alike = [slot.share.part / slot.expected for slot in sure]
    usual = sum(slot.share.part for slot in sure) / max(sum(slot.share.whole for slot in sure), 1)
    hours = sorted({slot.hour for slot in slots})
    cells = {
        (slot.weekday, slot.hour): (
            slot,
            _choose_shade(slot.share.rate or 0.0, rates, usual) if slot in sure else None,
            _choose_shade(slot.share.part / slot.expected, alike, 1.0) if slot in sure else None,
        )
        for slot in slots
    }
    return {
        "hours": range(hours[0], hours[-1] + 1) if hours else [],
        "cells": cells,
    }


def _choose_shade(value: float, among: list[float], usual: float) -> int:
    """Choose a value's shade, from the lowest to the highest of all, or to a quarter around the usual if that is wider.

    So values that hardly differ have similar shades.
    """
    low, high = min(*among, 0.75 * usual), max(*among, 1.25 * usual)
    return min(int((value - low) / (high - low) * _SHADES), _SHADES - 1) if high > low else 0


def _write_sort_key(number: float | None) -> str:
    """Write a number to sort by; a missing one comes last."""
    return "-1" if number is None else repr(number)
