"""Render the report as one HTML page, from the templates beside this file. All values are escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import jinja2

from np6_assets.rates.columns import COLUMNS
from np6_assets.rates.measures import BOUNCE, NONE, Cohort, Share, sum_shares
from np6_assets.rates.panel import build_axis, build_panel, build_sparkline
from np6_assets.report.comparison import LEAST
from np6_assets.report.formatting import FILTERS, WEEKDAYS, format_hour, is_few, shorten_ids
from np6_assets.report.queries import ReportData
from np6_assets.report.sentences import Sentence

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
    environment.filters |= FILTERS
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
        applications=shorten_ids(group.key for group in report.applications),
        versions=shorten_ids(version for contest in report.contests for version, _ in contest.versions),
        heat=_build_heat_map(report.slots),
        bounced=report.total.shares[BOUNCE.column],
        is_few=is_few,
        hour_of=format_hour,
        weekdays=WEEKDAYS,
        dash=NONE,
        least=LEAST,
        columns=COLUMNS,
    )


def _build_heat_map(slots: Mapping[tuple[int, int], Share]) -> dict[str, Any]:
    """Build the heat map: by weekday and hour, the hits and a shade, 0 (least) to 5; None where there are too few."""
    sure = [share for share in slots.values() if not is_few(share)]
    rates = [share.rate or 0.0 for share in sure]
    usual = sum_shares(sure).rate or 0.0
    hours = [hour for _, hour in slots]
    return {
        "hours": range(min(hours), max(hours) + 1) if hours else [],
        "cells": {
            slot: (share, choose_shade(share.rate or 0.0, rates, usual) if share in sure else None)
            for slot, share in slots.items()
        },
    }


def choose_shade(value: float, among: list[float], usual: float) -> int:
    """Choose a value's shade, from the lowest to the highest of all, or to a quarter around the usual if that is wider.

    So values that hardly differ have similar shades.
    """
    low, high = min(*among, 0.75 * usual), max(*among, 1.25 * usual)
    return min(int((value - low) / (high - low) * _SHADES), _SHADES - 1) if high > low else 0
