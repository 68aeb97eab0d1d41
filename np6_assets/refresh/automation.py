"""When rates are computed again by themselves: the automation condition, and the sensor that evaluates it.

What belongs here: Dagster's own conditions, put together. Which input days a cohort needs is its partition mapping.
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from np6_assets.settings import Settings

RETRY_CRON = "0 * * * *"
"""When cohorts whose run failed are asked for again, after the first time: every hour."""

SECONDS_BETWEEN_TICKS = 30


class SendsFirst(dg.AutomationCondition[dg.AssetKey]):
    """True of the cohorts whose own day of activations is there, and of those before the first such day.

    The mapping of the input gives all days of a window: Dagster's own conditions cannot tell the first of them.
    """

    def __init__(self, activations: dg.AssetKey) -> None:
        self._activations = activations

    @property
    def name(self) -> str:
        """As the UI shows it."""
        return "its own day of activations is there, or before the first one"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """The cohorts of the candidates of which that is true."""
        there = context.asset_graph_view.instance.get_materialized_partitions(self._activations)
        first = min(there, default=None)
        candidates = context.candidate_subset
        keys = {
            day
            for day in candidates.expensively_compute_partition_keys()
            if first is None or day < first or day in there
        }
        return dg.AutomationResult(context, candidates.compute_intersection_with_partition_keys(keys))


def follow_the_events(settings: Settings) -> dg.AutomationCondition[dg.AssetKey]:
    """Ask for the cohorts of which an input day got another data version, once nothing is fetched for them any more.

    Only where their sends are known, so that denominators come first, and only of days whose events are kept.
    """
    changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    absent = dg.AutomationCondition.missing() & dg.AutomationCondition.any_deps_match(~dg.AutomationCondition.missing())
    failed = dg.AutomationCondition.execution_failed()
    # A failed partition stays failed until it is materialized: newly failed once, and then asked for by the clock.
    newly_failed = failed.newly_true()
    again = newly_failed | (failed & dg.AutomationCondition.cron_tick_passed(RETRY_CRON))
    # What happens in the tick after a request is no longer in it: the run may have begun before an input changed, and
    # may have failed already. Dagster would drop it with the request.
    settled = dg.AutomationCondition.newly_requested() & ~changed & ~newly_failed
    due = (
        changed.with_label("an input day changed")
        | absent.newly_true().with_label("an input day is there, the rates are not")
        | again.with_label("the run failed")
    ).since(settled.with_label("asked for, and nothing happened since"))
    busy = dg.AutomationCondition.in_progress() | dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.in_progress()
    )
    due_now = due.with_label("due") & ~busy.with_label("being fetched or computed")
    due_now &= SendsFirst(dg.AssetKey(settings.key("activations")))
    if settings.retention_days is not None:
        window = timedelta(days=settings.retention_days + 1)  # with today
        due_now &= dg.AutomationCondition.in_latest_time_window(window).with_label("its events are kept")
    return due_now.with_label("follow the events")


def rates_sensor(settings: Settings) -> dg.AutomationConditionSensorDefinition:
    """The sensor that asks for rates. It runs unless stopped: it follows what was fetched, and fetches nothing."""
    return dg.AutomationConditionSensorDefinition(
        name="rates_follow",
        target=dg.AssetSelection.assets(settings.key("reactivity_rates")),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        use_user_code_server=True,  # SendsFirst is code of this project
        description=(
            "Computes the rates of the activation days whose events changed: the day of an event and the days of the "
            "window before it. Waits while their events are being fetched, and until a day's own activations are "
            "there (but for days before the first of them), then asks for all of them at once. A fetch "
            "that brought nothing new changes nothing. A run that failed is asked for again at once, then every hour."
        ),
    )
