"""The report: its numbers against the oracle's, what it says of what is not known, and who can read it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab

from np6_assets.events.kinds import KINDS
from np6_assets.rates.columns import COLUMNS
from np6_assets_tests.report.made import make, rendered, report, sends
from np6_assets_tests.support.browser import chromium, in_a_browser
from np6_assets_tests.support.deployment import Deployment, days
from np6_assets_tests.support.events import population
from np6_assets_tests.support.html import Page
from np6_assets_tests.support.oracle import day_bounds, day_of, expected_rates, expected_rows, wilson
from np6_assets_tests.support.rude_server import RudeServer

FIRST, LAST = date(2026, 3, 28), date(2026, 3, 31)  # 2026-03-29 has 23 hours in Paris
ASSETS = [kind.asset for kind in KINDS]
D = date(2026, 3, 20)


# --- a whole deployment --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """A population, its events and rates as the oracle has them, and the report on it as a page and as text."""
    timezone, window = "Europe/Paris", 1
    made = population(40, FIRST, 3, timezone, window_days=window)
    folder = tmp_path_factory.mktemp("whole")
    with RudeServer(seed=2) as server, dg.DagsterInstance.ephemeral() as instance:
        server.serve(made)
        deployment = Deployment(
            folder / "data",
            server,
            instance,
            now=lambda: datetime(2026, 4, 20, 12, tzinfo=UTC),
            NP6_TIMEZONE=timezone,
            NP6_WINDOW_DAYS=str(window),
            NP6_CONTACT_DATA="keep",
        )
        deployment.materialize([*ASSETS, "notifications", "reactivity_rates", "reactivity_report"], FIRST, LAST)
        text = (deployment.data / "reactivity_report" / "report.html").read_text()
    feeds = {
        asset: {day: expected_rows(asset, made.feed(asset), *day_bounds(day, timezone)) for day in days(FIRST, LAST)}
        for asset in ASSETS
    }
    rows = [row for day in days(FIRST, LAST) for row in expected_rates(day, timezone, window, feeds)]
    return made, feeds, rows, Page(text), text


def percent(part: int, whole: int) -> list[str]:
    if not whole:
        return ["—"]
    low, high = wilson(part, whole)
    band = [] if low is None or high is None else [f"{low * 100:.1f} to {high * 100:.1f}%"]
    return [f"{part / whole:.2%}", *band]


def total(rows: list[Any], name: str) -> int:
    return sum(row[name] for row in rows)


def expected_cells(rows: list[Any]) -> list[list[str]]:
    def rate(part: str, whole: str) -> list[str]:
        known = [row for row in rows if row["status"] != "incomplete" and row[whole]]
        return percent(total(known, part), total(known, whole))

    return [
        [f"{total(rows, 'activations'):,}"],
        rate("hit_activations", "delivered"),
        rate("optout_activations", "delivered"),
        rate("bounced", "activations"),
    ]


def test_every_notification_and_day_has_the_rates_of_the_sums(whole: Any):
    made, _, rows, page, _ = whole
    by_id, by_day = defaultdict(list), defaultdict(list)
    for row in rows:
        by_id[row["activation_id"]].append(row)
        by_day[row["activation_date"]].append(row)
    names = {entry["id"]: entry.get("name") or f"notification {entry['id']}" for entry in made.notifications}
    found = {int(cells[0][-1]): cells for cells in page.tables["list"][1:]}
    assert found.keys() == by_id.keys()
    for key, cells in found.items():
        assert cells[0] == [names.get(key, f"notification {key}"), str(key)]
        assert cells[1:5] == expected_cells(by_id[key])
    for cells in page.tables["Rates by day of the send"][1:]:
        of_day = by_day[date.fromisoformat(cells[0][0])]
        assert cells[1:5] == expected_cells(of_day)
        assert cells[5] == ["● final" if all(row["status"] == "final" for row in of_day) else "○ provisional"]
    sent = [int(cells[1][0].replace(",", "")) for cells in page.tables["list"][1:]]
    assert sent == sorted(sent, reverse=True)


def test_bounces_are_counted_once_for_each_send_with_the_worst_verdict(whole: Any):
    _, _, rows, page, _ = whole
    found: Counter[str] = Counter()
    for _, [verdict], [count], *_ in page.tables["Bounced sends by verdict and reason"][1:]:
        found[verdict if verdict in ("hard", "soft") else "other"] += int(count)
    assert found == {name: total(rows, f"bounces_{name}") for name in ("hard", "soft", "other")}


def test_click_throughs_are_counted_by_the_hour_of_the_clock(whole: Any):
    _, feeds, rows, page, _ = whole
    hours: Counter[int] = Counter()
    for row in {row["event_id"]: row for day in feeds["hits"].values() for row in day}.values():
        sent_at = row["event_time"] if row["activated_at"] is None else row["activated_at"]
        late = day_of(row["event_time"], "Europe/Paris") - day_of(sent_at, "Europe/Paris")
        if (
            row["link_type"] == "redirection"
            and sent_at >= day_bounds(FIRST, "Europe/Paris")[0]
            and 0 <= late.days <= 1
        ):
            at = datetime.fromtimestamp(row["event_time"] / 1000, UTC).astimezone(ZoneInfo("Europe/Paris"))
            hours[at.hour] += 1
    found = [int(cells[1][0]) for cells in page.tables["Click-throughs by hour of the day"][1:]]
    assert found == [hours[hour] for hour in range(24)]
    assert sum(found) == total(rows, "hits") > 50


def test_no_receiver_is_in_the_report(whole: Any):
    _, feeds, _, _, text = whole
    personal = {
        row[column]
        for asset in ASSETS
        for day in feeds[asset].values()
        for row in day
        for column in ("receiver_id", "receiver_unicity", "receiver_hash", "subscription_id", "stamp_id")
        if row[column] and len(row[column]) > 5
    }
    assert len(personal) > 100
    assert not [value for value in personal if value in text]
    assert "@" not in re.sub(r"@(media|page)", "", text)


def test_the_page_needs_no_network_and_says_how_numbers_are_defined(whole: Any):
    _, _, _, page, text = whole
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", text)
    described = {cells[0][0]: cells[1][0] for cells in page.tables["The columns of "][1:]}
    assert described == {name: text.replace("`", "") for name, _, text, _ in COLUMNS}


# --- by hand -------------------------------------------------------------------------------------------------------


def test_what_is_provisional_or_not_known_is_told(tmp_path: Path):
    page = Page(
        report(
            tmp_path,
            [
                sends(D, 1, 1_000, hit_activations=100),
                sends(D + timedelta(days=1), 1, 500, hit_activations=10, status="open"),
                # its sends are not known, so its hits say nothing of a rate
                sends(D + timedelta(days=2), 1, None, hit_activations=700, status="open"),
                sends(D + timedelta(days=2), 2, None, hit_activations=5, status="open"),
                sends(D, 3, 3, hit_activations=1),
            ],
        )
    )
    found = {cells[0][-1]: cells for cells in page.tables["list"][1:]}
    assert found["1"][1:] == [["1,500"], percent(110, 1_500), percent(0, 1_500), percent(0, 1_500), found["1"][5]]
    assert found["1"][5] == ["○ 2 of 3 provisional"]
    assert found["2"][1:] == [["—"], ["—"], ["—"], ["—"], ["○ 1 of 1 provisional"]]
    assert found["3"][2] == ["33.33%", "6.1 to 79.2%"]
    assert found["3"][5] == ["● final"]
    assert "○ Provisional: 2026-03-21, 2026-03-22." in page.text
    assert "final days alone: 10.07%" in page.text


def test_what_is_incomplete_is_told_and_in_no_rate(tmp_path: Path):
    page = Page(
        report(
            tmp_path,
            [
                sends(D, 1, 1_000, hit_activations=100),
                sends(D, 2, 40, hit_activations=30, status="incomplete"),
                sends(D + timedelta(days=1), 1, 500, hit_activations=10, status="open"),
                # more reactions than sends are known of: no denominator, no part of a sum
                sends(D + timedelta(days=1), 1, 0, version="w", hit_activations=7, status="open"),
            ],
        )
    )
    found = {cells[0][-1]: cells for cells in page.tables["list"][1:]}
    assert found["1"][2] == percent(110, 1_500)
    assert found["1"][5] == ["○ 1 of 2 provisional"]
    assert found["2"][2:] == [["—"], ["—"], ["—"], ["◇ 1 of 1 incomplete"]]
    days = {cells[0][0]: cells for cells in page.tables["Rates by day of the send"][1:]}
    assert days[f"{D}"][2] == percent(100, 1_000)
    assert [cells[5] for cells in days.values()] == [["◇ incomplete"], ["○ provisional"]]
    assert f"◇ Incomplete: {D}." in page.text


def test_rates_from_before_there_was_a_status_are_reported(tmp_path: Path):
    make(tmp_path, [sends(D, 1, 1_000, hit_activations=100), sends(D + timedelta(days=1), 1, 500, status="open")], {})
    path = tmp_path / "reactivity_rates" / f"activation_date={D + timedelta(days=1)}" / "part-0.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns("status"), path)
    page = Page(rendered(tmp_path, [D, D + timedelta(days=1)]))
    assert [cells[5] for cells in page.tables["Rates by day of the send"][1:]] == [["● final"], ["○ provisional"]]


def test_versions_are_compared_on_final_days(tmp_path: Path):
    day = [
        sends(D, 1, 2_000, version="a", hit_activations=200),
        sends(D, 1, 1_000, version="b", hit_activations=150),
        sends(D, 2, 2_000, version="a", hit_activations=200),
        sends(D, 2, 1_000, version="b", hit_activations=101),
        # would turn the verdict round
        sends(D + timedelta(days=1), 1, 90_000, version="a", hit_activations=80_000, status="open"),
        sends(D + timedelta(days=1), 1, 90_000, version="b", hit_activations=1, status="open"),
    ]
    page = Page(report(tmp_path, day))
    rows = page.tables["Hit rates of versions, on the days and applications that both were sent on"][1:]
    assert [[cells[0][0], cells[1][:2], cells[2][:2], cells[3][0], cells[5]] for cells in rows] == [
        ["notification 1", ["15.00%", "b"], ["10.00%", "a"], "+5.00", ["better", "1 day with both"]],
        ["notification 2", ["10.10%", "b"], ["10.00%", "a"], "+0.10", ["no proof of a difference", "1 day with both"]],
    ]


NAMES = ("</td><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} & <b>", "&lt;kept&gt;")


def test_names_are_what_someone_typed(tmp_path: Path):
    rows = [sends(D, number, 10 - number, version=NAMES[0]) for number in range(4)]
    text = report(tmp_path, rows, names=dict(enumerate(NAMES)))
    assert [cells[0][0] for cells in Page(text).tables["list"][1:]] == list(NAMES)
    assert text.count("<script") == 1
    assert "<img" not in text


def test_the_report_is_on_the_newest_days(tmp_path: Path):
    rows = [sends(D + timedelta(days=day), 1, 10) for day in range(5)]
    page = Page(report(tmp_path, rows, cohorts=2))
    assert [cells[0][0] for cells in page.tables["Rates by day of the send"][1:]] == ["2026-03-23", "2026-03-24"]
    assert page.tables["list"][1][1] == ["20"]


def test_without_rates_the_last_report_stays(tmp_path: Path):
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


# --- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def tab_of(browser: Browser, width: int = 1280) -> Tab:
    """A tab on a screen of some width, a phone's if it is narrow."""
    return browser.new_page(viewport={"width": width, "height": 800}, is_mobile=width < 600)


