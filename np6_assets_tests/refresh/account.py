"""Publish the events of an account as time goes by, tick the sensors over it, and do the runs that they request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
)

from np6_assets_tests.support.clock import Clock
from np6_assets_tests.support.deployment import Deployment, list_days
from np6_assets_tests.support.events import KINDS, Population
from np6_assets_tests.support.rude_server import Request, RudeServer


def turn_on(instance: dg.DagsterInstance, name: str) -> None:
    """Turn on a schedule or sensor, as the UI does."""
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("np6"), "__repository__").get_instigator_origin(name)
    kind, data = InstigatorType.SCHEDULE, ScheduleInstigatorData("30 3 * * *", 0.0)
    if name == "np6_refresh":
        kind, data = InstigatorType.SENSOR, SensorInstigatorData()
    instance.add_instigator_state(InstigatorState(origin, kind, InstigatorStatus.RUNNING, data))


def find_run_days(request: dg.RunRequest) -> tuple[str, str]:
    """Return first and last day of a requested run."""
    first, last = (request.tags.get(f"dagster/asset_partition_range_{end}", "") for end in ("start", "end"))
    return first or request.partition_key or "", last or request.partition_key or ""


def evaluate_sensor(deployment: Deployment, name: str, cursor: str | None) -> dg.SensorResult:
    """Tick a sensor."""
    definitions = deployment.definitions
    resources = {**(definitions.resources or {}), "np6": deployment.np6}
    with dg.build_sensor_context(
        instance=deployment.instance, cursor=cursor, definitions=definitions, resources=resources
    ) as context:
        return definitions.resolve_sensor_def(name).evaluate_tick(context)


@dataclass
class Tick:
    """The result of a tick of `np6_refresh`."""

    runs: list[dg.RunRequest]
    message: str
    requests: list[Request]

    @property
    def days(self) -> list[tuple[str, str]]:
        """Return first and last day of each requested run."""
        return list(map(find_run_days, self.runs))


@dataclass
class Account:
    """A deployment over a server that serves the events that are published by now.

    `late` is the time from an event to its publication, by id.
    """

    server: RudeServer
    instance: dg.DagsterInstance
    clock: Clock
    events: Population
    deployment: Deployment
    late: Mapping[str, timedelta] = field(default_factory=dict)
    cursor: str | None = None
    rates_cursor: str | None = None
    runs: int = 0
    rates_runs: int = 0

    @classmethod
    def create(
        cls,
        folder: Path,
        server: RudeServer,
        instance: dg.DagsterInstance,
        start: datetime,
        events: Population,
        **more: str,
    ) -> Account:
        clock = Clock(start)
        deployment = Deployment(folder, server, instance, clock, **more)
        account = cls(server, instance, clock, events, deployment)
        account.publish()
        return account

    def publish(self) -> None:
        """Serve the events that are published by now."""
        published = {
            kind: [
                event
                for event in self.events.feed(kind)
                if event["timestamp"] / 1000 + self.late.get(event["id"], timedelta()).total_seconds()
                <= self.clock().timestamp()
            ]
            for kind in KINDS
        }
        self.server.serve(replace(self.events, bad_events=[], **published))

    def tick(self) -> Tick:
        """Tick `np6_refresh`."""
        self.publish()
        before = len(self.server.list_requests())
        result = evaluate_sensor(self.deployment, "np6_refresh", self.cursor)
        self.cursor = result.cursor
        return Tick(list(result.run_requests or []), result.skip_message or "", self.server.list_requests()[before:])

    def run_requests(self, tick: Tick) -> bool:
        """Do the runs that a tick requested, and return whether all succeeded."""
        return [self.run("fetch_events", request) for request in tick.runs].count(False) == 0

    def run(self, job: str, request: dg.RunRequest) -> bool:
        """Do a requested run of a job, and return whether it succeeded."""
        self.runs += 1
        if request.asset_selection:  # a job takes no resources for a part of it
            assets = [key.path[-1] for key in request.asset_selection]
            ends = map(date.fromisoformat, find_run_days(request))
            result = self.deployment.materialize(assets, *ends, run_config=request.run_config, raise_on_error=False)
            return result.success
        definitions = self.deployment.definitions
        result = definitions.resolve_job_def(job).execute_in_process(
            run_config=request.run_config,
            instance=self.instance,
            partition_key=request.partition_key,
            tags=request.tags,
            resources={**(definitions.resources or {}), "np6": self.deployment.np6},
            raise_on_error=False,
        )
        return result.success

    def run_night(self) -> bool:
        """Tick `daily_ingest`, do the runs that it requests, and return whether all succeeded."""
        self.publish()
        definitions = self.deployment.definitions
        schedule = definitions.resolve_schedule_def("daily_ingest")
        with dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=self.clock(),
            repository_def=definitions.get_repository_def(),
        ) as context:
            requests = schedule.evaluate_tick(context).run_requests or []
        assert requests
        return [self.run("fetch_daily", request) for request in requests].count(False) == 0

    def tick_rates(self) -> list[tuple[str, str]]:
        """Tick `rates_follow`, and return the first and last day of each run that it requests."""
        result = evaluate_sensor(self.deployment, "rates_follow", self.rates_cursor)
        self.rates_cursor = result.cursor
        return list(map(find_run_days, result.run_requests or []))

    def follow(self) -> list[date]:
        """Tick `rates_follow`, do the runs that it requests, and return their days."""
        days: list[date] = []
        for first, last in self.tick_rates():
            self.rates_runs += 1
            self.deployment.materialize("reactivity_rates", date.fromisoformat(first), date.fromisoformat(last))
            days += list_days(date.fromisoformat(first), date.fromisoformat(last))
        return sorted(days)
