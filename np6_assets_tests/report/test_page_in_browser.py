"""Open the report in a browser: on narrow and wide screens, dark, printed, by keyboard and screen reader."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab

from np6_assets_tests.report.rendering import TODAY, build_row, render_report, write_events, write_rates
from np6_assets_tests.support.browser import launch_chromium, needs_browser

pytestmark = [needs_browser, pytest.mark.slow]

YESTERDAY = TODAY - timedelta(days=1)
LONG = "Push 1 with an extraordinarilylongnameandnoplacetobreakitanywhereinsidethewholeofit <b>" * 2
UUID = "aaaaaaaa-0000-4000-8000-{:012}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_chromium() as running:
        yield running


@pytest.fixture(scope="module", params=[3, 500])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A report of 43 days, and its number of notifications.

    Notification n has 1000 + n sends of two versions and n hits. The first is sent daily; the last is not sent.
    """
    folder = tmp_path_factory.mktemp("browser")
    count = request.param
    rows = [
        build_row(
            YESTERDAY - timedelta(days=42),
            number,
            500 + number * at,
            version=UUID.format(at),
            hit_activations=number * at,
        )
        for number in range(1, count)
        for at in (0, 1)
    ]
    rows += [build_row(YESTERDAY, number, 500, status="open", bounced=5) for number in range(1, count)]
    rows += [build_row(YESTERDAY, count, 0, status="open")]
    if count > 20:  # more than is printed of versions, of applications and of days that are no stretch
        rows += [
            build_row(YESTERDAY - timedelta(days=2 * at + 16), 1, 9, version=UUID.format(at), application=f"app {at}")
            for at in range(13)
        ]
        day = YESTERDAY - timedelta(days=20)
        rows += [build_row(day, count - 1 - at, 1, version=f"v{of}") for at in range(9) for of in range(9)]
    daily = [
        build_row(YESTERDAY - timedelta(days=ago), 1, 40, status="open", hit_activations=8, version=UUID.format(2))
        for ago in range(14)
    ]
    write_rates(folder, [*rows, *daily], {1: LONG, **{number: f"Push {number}" for number in range(2, count + 1)}})
    write_events(folder, daily)
    file = folder / "report.html"
    file.write_text(render_report(folder))
    return file, count


@contextmanager
def open_report(browser: Browser, file: Path, width: int = 1400, **options: str) -> Iterator[Tab]:
    """Open the report in a tab, and assert that it makes no requests and logs no errors."""
    requests, messages = [], []
    with browser.new_page(viewport={"width": width, "height": 800}, is_mobile=width < 600, **options) as tab:
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.goto(file.as_uri())
        yield tab
    assert requests == [file.as_uri()]
    assert messages == []


SHOWN = """[...document.querySelectorAll("#list tbody tr")].filter(row => row.checkVisibility())
    .map(row => +row.cells[0].querySelector(".id").textContent)"""
SORTED = """[...document.querySelectorAll("#list th[aria-sort]")]
    .map(head => [head.textContent, head.getAttribute("aria-sort")])"""


def test_table_can_be_sorted_searched_and_expanded(browser: Browser, page: tuple[Path, int]):
    file, count = page
    with open_report(browser, file) as tab:
        sent = [1, *range(count - 1, 1, -1), count]
        assert tab.evaluate(SHOWN) == sent[:20]
        if count > 20:
            tab.locator("#all").click()
        assert tab.evaluate(SHOWN) == sent
        # with the keyboard alone
        tab.locator("#list th button").nth(2).focus()
        tab.keyboard.press("Enter")
        assert tab.evaluate(SORTED) == [["Hit rate", "descending"]]
        assert tab.evaluate(SHOWN)[-1] == count  # what has no rate stays last
        tab.keyboard.press("Enter")
        assert tab.evaluate(SORTED) == [["Hit rate", "ascending"]]
        assert tab.evaluate(SHOWN)[-1] == count
        tab.locator("#list th button").first.click()
        assert tab.evaluate(SHOWN) == sorted(range(1, count + 1))  # as numbers: 2 before 10
        tab.locator("#search").focus()
        tab.keyboard.insert_text("PUSH 2")
        expected = [number for number in range(1, count + 1) if str(number).startswith("2")]
        assert tab.evaluate(SHOWN) == expected
        assert tab.locator("#found").text_content() == f"{len(expected)} of {count} shown"


def test_page_does_not_scroll_sideways(browser: Browser, page: tuple[Path, int]):
    for width in (320, 390, 768, 1400):
        with open_report(browser, page[0], width) as tab:
            tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            if page[1] > 20:
                tab.locator("#all").click()
            assert tab.evaluate("document.documentElement.scrollWidth") == width
            beyond = """[...document.querySelectorAll("td, th, button, p, svg, .c, li, dd")].filter(each =>
            each.checkVisibility() && each.getBoundingClientRect().right > innerWidth + 1)
            .map(each => each.outerHTML.slice(0, 80))"""
            assert tab.evaluate(beyond) == []


