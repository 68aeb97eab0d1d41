"""A webserver and a daemon that are told through GraphQL what to do, as by the UI, and what is on disk in the end."""

from __future__ import annotations

import os
import signal
from datetime import date

import pytest

from np6_assets_tests.deployed.conftest import CAP, WINDOW, Deployed
from np6_assets_tests.support.dagster_processes import Run, wait_until, wait_until_passes
from np6_assets_tests.support.deployment import list_days as days_between
from np6_assets_tests.support.events import KINDS

pytestmark = pytest.mark.slow

HITS = "/notifications/reactivities/hits"
OPTOUTS = "/notifications/reactivities/optouts"
IMPRESSIONS = "/notifications/reactivities/impressions"


def test_concurrent_runs_share_the_cap_on_requests(deployed: Deployed):
    dagster, server = deployed.dagster, deployed.server
    server.script_always(HITS, "stall before")
    # All of them are in the queue when the daemon first looks at it, which is when Dagster does not know the pool yet.
    dagster.stop("daemon")
    runs = [dagster.launch(["hits"], *deployed.days[at : at + CAP]) for at in (0, CAP, 2 * CAP)]
    dagster.start_daemon()
    wait_until(lambda: len(server.list_requests(HITS)) == CAP, "the first run's requests")
    # Rates ask the API for nothing: their run, which was launched last, overtakes the two that wait.
    rates = dagster.launch(["reactivity_rates"], deployed.days[-1])
    assert [run.status for run in dagster.finished(rates)] == ["SUCCESS"]
    server.behave()
    server.release()
    assert {run.status for run in dagster.finished(*runs)} == {"SUCCESS"}
    assert server.peak_in_flight == CAP
    deployed.assert_stored(["hits"], deployed.days[: 3 * CAP])


def test_killed_run_is_restarted_and_a_refused_one_is_not(deployed: Deployed):
    dagster, server = deployed.dagster, deployed.server
    days = deployed.days[3:6]
    server.script_always(OPTOUTS, "401")
    before = len(server.list_requests(OPTOUTS))
    refused = dagster.launch(["optouts"], days[0])
    assert [run.status for run in dagster.finished(refused)] == ["FAILURE"]

    # days that are not stored: each has a request of its own
    server.script(IMPRESSIONS, None, None, "stall in body")
    killed = dagster.launch(["impressions"], days[0], days[2])
    wait_until(lambda: len(server.list_requests(IMPRESSIONS)) == 3, "the request that stalls")
    os.kill(dagster.process_of(killed), signal.SIGKILL)
    again = wait_until(lambda: dagster.retries(killed), "the run to be started again")
    assert [run.status for run in dagster.finished(*again)] == ["SUCCESS"]
    deployed.assert_stored(["impressions"], days)

    # What looks for runs to be started again has passed the failure before.
    assert dagster.retries(refused) == []
    assert len(server.list_requests(OPTOUTS)) == before + 1


def test_killed_run_of_the_command_line_holds_the_pool_for_minutes_alone(deployed: Deployed):
    dagster, server = deployed.dagster, deployed.server
    server.script_always(HITS, "stall before")
    before = len(server.list_requests(HITS))
    command = dagster.command_line("asset", "materialize", "--select", "hits", "--partition", f"{deployed.days[0]}")
    wait_until(lambda: len(server.list_requests(HITS)) > before, "the request of the command line")
    [killed] = [run for run in dagster.runs() if run.status == "STARTED"]
    waits = dagster.launch(["optouts"], deployed.days[0])
    command.kill()
    command.wait(10)
    server.behave()
    server.release()
    assert [run.status for run in dagster.finished(killed.id, waits)] == ["FAILURE", "SUCCESS"]
    assert any("The process of this run is gone" in message for message in dagster.messages(killed.id))
    deployed.assert_stored(["optouts"], deployed.days[:1])


def test_backfill_is_one_run_and_the_sensors_do_the_rest(deployed: Deployed):
    dagster = deployed.dagster
    *days, today = deployed.days
    dagster.stop("daemon")
    before = {run.id for run in dagster.runs()}
    backfill = dagster.backfill([*KINDS, "reactivity_rates"], days)
    dagster.turn("np6_refresh", on=True)
    dagster.start_daemon()
    wait_until_passes(deployed.assert_complete)
    dagster.turn("np6_refresh", on=False)
    assert [run.status for run in dagster.runs(dagster_backfill=backfill)] == ["SUCCESS"]
    # the sensor's own share
    assert [run.tags["dagster/partition"] for run in dagster.runs(dagster_sensor_name="np6_refresh")] == [f"{today}"]
    # of the rates as well: no cohort that the backfill computed, but for those that today's events count for
    followed = [run for run in dagster.runs(dagster_sensor_name="rates_follow") if run.id not in before]
    assert {day for run in followed for day in partitions_of(run)} <= set(deployed.days[-WINDOW - 1 :])


def partitions_of(run: Run) -> list[date]:
    """The days that a run is for."""
    tag = "dagster/asset_partition_range_"
    first, last = (run.tags.get(f"{tag}{end}", run.tags.get("dagster/partition", "")) for end in ("start", "end"))
    return days_between(date.fromisoformat(first), date.fromisoformat(last))
