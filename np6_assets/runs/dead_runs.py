"""Dead runs: found by their lock, and ended, so that they do not occupy the pool."""

from __future__ import annotations

import dagster as dg

from np6_assets.dagster_private import end_run, get_home, has_step_workers
from np6_assets.runs import lock
from np6_assets.settings import Settings

SENSOR = "dead_runs"

SECONDS_BETWEEN_TICKS = 60

MESSAGE = (
    "The process of this run is gone (it was killed, or the machine went down); the days that it had written stay. "
    "The sensor np6_refresh of its account asks for the others again; without it, launch them again."
)


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """End the runs that Dagster takes to be running though their process died; return their ids.

    A run whose steps have processes of their own may outlive one of them: its executor handles that.
    """
    home = get_home(instance)
    ended = []
    for run_id in lock.find_dead_runs(home):
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished and not has_step_workers(instance, run_id):
            end_run(instance, run, MESSAGE)
            ended.append(run_id)
        lock.remove_lock(home, run_id)
    return ended


def build_dead_runs_sensor(settings: Settings) -> dg.SensorDefinition:
    """Build the sensor. It runs by default: it reads a folder, and requests no run."""

    @dg.sensor(
        name=settings.named(SENSOR),
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Ends runs whose process is gone (killed, or the machine went down): they would stay started for ever, and "
            "keep their place in the pool. Asks for no run."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = end_dead_runs(context.instance)
        return dg.SkipReason(f"Ended, as their process is gone: {', '.join(ended)}." if ended else None)

    return sensor
