"""Test what the charts draw, and how numbers, days and ids are formatted."""

from datetime import date, timedelta

import pytest

from np6_assets.rates.columns import Status
from np6_assets.rates.measures import HIT, Cohort, Share
from np6_assets.rates.panel import build_axis, build_panel, build_sparkline, choose_ticks
from np6_assets.report.formatting import format_estimate, format_range, format_ranges, is_few, shorten_ids
from np6_assets.report.page import choose_shade

D = date(2026, 3, 20)


def build_day(ago: int, share: Share, status: Status = "final") -> Cohort:
    """Build a day of the chart, `ago` days before D."""
    return Cohort(D - timedelta(days=ago), {HIT.column: share}, status)


def test_panel_breaks_lines_at_days_without_a_rate():
    rate = Share(100, 1_000)
    days = [build_day(ago, share) for ago, share in ((5, rate), (4, rate), (3, Share(0, 0)), (1, rate))]
    days.append(build_day(0, rate, "open"))
    axis = build_axis([one.day for one in days], D - timedelta(days=5), D)
    assert axis.places == [8.33, 25.0, 41.67, 75.0, 91.67]
    panel = build_panel(HIT, days, axis.places)
    # a tenth of 15 % from the top is a third of the height
    assert [text for text, _ in panel.ticks] == ["0%", "5%", "10%", "15%"]
    assert panel.full == "M83.3 33.3L250 33.3"
    assert panel.dashed == "M750 33.3L916.7 33.3"
    final = "M83.3 33.3h0M250 33.3h0M750 33.3h0"
    assert panel.dots == {"final": final, "open": "M916.7 33.3h0", "incomplete": ""}
    assert panel.band.count("M") == panel.band.count("Z") == 2
    assert panel.heights == [66.7, 66.7, None, 66.7, 66.7]


def test_panel_shows_the_interval_of_a_single_day():
    panel = build_panel(HIT, [build_day(0, Share(100, 1_000))], [50.0])
    corners = [tuple(map(float, corner.split())) for corner in panel.band.strip("MZ").split("L")]
    assert sorted({x for x, _ in corners}) == [497, 503]
    assert len({y for _, y in corners}) == 2


def test_ticks_are_round():
    for highest, ticks in (
        (0.12, [0, 0.05, 0.1, 0.15]),
        (0.03, [0, 0.01, 0.02, 0.03]),
        (0.9, [0, 0.5, 1.0]),
        (0.001, [0, 0.0005, 0.001]),
    ):
        assert choose_ticks(highest) == pytest.approx(ticks)


def test_sparkline_begins_at_zero():
    # half of the highest is half as high: from 18 at the bottom to 2 at the top
    assert build_sparkline([Share(10, 100), Share(5, 100), Share(0, 0), Share(0, 100)]) == (
        "M14 2L38 10M86 18h0",
        "M86 18h0",
    )
    assert build_sparkline([Share(0, 0)]) == ("", "")


def test_shades_of_similar_rates_are_similar():
    noise = [0.97, 1.0, 1.03]
    assert {choose_shade(value, noise, 1.0) for value in noise} <= {2, 3}
    wide = [0.2, 1.0, 2.0]
    assert [choose_shade(value, wide, 1.0) for value in wide] == [0, 2, 5]


def test_numbers_days_and_ids_are_formatted():
    estimates = {0.4: "0", 7.6: "8", 134: "130", -1_251: "1,300", 98_700: "99,000"}
    assert {number: format_estimate(number) for number in estimates} == estimates
    days = [D, D + timedelta(days=1), D + timedelta(days=5), D + timedelta(days=20), D + timedelta(days=21)]
    assert format_ranges(days) == "20 to 21 Mar, 25 Mar, 9 to 10 Apr"
    assert format_range(date(2026, 3, 30), date(2026, 4, 2)) == "30 Mar to 2 Apr"
    ids = ["aaaaaaaa-1111", "aaaaaaaa-2222", "bbbbbbbb-1111", "short"]
    assert shorten_ids(ids) == {
        "aaaaaaaa-1111": "aaaaaaaa-1",
        "aaaaaaaa-2222": "aaaaaaaa-2",
        "bbbbbbbb-1111": "bbbbbbbb-1",
        "short": "short",
    }
    # as wide as itself, and wider; and a rate of 0 that is sure
    few = {Share(20, 200): False, Share(5, 50): True, Share(0, 5_000): False}
    assert {share: is_few(share) for share in few} == few
