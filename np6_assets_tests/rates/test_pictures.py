"""Test the chart and the table of notifications that the UI shows of the rates."""

import base64
import re
import xml.etree.ElementTree as ET
from datetime import date, timedelta
from typing import Any

import pytest

from np6_assets.rates.chart import draw_chart
from np6_assets.rates.display import summarize_rates, write_chart, write_notifications
from np6_assets.rates.lineage import build_column_lineage
from np6_assets.rates.measures import HIT, Share, build_cohorts
from np6_assets.settings import Settings
from np6_assets_tests.support.oracle import RATE_COLUMNS, compute_wilson, list_columns

D = date(2026, 3, 20)
TODAY = D + timedelta(days=9)


def build_row(
    day: int = 0, activation_id: int = 1, *, sends: int | None = 1_000, status: str = "final", **counts: int
) -> Any:
    """Build a row of the rates with the columns that measures read."""
    bounced = counts.get("bounced", 0)
    return {
        "activation_date": D + timedelta(days=day),
        "activation_id": activation_id,
        "activations": sends,
        "bounced": bounced,
        "delivered": None if sends is None else sends - bounced,
        "hit_activations": counts.get("hit_activations", 0),
        "optout_activations": counts.get("optout_activations", 0),
        "status": status,
    }


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


def test_chart_draws_provisional_cohorts_hollow():
    days = [build_row(day, hit_activations=100 + day, status="final" if day < 3 else "open") for day in range(5)]
    svg = draw_chart(build_cohorts(days))
    assert count_dots(svg) == (3 * 3, 2 * 3)
    assert len(list_paths(svg, "line", "dashed")) == 3
    assert {"Hit rate", "Optout rate", "Bounce rate"} <= set(re.findall(r">([^<>]+)</text>", svg))


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


def test_chart_breaks_the_line_at_a_missing_day():
    whole = draw_chart(build_cohorts([build_row(day) for day in range(5)]))
    broken = draw_chart(build_cohorts([build_row(day) for day in (0, 1, 3, 4)]))
    assert [path.count("M") for path in list_paths(whole, "line")] == [1, 1, 1]
    assert [path.count("M") for path in list_paths(broken, "line")] == [2, 2, 2]


@pytest.mark.parametrize(
    ("rows", "dots"),
    [
        ([build_row()], 3),
        ([build_row(sends=None)], 0),
        ([build_row(sends=0)], 0),
        ([build_row(0, sends=None), build_row(1)], 3),
    ],
)
def test_chart_has_no_dots_for_days_without_rates(rows: list[Any], dots: int):
    svg = draw_chart(build_cohorts(rows))
    assert "nan" not in svg
    assert count_dots(svg) == (dots, 0)


def test_chart_of_the_same_cohorts_is_the_same():
    cohorts = build_cohorts([build_row(0), build_row(1, hit_activations=4)])
    assert write_chart(cohorts, TODAY) == write_chart(cohorts, TODAY)


def test_chart_is_a_picture_that_needs_no_network():
    markdown = write_chart(build_cohorts([build_row(0), build_row(1, status="open")]), TODAY)
    found = re.match(r"!\[[^\]]+2026-03-20 to 2026-03-21\]\(data:image/svg\+xml;base64,([\w+/=]+)\)\n", markdown)
    assert found
    svg = base64.b64decode(found[1]).decode()
    assert not re.search(r"(href|src)=\"(?!#)", svg)
    assert "provisional" in markdown


def decode_svg(markdown: str) -> str:
    [image] = re.findall(r"base64,([\w+/=]+)\)", markdown)
    return base64.b64decode(image).decode()


def test_chart_leaves_out_today():
    days = build_cohorts(
        [build_row(0, hit_activations=100), build_row(1, hit_activations=100), build_row(2, hit_activations=1)]
    )
    chart = write_chart(days, D + timedelta(days=2))
    assert decode_svg(chart) == draw_chart(days[:2])
    assert "Cohorts 2026-03-20 to 2026-03-21. 2026-03-22 is not over, and left out." in chart
    assert decode_svg(write_chart(days, TODAY)) == draw_chart(days)
    assert decode_svg(write_chart(days[:1], D)) == draw_chart(days[:1])  # a dot is better than none


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
    rates = [
        build_row(activation_id=1, sends=50, hit_activations=5),
        build_row(activation_id=2, sends=800, hit_activations=80, bounced=400),
        build_row(activation_id=2, sends=200, hit_activations=30, optout_activations=6),
        build_row(activation_id=3, sends=None, hit_activations=2),
    ]
    low, high = compute_wilson(110, 600)
    assert low is not None
    assert high is not None
    table = write_notifications(rates, {1: "Spring sale", 3: "a | <b>*x*</b>\nnew"}).split("\n")
    interval = f"{low:.1%} to {high:.1%}".replace(" ", "\xa0")  # on one line, however narrow the table
    assert table[2] == f"| notification 2 | 1,000 | {110 / 600:.2%} | {interval} | 1.00% | 40.00% |"
    assert table[3].startswith("| Spring sale | 50 | 10.00% | ")
    assert table[4] == r"| a \| \<b\>\*x\*\<\/b\> new | — | — | — | — | — |"
    assert len(table) == 5
    assert write_notifications([build_row(status="open")], {}).endswith("**Provisional**: these rates still move.")


def test_table_shortens_a_long_name():
    name = "A campaign that somebody named with everything that it is about"
    assert f"| {name[:39]}… | 1,000 |" in write_notifications([build_row()], {1: name})


def test_table_counts_the_notifications_that_it_leaves_out():
    table = write_notifications([build_row(activation_id=number, sends=number) for number in range(1, 31)], {})
    assert table.count("\n| notification") == 20
    assert table.endswith("and 10 more with fewer sends")


def test_lineage_names_columns_that_exist():
    lineage = build_column_lineage(Settings.from_environment({})).deps_by_column
    assert set(RATE_COLUMNS) - set(lineage) == {"window_days", "days_loaded", "status", "is_final"}
    for column, deps in lineage.items():
        assert column in RATE_COLUMNS
        for dep in deps:
            assert dep.column_name in list_columns(dep.asset_key.to_user_string())
