"""Use the UI in a browser: what is stored after clicks, and what the plots show."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from np6_assets_tests.deployed.conftest import RunningDeployment
from np6_assets_tests.support.browser import launch_chromium, needs_browser
from np6_assets_tests.support.dagster_processes import wait_until, wait_until_passes
from np6_assets_tests.support.events import build_event
from np6_assets_tests.support.oracle import compute_day_bounds

TIMEOUT_MS = 60_000

COLOURS = """canvas => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return new Set(new Uint32Array(pixels.buffer)).size;
}"""

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture
def page() -> Iterator[Page]:
    expect.set_options(timeout=TIMEOUT_MS)
    with launch_chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(TIMEOUT_MS)
        yield page


def publish(deployed: RunningDeployment, kind: str, at_ms: int) -> None:
    """Add an event to a feed."""
    fields = {"stamp_time": at_ms, "stamp_id": f"stamp {at_ms}"}
    deployed.population.feed(kind).append(build_event(kind, id=f"{kind} {at_ms}", timestamp=at_ms, **fields))
    deployed.server.serve(deployed.population)


def launch(page: Page, button: str, days: str) -> str:
    """Choose the days of a run or backfill in its dialog; return the message of the UI."""
    page.get_by_role("button", name=button).click()
    dialog = page.get_by_role("dialog")
    choice = dialog.locator("input[type=text]")
    choice.fill(days)
    choice.press("Enter")
    dialog.get_by_role("button", name=re.compile("^Launch")).click()
    message = page.get_by_text(re.compile(r"^(Launched run|Created backfill)"))
    return message.inner_text()


def test_ui_launches_runs_turns_on_the_sensor_and_plots_the_rates(deployed: RunningDeployment, page: Page):
    dagster = deployed.dagster
    day, other, *_ = deployed.days

    page.goto(f"{dagster.url}/assets/hits?view=lineage")
    expect(page.get_by_text("reactivity_rates")).to_be_visible()

    # new events on a day, on another one, and today
    publish(deployed, "hits", compute_day_bounds(day, "UTC")[0])
    publish(deployed, "optouts", compute_day_bounds(other, "UTC")[0])
    page.goto(f"{dagster.url}/assets/hits")
    assert launch(page, "Materialize…", f"{day}").startswith("Launched run")
    page.goto(f"{dagster.url}/asset-groups")
    assert launch(page, "Materialize all…", f"[{day}...{other}]").startswith("Created backfill")
    dagster.wait_for_runs(*(run.id for run in dagster.list_runs(dagster_partition=f"{day}")))
    deployed.assert_stored(["hits"], [day])

    publish(deployed, "hits", round(time.time() * 1000))
    before = dagster.list_runs(dagster_sensor_name="np6_refresh")
    page.goto(f"{dagster.url}/locations/np6_assets/sensors/np6_refresh")
    page.get_by_role("checkbox").dispatch_event("click")
    wait_until(lambda: len(dagster.list_runs(dagster_sensor_name="np6_refresh")) > len(before), "the sensor's run")
    page.reload()
    # yesterday and today in one run, the other open days in another
    expect(page.get_by_text("2 runs requested").first).to_be_visible()
    page.get_by_role("checkbox").dispatch_event("click")

    wait_until_passes(deployed.assert_complete)
    page.goto(f"{dagster.url}/assets/reactivity_rates")
    page.get_by_role("button", name="Plots").click()
    for rate in ("hit_rate", "optout_rate", "bounce_rate"):
        plot = page.locator("div", has=page.get_by_text(rate, exact=True)).locator("canvas").last
        expect(plot).to_be_visible()
        assert plot.evaluate(COLOURS) > 10
