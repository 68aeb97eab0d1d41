"""Simulate days of a deployment that nobody touches, with its own sensors and schedules, and measure DAGSTER_HOME.

`python -m soak.records --days 30 --every 120` prints a line a day: requests and runs so far, runs that are recorded
after the nightly job that removes old ones, and bytes of DAGSTER_HOME.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickData, TickStatus

from np6_assets.runs.records import KEPT, remove_runs
from np6_assets_tests.refresh.account import Account
from np6_assets_tests.support.events import KINDS, Population, build_population
from np6_assets_tests.support.rude_server import RudeServer

FIRST = date(2026, 3, 2)
WINDOW_DAYS = 7
SENSORS = ("np6_refresh", "rates_follow", "dead_runs")
TICKS_A_DAY = 24 * 60
JOBS = {"fetch_events", "fetch_daily", "__ephemeral_asset_job__"}
"""The jobs whose runs are removed; the last is the name of a run of `compute_rates` here."""


@dataclass(frozen=True)
class Night:
    """Counts since the first day, and what is recorded after a night.

    Attributes:
        day: the day before the night.
        probes: requests of ticks to the API.
        requests: requests of runs to the API.
        fetches: runs that fetched.
        rates_runs: runs that computed rates.
        recorded_runs: runs that Dagster has records of.
        sizes: bytes of DAGSTER_HOME, by part.
    """

    day: date
    probes: int
    requests: int
    fetches: int
    rates_runs: int
    recorded_runs: int
    sizes: dict[str, int]


def simulate_nights(folder: Path, days: int, every: timedelta, sends_every: int) -> Iterator[Night]:
    """Simulate days: ticks every so often, the runs that they request, and the night.

    Something is sent on one day in `sends_every`. Dagster stamps its records with this machine's time, so records are
    removed by the time at which their night was simulated.
    """
    home = folder / "home"
    home.mkdir()
    with RudeServer(seed=1) as server, dg.DagsterInstance.local_temp(str(home)) as instance:
        settings = {"NP6_START_DATE": f"{FIRST}", "NP6_WINDOW_DAYS": f"{WINDOW_DAYS}"}
        start = datetime.combine(FIRST, time(4), UTC)
        account = Account.create(folder / "data", server, instance, start, _build_events(days, sends_every), **settings)
        assets = {key for asset in account.deployment.definitions.assets or () for key in asset.keys}  # type: ignore[union-attr]
        simulated_at: list[datetime] = []
        probes = 0
        for ahead in range(days):
            night = datetime.combine(FIRST, time(3, 30), UTC) + timedelta(days=ahead + 1)
            while account.clock.now + every < night:
                account.clock.now += every
                tick = account.tick()
                probes += len(tick.requests)
                assert account.run_requests(tick)
                _compute_rates(account)
            account.clock.now = night
            assert account.run_night()
            _compute_rates(account)
            _record_ticks(instance, account, night)
            simulated_at.append(datetime.now(UTC))
            if len(simulated_at) > KEPT.days:
                remove_runs(instance, assets, JOBS, simulated_at[-1 - KEPT.days] + KEPT)
            yield Night(
                (night - timedelta(days=1)).date(),
                probes,
                len(server.list_requests()) - probes,
                account.runs,
                account.rates_runs,
                instance.get_runs_count(),
                _measure_sizes(home),
            )


def _compute_rates(account: Account) -> None:
    """Run a tick of `rates_follow`, and the runs that it requests, with their checks."""
    for first, last in account.tick_rates():
        account.rates_runs += 1
        ends = date.fromisoformat(first), date.fromisoformat(last)
        assert account.deployment.materialize("reactivity_rates", *ends, checks=True).success


def _build_events(days: int, sends_every: int) -> Population:
    """Build sends on one day in so many, and their reactions."""
    events = build_population(1, FIRST, days, window_days=WINDOW_DAYS, sends_per_day=30)
    for kind in KINDS:
        feed = events.feed(kind)
        feed[:] = [event for event in feed if _get_send_day(event).toordinal() % sends_every == 0]
    return events


def _get_send_day(event: dict[str, object]) -> date:
    """Return the day of an event's send, or the event's own day if it has no send."""
    activation = event.get("activation")
    stamp = activation.get("stamp") if isinstance(activation, dict) else None
    ms = stamp.get("time") if isinstance(stamp, dict) else None
    ms = ms if isinstance(ms, int) else event["timestamp"]
    assert isinstance(ms, int)
    return datetime.fromtimestamp(ms / 1000, UTC).date()


def _record_ticks(instance: dg.DagsterInstance, account: Account, night: datetime) -> None:
    """Record a day's ticks, one a minute for each sensor, and purge those of a week ago, as Dagster's daemon does."""
    cursors = {"np6_refresh": account.cursor, "rates_follow": account.rates_cursor}
    for sensor in SENSORS:
        for minute in range(TICKS_A_DAY):
            timestamp = night.timestamp() - 60 * minute
            instance.create_tick(
                TickData(
                    instigator_origin_id=f"{sensor:0>40}",
                    instigator_name=sensor,
                    instigator_type=InstigatorType.SENSOR,
                    status=TickStatus.SKIPPED,
                    timestamp=timestamp,
                    end_timestamp=timestamp + 1,
                    skip_reason="nothing new was published since the last fetch",
                    cursor=cursors.get(sensor),
                    selector_id=f"{sensor:0>40}",
                )
            )
        instance.purge_ticks(
            f"{sensor:0>40}", f"{sensor:0>40}", (night - timedelta(days=7)).timestamp(), [TickStatus.SKIPPED]
        )


def _measure_sizes(home: Path) -> dict[str, int]:
    """Measure bytes on disk by part: the database of all runs (index), those of each run, ticks, logs, the rest."""
    sizes = dict.fromkeys(("index", "runs", "ticks", "logs", "rest"), 0)
    for path in home.rglob("*"):
        if path.is_file():
            sizes[_classify(path.relative_to(home))] += path.stat().st_blocks * 512
    return sizes


def _classify(path: Path) -> str:
    if path.parts[0] == "storage":
        return "logs"
    if path.parts[:2] == ("history", "runs"):
        return "index" if path.name.startswith("index.") else "runs"
    return "ticks" if path.parts[0] == "schedules" else "rest"


def main() -> None:
    """Print a line a day."""
    parser = argparse.ArgumentParser(prog="python -m soak.records", description=__doc__)
    parser.add_argument("--days", type=int, default=30, help="number of simulated days")
    parser.add_argument("--every", type=int, default=120, help="minutes between two ticks that may fetch")
    parser.add_argument("--sends-every", type=int, default=1, help="something is sent on one day in so many")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="np6-records-") as folder:
        every = timedelta(minutes=options.every)
        for night in simulate_nights(Path(folder), options.days, every, options.sends_every):
            parts = ", ".join(f"{part} {size / 1e6:.1f}" for part, size in night.sizes.items())
            print(
                f"{night.day}: {night.probes} probes, {night.requests} requests, {night.fetches} fetches, "
                f"{night.rates_runs} runs of rates, {night.recorded_runs} runs recorded, "
                f"{sum(night.sizes.values()) / 1e6:.1f} MB ({parts})",
                flush=True,
            )


if __name__ == "__main__":
    main()
