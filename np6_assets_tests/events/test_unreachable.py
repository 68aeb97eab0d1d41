"""Run against an address that does not answer."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from np6_assets_tests.support.deployment import Deployment, build_resource
from np6_assets_tests.support.events import Population
from np6_assets_tests.support.rude_server import RudeServer

LISTING = Population(notifications=[{"id": 156, "name": "Flash sale"}])


def count_attempts(deployment: Deployment) -> tuple[int, str]:
    """Return the number of attempts of a run's step, and the message of its failure."""
    result = deployment.materialize("notifications", raise_on_error=False)
    kinds = [event.event_type for event in result.all_events]
    [failed] = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    return 1 + kinds.count(dg.DagsterEventType.STEP_UP_FOR_RETRY), failed.step_failure_data.error.message


def test_step_is_retried_only_at_an_address_that_has_answered(tmp_path: Path, instance: dg.DagsterInstance):
    with RudeServer(LISTING) as server:
        known = Deployment(tmp_path / "known", server, instance)
        assert known.materialize("notifications").success
        new = Deployment(tmp_path / "new", server, instance)
        known.np6 = new.np6 = build_resource(server, max_retries=0, step_retry_delay=0.0)
    cause = f"dagster._core.definitions.events.Failure: connection refused by {server.url.removeprefix('http://')}; "
    for deployment, attempts in ((new, 1), (known, 3)):
        found, message = count_attempts(deployment)
        assert found == attempts
        assert message.startswith(cause)
