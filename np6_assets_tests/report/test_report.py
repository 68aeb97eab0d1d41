"""Test the report's statuses, its days, and names with markup."""

import re
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq

from np6_assets_tests.report.rendering import TODAY, build_row, format_rate, read_report, write_rates, write_report
from np6_assets_tests.support.deployment import Deployment
from np6_assets_tests.support.html import Page
from np6_assets_tests.support.rude_server import RudeServer

D = date(2026, 3, 20)


def test_report_marks_provisional_incomplete_and_missing_days(tmp_path: Path):
    source = write_report(
        tmp_path,
        [
            build_row(D - timedelta(days=1), 9, None, hit_activations=5, status="open"),
            build_row(D, 1, 1_000, hit_activations=100),
            build_row(D, 2, 40, hit_activations=30, status="incomplete"),
            build_row(D, 3, 3, hit_activations=1),
            build_row(D + timedelta(days=1), 1, 500, hit_activations=10, status="open"),
            # more reactions than sends are known of: no denominator, no part of a sum
            build_row(D + timedelta(days=1), 1, 0, version="w", hit_activations=7, status="open"),
            # its sends are not known, so its hits say nothing of a rate; and of the day after there is no file
            build_row(D + timedelta(days=2), 1, None, hit_activations=700, status="open"),
            build_row(D + timedelta(days=4), 1, 20, status="open"),
        ],
    )
    page = Page(source)
    found = {cells[0][-1]: cells for cells in page.tables["list"][1:]}
    assert found["1"][1] == ["1,520"]
    assert found["1"][2] == format_rate(110, 1_520)
    assert found["1"][-1] == ["○ 2 of 3", "provisional"]
    assert found["2"][2:] == [["—"], ["—"], ["—"], ["—"], ["◇ 1 of 1", "incomplete"]]
    assert found["3"][2] == ["33.33%", "6.1 to 79.2%"]
    assert found["3"][-1] == ["● final"]
    assert "9" not in found
    days = {cells[0][0]: cells for cells in page.tables["days"][1:]}
    assert days[f"{D}"][2] == format_rate(101, 1_003)
    assert [cells[-1] for cells in days.values()] == [["◇ incomplete"], ["○ provisional"], ["○ provisional"]]
    text = " ".join(page.text.split())
    assert "○ Provisional: 21 Mar, 24 Mar." in text
    assert "◇ Incomplete: 20 Mar." in text
    assert "\N{MULTIPLICATION SIGN} Never loaded: 19 Mar, 22 to 23 Mar." in text
    assert "final days alone: 10.07%" in text
    assert "Look first at the data: of the last two weeks, 3 days never loaded" in text
    # of too few sends
    grey = re.compile(r'class="n few" data-label="Hit rate"[^>]*: ([^,"]+)')
    assert "1 of 3" in grey.findall(source)
    assert "110 of 1" not in grey.findall(source)


def test_report_has_the_newest_days_without_today_unless_it_is_the_only_one(tmp_path: Path):
    rows = [build_row(TODAY - timedelta(days=ago), 1, 10 * ago or 500, status="open") for ago in range(5)]
    write_rates(tmp_path / "all", rows, {})
    report = read_report(tmp_path / "all", cohorts=2)
    assert [day.key for day in report.days] == [TODAY - timedelta(days=2), TODAY - timedelta(days=1)]
    assert report.total.sends == 30
    write_rates(tmp_path / "today", rows[:1], {})
    assert read_report(tmp_path / "today").total.sends == 500


def test_report_has_a_dash_for_an_application_without_impressions(tmp_path: Path):
    silent = build_row(D, 1, 1_000, application="silent", impression_activations=0)
    reporting = build_row(D, 1, 400, application="reporting", impression_activations=300)
    page = Page(write_report(tmp_path, [silent, reporting]))
    found = {cells[0][0]: cells[5][0] for cells in page.tables["Rates by application"][1:]}
    assert found == {"silent": "—", "reporting": "75.00%"}
    assert page.tables["list"][1][6] == ["75.00%"]


def test_report_reads_rates_without_a_status(tmp_path: Path):
    write_rates(
        tmp_path,
        [build_row(D, 1, 1_000, hit_activations=100), build_row(D + timedelta(days=1), 1, 500, status="open")],
        {},
    )
    path = tmp_path / "reactivity_rates" / f"activation_date={D + timedelta(days=1)}" / "part-0.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns("status"), path)
    assert [day.status for day in read_report(tmp_path).days] == ["final", "open"]


def test_report_names_a_version_only_if_it_wins(tmp_path: Path):
    a, b = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000001"
    day = [
        build_row(D, 1, 2_000, version=a, hit_activations=200),
        build_row(D, 1, 1_000, version=b, hit_activations=150),
        build_row(D, 2, 2_000, version=a, hit_activations=200),
        build_row(D, 2, 1_000, version=b, hit_activations=101),
        build_row(D, 3, 20, version=a, hit_activations=2),
        build_row(D, 3, 10, version=b, hit_activations=3),
        build_row(D, 4, 10, version=a),
        build_row(D + timedelta(days=1), 4, 10, version=b),
        # would turn the verdict round
        build_row(D + timedelta(days=1), 1, 90_000, version=a, hit_activations=80_000, status="open"),
        build_row(D + timedelta(days=1), 1, 90_000, version=b, hit_activations=1, status="open"),
    ]
    page = Page(write_report(tmp_path, day))
    rows = page.tables["Winners among the versions of each notification"][1:]
    # 5 points of the 2,000 sends of a, with the ends of the interval of the difference
    assert [[cells[0][0], " ".join(cells[2])] for cells in rows] == [
        [
            "notification 1",
            "bbbbbbbb wins : about 100 more clicks (49 to 150) on 2 days if it had been sent in place of aaaaaaaa.",
        ],
        ["notification 2", "No winner: the differences are no larger than chance explains."],
        ["notification 3", "Too few clicks to tell."],
        ["notification 4", "Never sent on the same day, so not comparable."],
    ]
    statistics = page.tables["Each two versions, on the days and applications that both were sent on"][1:]
    assert [cells[3][0] for cells in statistics][:2] == ["+5.00", "+0.10"]
    assert statistics[0][1][:2] == ["15.00%", b]
    assert "Look first at the versions of “notification 1”: the better one would have brought about 100" in page.text
    assert "Impression" not in page.text


NAMES = ("</td><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} & <b>", "&lt;kept&gt;")


def test_report_escapes_names(tmp_path: Path):
    rows = [build_row(D, number, 10 - number, version=NAMES[0], application=NAMES[1]) for number in range(4)]
    rows.append(build_row(D, 0, 10, version=NAMES[1]))
    text = write_report(tmp_path, rows, names=dict(enumerate(NAMES)))
    assert [cells[0][0] for cells in Page(text).tables["list"][1:]] == list(NAMES)
    assert text.count("<script") == 1
    assert "<img" not in text


def test_report_stays_if_there_are_no_rates(tmp_path: Path):
    with RudeServer() as server, dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(tmp_path, server, instance)
        deployment.materialize("notifications")
        (tmp_path / "reactivity_report").mkdir()
        (tmp_path / "reactivity_report" / "report.html").write_text("the last one")
        result = deployment.materialize("reactivity_report", raise_on_error=False)
    assert not result.success
    [failure] = result.get_step_failure_events()
    assert "reactivity_rates has no rows; materialize it for some days first" in str(failure.step_failure_data.error)
    assert [path.name for path in (tmp_path / "reactivity_report").iterdir()] == ["report.html"]
    assert (tmp_path / "reactivity_report" / "report.html").read_text() == "the last one"