@pytest.fixture(scope="module", params=[3, 500])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A report on some notifications: number n is called `Push n`, has 1000 + n sends and n hits; one is not sent."""
    folder = tmp_path_factory.mktemp("browser")
    count = request.param
    rows = [sends(D, number, 1_000 + number, hit_activations=number) for number in range(1, count)]
    rows += [sends(D, count, None), sends(D + timedelta(days=1), 1, 0, status="open")]
    names = {number: f"Push {number}" for number in range(1, count + 1)}
    names[1] = "Push 1 with an extraordinarilylongnameandnoplacetobreakitanywhereinsidethewholeofit <b>" * 2
    file = folder / "report.html"
    file.write_text(report(folder, rows, names=names))
    return file, count


SHOWN = """[...document.querySelectorAll("#list tbody tr")].filter(row => row.checkVisibility())
    .map(row => +row.cells[0].querySelector(".id").textContent)"""
SORTED = """[...document.querySelectorAll("#list th[aria-sort]")]
    .map(head => [head.textContent, head.getAttribute("aria-sort")])"""


@in_a_browser
def test_the_table_is_sorted_and_searched(browser: Browser, page: tuple[Path, int]):
    file, count = page
    requests, complaints = [], []
    with tab_of(browser) as tab:
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(file.as_uri())
        sent = list(range(count - 1, 0, -1))
        assert tab.evaluate(SHOWN) == [*sent, count]
        # with the keyboard alone
        tab.locator("#list th button").nth(2).focus()
        tab.keyboard.press("Enter")
        assert tab.evaluate(SORTED) == [["Hit rate", "descending"]]
        assert tab.evaluate(SHOWN) == [*sent, count]
        tab.keyboard.press("Enter")
        assert tab.evaluate(SORTED) == [["Hit rate", "ascending"]]
        assert tab.evaluate(SHOWN) == [*sent[::-1], count]  # what has no rate stays last
        tab.locator("#list th button").first.click()
        assert tab.evaluate(SHOWN) == sorted(range(1, count + 1))  # as numbers: 2 before 10
        tab.locator("#search").focus()
        tab.keyboard.insert_text("PUSH 2")
        expected = [number for number in range(1, count + 1) if str(number).startswith("2")]
        assert tab.evaluate(SHOWN) == expected
        assert tab.locator("#found").text_content() == f"{len(expected)} of {count} shown"
    assert requests[0] == file.as_uri()
    assert not [url for url in requests if not url.startswith("file:")]
    assert complaints == []


@in_a_browser
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_needs_scrolling_sideways(browser: Browser, page: tuple[Path, int], width: int):
    with tab_of(browser, width) as tab:
        tab.goto(page[0].as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        beyond = """[...document.querySelectorAll("td, th, button, p, svg")].filter(each => each.checkVisibility()
            && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 80))"""
        assert tab.evaluate(beyond) == []


@in_a_browser
@pytest.mark.parametrize("page", [3, pytest.param(500, marks=pytest.mark.slow)], indirect=True)
def test_it_prints_whole(browser: Browser, page: tuple[Path, int]):
    file, count = page
    with tab_of(browser) as tab:
        tab.goto(file.as_uri())
        printed = tab.pdf(prefer_css_page_size=True)
        pages = len(re.findall(rb"/Type\s*/Page\b", printed))
        assert pages >= 3 + count // 40
        assert tab.evaluate("document.querySelectorAll('details[open]').length") == 0
    # as wide as A4 less its margins, and as a table rather than as a phone has it
    with tab_of(browser, 687) as tab:
        tab.goto(file.as_uri())
        tab.emulate_media(media="print")
        shown = "[...document.querySelectorAll('{}')].filter(each => each.checkVisibility()).length"
        assert (tab.evaluate(shown.format(".wide")), tab.evaluate(shown.format(".narrow, nav, .tools"))) == (1, 0)
        assert tab.evaluate("document.documentElement.scrollWidth") == 687


@in_a_browser
@pytest.mark.parametrize("page", [3, pytest.param(500, marks=pytest.mark.slow)], indirect=True)
def test_a_screen_reader_finds_its_way(browser: Browser, page: tuple[Path, int]):
    for width in (390, 1280):
        with tab_of(browser, width) as tab:
            tab.goto(page[0].as_uri())
            # Playwright's own snapshot is not what Chromium tells a screen reader
            nodes = tab.context.new_cdp_session(tab).send("Accessibility.getFullAXTree")["nodes"]
            named = [
                (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]
            ]
            roles = Counter(role for role, _ in named)
            assert roles["main"] == roles["navigation"] == 1
            assert roles["columnheader"] >= 6
            assert roles["rowheader"] >= page[1]
            images = [name for role, name in named if role in ("img", "image")]
            assert images
            assert all(len(name) > 20 for name in images)
            assert ("searchbox", "Search by name or id") in named
            assert all(name for role, name in named if role in ("button", "link", "heading", "table", "region"))
