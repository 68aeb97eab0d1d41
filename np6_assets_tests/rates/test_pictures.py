"""Test what the UI shows of the rates: the chart, a line, the table of notifications, the lineage of columns."""

import base64
import re
import xml.etree.ElementTree as ET
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from np6_assets.rates.chart import draw_chart
from np6_assets.rates.columns import SCHEMA
from np6_assets.rates.display import summarize_rates, write_chart, write_notifications
from np6_assets.rates.lineage import build_column_lineage
from np6_assets.rates.measures import HIT, Share, build_cohorts
from np6_assets.rates.metadata import build_overview
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets_tests.report import rendering
from np6_assets_tests.support.oracle import RATE_COLUMNS, compute_wilson, list_columns
from np6_assets_tests.support.tables import build_table

D = date(2026, 3, 20)
TODAY = D + timedelta(days=9)


def build_row(day: int = 0, activation_id: int = 1, *, sends: int | None = 1_000, **values: Any) -> Any:
    """Build a row of the rates, `day` days after D."""
    return rendering.build_row(D + timedelta(days=day), activation_id, sends, **values)


def test_rate_divides_the_sums_of_known_counts():
    rates = [
        build_row(hit_activations=100, bounced=500),
        build_row(sends=9_000, hit_activations=90),
        build_row(sends=None, hit_activations=7),
        build_row(sends=0, hit_activations=3),
        build_row(sends=50, hit_activations=40, status="incomplete"),
    ]
    share = HIT.of(rates)
    assert share == Share(190, 9_500)
    assert share.rate == 190 / 9_500
    assert share.interval == pytest.approx(compute_wilson(190, 9_500))
    assert HIT.of([build_row(sends=None, hit_activations=7)]).rate is None
    assert Share(3, 2).interval is None


def list_paths(svg: str, *classes: str) -> list[str]:
    """List the paths of a chart that have all of these classes."""
    paths = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    return [path.get("d", "") for path in paths if {*classes} <= set(path.get("class", "").split())]


def count_dots(svg: str) -> tuple[int, int]:
    """Count the full and the hollow dots."""
    hollow = sum(path.count("M") for path in list_paths(svg, "dot", "hollow"))
    return sum(path.count("M") for path in list_paths(svg, "dot")) - 2 * hollow, hollow


def test_chart_draws_provisional_cohorts_hollow_and_breaks_at_missing_days():
    days = [build_row(day, hit_activations=100 + day, status="final" if day < 3 else "open") for day in range(5)]
    svg = draw_chart(build_cohorts(days))
    assert count_dots(svg) == (3 * 3, 2 * 3)
    assert len(list_paths(svg, "line", "dashed")) == 3
    assert {"Hit rate", "Optout rate", "Bounce rate"} <= set(re.findall(r">([^<>]+)</text>", svg))
    for rows, dots, lines in (
        ([build_row(day) for day in range(5)], 15, [1, 1, 1]),
        ([build_row(day) for day in (0, 1, 3, 4)], 12, [2, 2, 2]),
        ([build_row(0, sends=None), build_row(1)], 3, []),
        ([build_row(sends=None)], 0, []),
        ([build_row(sends=0)], 0, []),
    ):
        svg = draw_chart(build_cohorts(rows))
        assert "nan" not in svg
        assert count_dots(svg) == (dots, 0)
        assert [path.count("M") for path in list_paths(svg, "line")] == lines


def test_incomplete_rows_are_named_and_in_no_rate():
    rates = [
        build_row(activation_id=1, hit_activations=100, status="open"),
        build_row(activation_id=2, hit_activations=900, status="incomplete"),
        build_row(1, activation_id=1, hit_activations=50),
    ]
    cohorts = build_cohorts(rates)
    assert [cohort.status for cohort in cohorts] == ["incomplete", "final"]
    assert cohorts[0].shares["hit_rate"] == Share(100, 1_000)
    assert count_dots(draw_chart(cohorts)) == (3, 3)
    table = write_notifications(rates, {2: "Sale"})
    assert "| Sale | 1,000 | — | — |" in table
    assert table.endswith("**Incomplete**, as events are missing, and in no rate above: Sale.")
    assert "Hollow squares: incomplete" in write_chart(cohorts, TODAY)


