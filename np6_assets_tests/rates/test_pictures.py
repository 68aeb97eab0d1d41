"""What the UI shows of the rates: the chart as people see it, and the table of notifications."""

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


def row(
    day: int = 0, activation_id: int = 1, *, sends: int | None = 1_000, status: str = "final", **counts: int
) -> Any:
    """A row of the rates as far as measures read it."""
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


def test_rate_is_that_of_the_sums_of_what_is_known():
    rates = [
        row(hit_activations=100, bounced=500),
        row(sends=9_000, hit_activations=90),
        row(sends=None, hit_activations=7),
        row(sends=0, hit_activations=3),
        row(sends=50, hit_activations=40, status="incomplete"),
    ]
    share = HIT.of(rates)
    assert share == Share(190, 9_500)
    assert share.rate == 190 / 9_500
    assert share.interval == pytest.approx(compute_wilson(190, 9_500))
    assert HIT.of([row(sends=None, hit_activations=7)]).rate is None
    assert Share(3, 2).interval is None


SVG = "{http://www.w3.org/2000/svg}"


def list_paths(svg: str, *classes: str) -> list[str]:
    """The paths of a chart that have all of some classes."""
    found = ET.fromstring(svg).iter(f"{SVG}path")
    return [path.get("d", "") for path in found if {*classes} <= set(path.get("class", "").split())]


def count_dots(svg: str) -> tuple[int, int]:
    """How many full and how many hollow dots there are."""
    hollow = sum(path.count("M") for path in list_paths(svg, "dot", "hollow"))
    return sum(path.count("M") for path in list_paths(svg, "dot")) - 2 * hollow, hollow


def test_provisional_cohorts_are_drawn_as_such():
    days = [row(day, hit_activations=100 + day, status="final" if day < 3 else "open") for day in range(5)]
    svg = draw_chart(build_cohorts(days))
    assert count_dots(svg) == (3 * 3, 2 * 3)
    assert len(list_paths(svg, "line", "dashed")) == 3
    assert {"Hit rate", "Optout rate", "Bounce rate"} <= set(re.findall(r">([^<>]+)</text>", svg))


def test_what_is_incomplete_is_told_and_in_no_rate():
    rates = [
        row(activation_id=1, hit_activations=100, status="open"),
        row(activation_id=2, hit_activations=900, status="incomplete"),
        row(1, activation_id=1, hit_activations=50),
    ]
    cohorts = build_cohorts(rates)
    assert [cohort.status for cohort in cohorts] == ["incomplete", "final"]
    assert cohorts[0].shares["hit_rate"] == Share(100, 1_000)
    assert count_dots(draw_chart(cohorts)) == (3, 3)
    table = write_notifications(rates, {2: "Sale"})
    assert "| Sale | 1,000 | — | — |" in table
    assert table.endswith("**Incomplete**, as events are missing, and in no rate above: Sale.")
    assert "Hollow squares: incomplete" in write_chart(cohorts, TODAY)


def test_missing_day_breaks_the_line():
    whole = draw_chart(build_cohorts([row(day) for day in range(5)]))
    broken = draw_chart(build_cohorts([row(day) for day in (0, 1, 3, 4)]))

    assert [path.count("M") for path in list_paths(whole, "line")] == [1, 1, 1]
    assert [path.count("M") for path in list_paths(broken, "line")] == [2, 2, 2]


@pytest.mark.parametrize(
    ("rows", "drawn"),
    [([row()], 3), ([row(sends=None)], 0), ([row(sends=0)], 0), ([row(0, sends=None), row(1)], 3)],
)
def test_days_without_rates_have_no_dots(rows: list[Any], drawn: int):
    svg = draw_chart(build_cohorts(rows))
    assert "nan" not in svg
    assert count_dots(svg) == (drawn, 0)


def test_same_cohorts_give_the_same_chart():
    cohorts = build_cohorts([row(0), row(1, hit_activations=4)])
    assert write_chart(cohorts, TODAY) == write_chart(cohorts, TODAY)


def test_charts_markdown_is_a_picture_that_needs_no_network():
    markdown = write_chart(build_cohorts([row(0), row(1, status="open")]), TODAY)
    found = re.match(r"!\[[^\]]+2026-03-20 to 2026-03-21\]\(data:image/svg\+xml;base64,([\w+/=]+)\)\n", markdown)
    assert found
    svg = base64.b64decode(found[1]).decode()
    assert not re.search(r"(href|src)=\"(?!#)", svg)
    assert "provisional" in markdown


def svg_in(markdown: str) -> str:
    [image] = re.findall(r"base64,([\w+/=]+)\)", markdown)
    return base64.b64decode(image).decode()


def test_today_is_not_drawn_as_a_fall():
    days = build_cohorts([row(0, hit_activations=100), row(1, hit_activations=100), row(2, hit_activations=1)])
    told = write_chart(days, D + timedelta(days=2))
    assert svg_in(told) == draw_chart(days[:2])
    assert "Cohorts 2026-03-20 to 2026-03-21. 2026-03-22 is not over, and left out." in told
    assert svg_in(write_chart(days, TODAY)) == draw_chart(days)
    assert svg_in(write_chart(days[:1], D)) == draw_chart(days[:1])  # a dot is better than none


def test_cohort_is_told_in_a_line():
    rates = [row(hit_activations=100, bounced=500), row(sends=9_000, optout_activations=95)]
    low, high = compute_wilson(100, 9_500)
    told = f"hit 1.05% ({low:.1%} to {high:.1%}), optout 1.00%, bounce 5.00% of 10,000 sends"
    assert summarize_rates(rates, is_over=True) == told
    assert summarize_rates(rates, is_over=False) == f"{told}; the day is not over"
    assert summarize_rates([*rates, row(sends=0, status="open")], is_over=True) == f"{told}; provisional"
    assert summarize_rates([*rates, row(sends=0, status="incomplete")], is_over=True) == f"{told}; incomplete"
    assert summarize_rates([row(sends=None)], is_over=True) == "how many were sent is not known"
    assert summarize_rates([], is_over=True) == "nothing was sent"


def test_table_has_the_notifications_by_name_the_most_sent_first():
    rates = [
        row(activation_id=1, sends=50, hit_activations=5),
        row(activation_id=2, sends=800, hit_activations=80, bounced=400),
        row(activation_id=2, sends=200, hit_activations=30, optout_activations=6),
        row(activation_id=3, sends=None, hit_activations=2),
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
    assert write_notifications([row(status="open")], {}).endswith("**Provisional**: these rates still move.")


def test_long_name_leaves_room_for_the_numbers():
    name = "A campaign that somebody named with everything that it is about"
    assert f"| {name[:39]}… | 1,000 |" in write_notifications([row()], {1: name})


def test_long_table_says_what_it_leaves_out():
    table = write_notifications([row(activation_id=number, sends=number) for number in range(1, 31)], {})
    assert table.count("\n| notification") == 20
    assert table.endswith("and 10 more with fewer sends")


def test_lineage_names_columns_that_exist():
    lineage = build_column_lineage(Settings.from_environment({})).deps_by_column
    assert set(RATE_COLUMNS) - set(lineage) == {"window_days", "days_loaded", "status", "is_final"}
    for column, deps in lineage.items():
        assert column in RATE_COLUMNS
        for dep in deps:
            assert dep.column_name in list_columns(dep.asset_key.to_user_string())
