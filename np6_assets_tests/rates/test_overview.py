"""Test the chart that the UI shows of the rates."""

import re
from datetime import date, timedelta
from pathlib import Path

import pytest

from np6_assets.rates.columns import SCHEMA
from np6_assets.rates.metadata import build_overview
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets_tests.report.rendering import build_row, write_rates
from np6_assets_tests.support.oracle import RATE_COLUMNS
from np6_assets_tests.support.tables import build_table

FIRST = date(2026, 3, 1)


@pytest.mark.parametrize(
    ("stored", "computed", "first", "last"),
    [
        (range(10, 20), 20, 10, 20),  # the next cohort
        (range(10, 20), 12, 10, 19),  # one of them again
        (range(10, 20), 3, 10, 19),  # one before the first known sends: its reactions have no rate
        (range(40), 40, 11, 40),  # thirty days
        (range(5, 40), 5, 10, 39),
    ],
)
def test_chart_shows_the_newest_cohorts(stored: range, computed: int, first: int, last: int, tmp_path: Path) -> None:
    rows = {
        ahead: build_row(
            FIRST + timedelta(days=ahead), 1, 100 if ahead in stored or ahead >= 10 else None, hit_activations=5
        )
        for ahead in {*stored, computed}
    }
    write_rates(tmp_path, [rows[ahead] for ahead in stored], {})
    table = build_table([rows[computed]], RATE_COLUMNS).cast(SCHEMA)
    key = f"{FIRST + timedelta(days=computed)}"
    chart = build_overview(Folder(str(tmp_path)), key, table, Settings.from_environment({}), date(2100, 1, 1))["chart"]
    caption = re.search(r"^Cohorts (\S+) to (\S+)\.", chart.value, re.MULTILINE)
    assert caption is not None
    assert caption.groups() == (f"{FIRST + timedelta(days=first)}", f"{FIRST + timedelta(days=last)}")
