"""Use a webserver and a daemon through GraphQL, as the UI does, and compare what is stored."""

from __future__ import annotations

import os
import signal
from datetime import date

import pytest

from np6_assets_tests.deployed.conftest import CAP, WINDOW, RunningDeployment
from np6_assets_tests.support.dagster_processes import Run, wait_until, wait_until_passes
from np6_assets_tests.support.deployment import list_days as days_between
from np6_assets_tests.support.events import KINDS

pytestmark = pytest.mark.slow

HITS = "/notifications/reactivities/hits"
OPTOUTS = "/notifications/reactivities/optouts"
IMPRESSIONS = "/notifications/reactivities/impressions"


def test_runs_share_the_cap_on_requests(deployed: RunningDeployment):
    dagster, server = deployed.dagster, deployed.server
    server.script_always(HITS, "stall before")
    # All are queued when the daemon starts, which is when Dagster does not know the pool yet.
    dagster.stop("daemon")
    runs = [dagster.launch(["hits"], *deployed.days[at : at + CAP]) for at in (0, CAP, 2 * CAP)]
    dagster.start_daemon()
    wait_until(lambda: len(server.list_requests(HITS)) == CAP, "the first run's requests")
    # Rates need no request: their run, launched last, does not wait for the two others.
    rates = dagster.launch(["reactivity_rates"], deployed.days[-1])
    assert [run.status for run in dagster.wait_for_runs(rates)] == ["SUCCESS"]
    server.reset_faults()
    server.release()
    assert {run.status for run in dagster.wait_for_runs(*runs)} == {"SUCCESS"}
    assert server.peak_in_flight == CAP
    deployed.assert_stored(["hits"], deployed.days[: 3 * CAP])


def test_daemon_retries_a_killed_run_but_not_a_refused_one(deployed: RunningDeployment):
    dagster, server = deployed.dagster, deployed.server
    days = deployed.days[3:6]
    server.script_always(OPTOUTS, "401")
    before = len(server.list_requests(OPTOUTS))
    refused = dagster.launch(["optouts"], days[0])
    assert [run.status for run in dagster.wait_for_runs(refused)] == ["FAILURE"]

    # days that are not stored have one request each
    server.script(IMPRESSIONS, None, None, "stall in body")
    killed = dagster.launch(["impressions"], days[0], days[2])
    wait_until(lambda: len(server.list_requests(IMPRESSIONS)) == 3, "the request that stalls")
    os.kill(dagster.find_process(killed), signal.SIGKILL)
    retries = wait_until(lambda: dagster.list_retries(killed), "the retry")
    assert [run.status for run in dagster.wait_for_runs(*retries)] == ["SUCCESS"]
    deployed.assert_stored(["impressions"], days)

    # The daemon has seen the refused run before.
    assert dagster.list_retries(refused) == []
    assert len(server.list_requests(OPTOUTS)) == before + 1


def test_pool_is_released_after_a_killed_command(deployed: RunningDeployment):
    dagster, server = deployed.dagster, deployed.server
    server.script_always(HITS, "stall before")
    before = len(server.list_requests(HITS))
    command = dagster.start_command("asset", "materialize", "--select", "hits", "--partition", f"{deployed.days[0]}")
    wait_until(lambda: len(server.list_requests(HITS)) > before, "the request of the command line")
    [killed] = [run for run in dagster.list_runs() if run.status == "STARTED"]
    waiting = dagster.launch(["optouts"], deployed.days[0])
    command.kill()
    command.wait(10)
    server.reset_faults()
    server.release()
    assert [run.status for run in dagster.wait_for_runs(killed.id, waiting)] == ["FAILURE", "SUCCESS"]
    assert any("The process of this run is gone" in message for message in dagster.list_messages(killed.id))
    deployed.assert_stored(["optouts"], deployed.days[:1])


def test_sensors_complete_the_days_of_a_backfill(deployed: RunningDeployment):
    dagster = deployed.dagster
    *days, today = deployed.days
    dagster.stop("daemon")
    before = {run.id for run in dagster.list_runs()}
    backfill = dagster.launch_backfill([*KINDS, "reactivity_rates"], days)
    dagster.set_sensor("np6_refresh", on=True)
    dagster.start_daemon()
    wait_until_passes(deployed.assert_complete)
    dagster.set_sensor("np6_refresh", on=False)
    assert [run.status for run in dagster.list_runs(dagster_backfill=backfill)] == ["SUCCESS"]
    # only today is left for np6_refresh
    assert [run.tags["dagster/partition"] for run in dagster.list_runs(dagster_sensor_name="np6_refresh")] == [
        f"{today}"
    ]
    # rates_follow requests only cohorts with events of today; the daemon's end may have killed an earlier run
    followed = [
        run for run in dagster.list_runs(dagster_sensor_name="rates_follow") if not {run.id, run.parent} & before
    ]
    assert {day for run in followed for day in list_run_days(run)} <= set(deployed.days[-WINDOW - 1 :])


def list_run_days(run: Run) -> list[date]:
    """Return the days of a run."""
    tag = "dagster/asset_partition_range_"
    first, last = (run.tags.get(f"{tag}{end}", run.tags.get("dagster/partition", "")) for end in ("start", "end"))
    return days_between(date.fromisoformat(first), date.fromisoformat(last))