def test_chart_is_a_picture_without_today_that_needs_no_network():
    def decode_svg(markdown: str) -> str:
        [image] = re.findall(r"^!\[[^\]]+\]\(data:image/svg\+xml;base64,([\w+/=]+)\)$", markdown, re.MULTILINE)
        return base64.b64decode(image).decode()

    days = build_cohorts([build_row(day, hit_activations=count) for day, count in enumerate((100, 100, 1))])
    chart = write_chart(days, D + timedelta(days=2))
    assert decode_svg(chart) == draw_chart(days[:2])
    assert not re.search(r"(href|src)=\"(?!#)", decode_svg(chart))
    assert "Cohorts 2026-03-20 to 2026-03-21. 2026-03-22 is not over, and left out." in chart
    assert decode_svg(write_chart(days, TODAY)) == draw_chart(days)
    assert decode_svg(write_chart(days[:1], D)) == draw_chart(days[:1])  # a dot is better than none


def test_chart_shows_the_newest_cohorts(tmp_path: Path):
    for number, (stored, computed, first, last) in enumerate(
        (
            (range(10, 20), 20, 10, 20),  # the next cohort
            (range(10, 20), 12, 10, 19),  # one of them again
            (range(10, 20), 3, 10, 19),  # one before the first known sends: its reactions have no rate
            (range(5, 40), 5, 10, 39),  # thirty days
        )
    ):
        rows = {
            day: build_row(day, sends=100 if day in stored or day >= 10 else None, hit_activations=5)
            for day in {*stored, computed}
        }
        folder = Folder(str(tmp_path / f"{number}"))
        rendering.write_rates(tmp_path / f"{number}", [rows[day] for day in stored], {})
        table = build_table([rows[computed]], RATE_COLUMNS).cast(SCHEMA)
        key = f"{D + timedelta(days=computed)}"
        overview = build_overview(folder, key, table, Settings.from_environment({}), date(2100, 1, 1))
        caption = f"\nCohorts {D + timedelta(days=first)} to {D + timedelta(days=last)}."
        assert caption in overview["chart"].value


def test_cohort_is_summarized_in_a_line():
    rates = [build_row(hit_activations=100, bounced=500), build_row(sends=9_000, optout_activations=95)]
    low, high = compute_wilson(100, 9_500)
    summary = f"hit 1.05% ({low:.1%} to {high:.1%}), optout 1.00%, bounce 5.00% of 10,000 sends"
    assert summarize_rates(rates, is_over=True) == summary
    assert summarize_rates(rates, is_over=False) == f"{summary}; the day is not over"
    assert summarize_rates([*rates, build_row(sends=0, status="open")], is_over=True) == f"{summary}; provisional"
    assert summarize_rates([*rates, build_row(sends=0, status="incomplete")], is_over=True) == f"{summary}; incomplete"
    assert summarize_rates([build_row(sends=None)], is_over=True) == "how many were sent is not known"
    assert summarize_rates([], is_over=True) == "nothing was sent"


def test_table_lists_notifications_by_sends():
    name = "A campaign that somebody named with everything that it is about"
    rates = [
        build_row(activation_id=1, sends=50, hit_activations=5),
        build_row(activation_id=2, sends=800, hit_activations=80, bounced=400),
        build_row(activation_id=2, sends=200, hit_activations=30, optout_activations=6),
        build_row(activation_id=3, sends=None, hit_activations=2),
    ]
    low, high = compute_wilson(110, 600)
    table = write_notifications(rates, {1: name, 3: "a | <b>*x*</b>\nnew"}).split("\n")
    interval = f"{low:.1%} to {high:.1%}".replace(" ", "\xa0")  # on one line, however narrow the table
    assert table[2] == f"| notification 2 | 1,000 | {110 / 600:.2%} | {interval} | 1.00% | 40.00% |"
    assert table[3].startswith(f"| {name[:39]}… | 50 | 10.00% | ")
    assert table[4] == r"| a \| \<b\>\*x\*\<\/b\> new | — | — | — | — | — |"
    assert len(table) == 5
    assert write_notifications([build_row(status="open")], {}).endswith("**Provisional**: these rates still move.")
    long = write_notifications([build_row(activation_id=number, sends=number) for number in range(1, 31)], {})
    assert long.count("\n| notification") == 20
    assert long.endswith("and 10 more with fewer sends")


def test_lineage_names_columns_that_exist():
    lineage = build_column_lineage(Settings.from_environment({})).deps_by_column
    assert set(RATE_COLUMNS) - set(lineage) == {"window_days", "days_loaded", "status", "is_final"}
    for column, deps in lineage.items():
        assert column in RATE_COLUMNS
        for dep in deps:
            assert dep.column_name in list_columns(dep.asset_key.to_user_string())