def test_values_are_shown_on_hover_and_focus(browser: Browser, page: tuple[Path, int]):
    with open_report(browser, page[0]) as tab:
        tip = tab.locator("#tip")
        assert not tip.is_visible()
        # the chart: the newest day, then the one before; of the 14 days 8 of 40 were clicked on each
        tab.locator("#panels").focus()
        assert tip.text_content().startswith("Tue 31 Mar\nSends: ")
        tab.keyboard.press("ArrowLeft")
        text = "Mon 30 Mar\nSends: 40\nHit rate: 20.00% (10.5 to 34.8%)\nOptout rate: 0.00%"
        assert tip.text_content().startswith(text)
        assert tab.locator("#panels").get_attribute("aria-valuetext").startswith(text.replace("\n", ", "))
        tab.keyboard.press("Escape")
        assert not tip.is_visible()
        # the heat map: sent at 9 in UTC, which was 10 o'clock in Paris until Sunday, and 11 from then on
        cell = tab.locator(".c:not(.none)").first
        cell.hover()
        assert tip.text_content().startswith("Mon 10:00 to 10:59: 20.00%: 8 of 40")
        cell.focus()
        tab.keyboard.press("ArrowRight")
        assert tip.text_content().startswith("Mon 11:00 to 11:59: 20.00%: 8 of 40")
        tab.keyboard.press("ArrowDown")
        assert tip.text_content().startswith("Tue 11:00 to 11:59: ")
        # a small chart: the week to yesterday has all sends of the first notification but the oldest
        spark = tab.locator(".spark").first
        spark.focus()
        assert tip.text_content().startswith("Week to 2026-03-31: ")
        tab.keyboard.press("ArrowLeft")
        assert tip.text_content() == "Week to 2026-03-24: 20.00%, 56 of 280"
        bar = tab.locator(".bars span").nth(10)
        bar.hover()
        assert re.match(r"10:00 to 10:59: \d+ click-throughs", tip.text_content())


def test_page_follows_the_color_scheme(browser: Browser, page: tuple[Path, int]):
    # WCAG 2's contrast of each text with what is behind it
    contrast = """() => {
        const light = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number)
            .map(c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
            .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
        const behind = each => {
            const color = getComputedStyle(each).backgroundColor;
            return color === "rgba(0, 0, 0, 0)" && each.parentElement ? behind(each.parentElement) : color;
        };
        const found = [...document.querySelectorAll("h1, h2, p, dd, td, th, .c b, .x span, .y, .ci, .id, a, label")]
            .filter(each => each.checkVisibility() && each.textContent.trim())
            .map(each => {
                const pair = [light(getComputedStyle(each).color), light(behind(each))].sort((a, b) => b - a);
                return [(pair[0] + .05) / (pair[1] + .05), each.className + " " + each.textContent.slice(0, 30)];
            });
        return [light(behind(document.body)), found.sort((a, b) => a[0] - b[0])[0]];
    }"""
    shades = """[...document.querySelectorAll('.c.none')].slice(0, 6).forEach((each, at) => {
        each.className = "c s" + at; each.innerHTML = "<b>1.0</b>"; })"""
    for scheme in ("light", "dark"):
        with open_report(browser, page[0], color_scheme=scheme) as tab:
            tab.evaluate(shades)
            background, [least, where] = tab.evaluate(contrast)
            assert (background < 0.1) == (scheme == "dark")
            assert least >= 4.5, where


def test_page_prints_on_three_sheets(browser: Browser, page: tuple[Path, int]):
    file, count = page
    for scheme in ("light", "dark"):
        with open_report(browser, file, color_scheme=scheme) as tab:
            pdf = tab.pdf(prefer_css_page_size=True)
            assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 3
            tab.emulate_media(media="print")
            assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert tab.evaluate(SHOWN) == [1, *range(count - 1, 1, -1), count][:20]
    # as wide as A4 less its margins
    with open_report(browser, file, 703) as tab:
        tab.emulate_media(media="print")
        shown = "[...document.querySelectorAll('{}')].filter(each => each.checkVisibility()).length"
        assert tab.evaluate(shown.format("nav, .tools, details, #tip")) == 0
        assert tab.evaluate("document.documentElement.scrollWidth") == 703


def test_page_has_roles_and_names_for_screen_readers(browser: Browser, page: tuple[Path, int]):
    for width in (390, 1400):
        with open_report(browser, page[0], width) as tab:
            # Playwright's own snapshot is not what Chromium tells a screen reader
            nodes = tab.context.new_cdp_session(tab).send("Accessibility.getFullAXTree")["nodes"]
            named = [
                (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]
            ]
            roles = Counter(role for role, _ in named)
            assert roles["main"] == roles["navigation"] == roles["slider"] == roles["grid"] == 1
            assert roles["columnheader"] >= 6
            assert roles["rowheader"] >= min(page[1], 20)
            images = [name for role, name in named if role in ("img", "image")]
            assert images
            assert all(len(name) > 15 for name in images)
            assert ("searchbox", "Search by name or id") in named
            spoken = ("button", "link", "heading", "table", "region", "grid", "gridcell", "slider", "radio")
            assert not [role for role, name in named if role in spoken and not name]
