"""What a deployment left alone asks for and records: simulated days with ticks of its own sensors and schedules.

`python -m soak.records --days 30 --every 120` prints a line a day: requests and runs so far, the runs that are still
recorded after the nightly job that removes old ones, and the bytes of DAGSTER_HOME.
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
from np6_assets_tests.support.events import KINDS, Population, population
from np6_assets_tests.support.rude_server import RudeServer

FIRST = date(2026, 3, 2)
WINDOW = 7
SENSORS = ("np6_refresh", "rates_follow", "dead_runs")
TICKS_A_DAY = 24 * 60
JOBS = {"fetch_events", "fetch_daily", "__ephemeral_asset_job__"}
"""The jobs whose runs are removed; the last is what a run of `compute_rates` is called here."""


@dataclass(frozen=True)
class Night:
    """What was asked for until a night, and what is recorded after it.

    `probes` and `requests` are those to the API, by ticks and by runs; `recorded` the runs that Dagster lists; `files`
    the bytes by part of DAGSTER_HOME.
    """

    day: date
    probes: int
    requests: int
    fetches: int
    rates: int
    recorded: int
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """All of DAGSTER_HOME."""
        return sum(self.files.values())


def nights(folder: Path, days: int, every: timedelta, sends_every: int) -> Iterator[Night]:
    """Simulate days, one after the other: ticks so often, what they ask for, and the night.

    `sends_every` is 1 where something is sent on each day, 7 where on one in seven. Dagster stamps its records with
    this machine's time, so a moment of the simulation is when it was simulated.
    """
    home = folder / "home"
    home.mkdir()
    with RudeServer(seed=1) as server, dg.DagsterInstance.local_temp(str(home)) as instance:
        settings = {"NP6_START_DATE": f"{FIRST}", "NP6_WINDOW_DAYS": f"{WINDOW}"}
        start = datetime.combine(FIRST, time(4), UTC)
        account = Account.made(folder / "data", server, instance, start, _events(days, sends_every), **settings)
        assets = {key for asset in account.deployment.definitions.assets or () for key in asset.keys}  # type: ignore[union-attr]
        simulated: list[datetime] = []
        probes = 0
        for ahead in range(days):
            night = datetime.combine(FIRST, time(3, 30), UTC) + timedelta(days=ahead + 1)
            while account.clock.now + every < night:
                account.clock.now += every
                tick = account.tick()
                probes += len(tick.requests)
                assert account.obey(tick)
                _follow(account)
            account.clock.now = night
            assert account.nightly()
            _follow(account)
            _record_ticks(instance, account, night)
            simulated.append(datetime.now(UTC))
            if len(simulated) > KEPT.days:
                remove_runs(instance, assets, JOBS, simulated[-1 - KEPT.days] + KEPT)
            yield Night(
                (night - timedelta(days=1)).date(),
                probes,
                len(server.asked()) - probes,
                account.runs,
                account.rates_runs,
                instance.get_runs_count(),
                _sizes(home),
            )


def _follow(account: Account) -> None:
    """A tick of `rates_follow`, and the runs that it asks for, with their checks."""
    for first, last in account.rates_tick():
        account.rates_runs += 1
        ends = date.fromisoformat(first), date.fromisoformat(last)
        assert account.deployment.materialize("reactivity_rates", *ends, checks=True).success


def _events(days: int, sends_every: int) -> Population:
    """Sends on one day in so many, and their reactions."""
    made = population(1, FIRST, days, window_days=WINDOW, sends_per_day=30)
    for kind in KINDS:
        made.feed(kind)[:] = [event for event in made.feed(kind) if _sent_on(event).toordinal() % sends_every == 0]
    return made


def _sent_on(event: dict[str, object]) -> date:
    """The day of an event's send; of the event where it names none."""
    activation = event.get("activation")
    stamp = activation.get("stamp") if isinstance(activation, dict) else None
    moment = stamp.get("time") if isinstance(stamp, dict) else None
    milliseconds = moment if isinstance(moment, int) else event["timestamp"]
    assert isinstance(milliseconds, int)
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date()


def _record_ticks(instance: dg.DagsterInstance, account: Account, night: datetime) -> None:
    """Record a day's ticks, one a minute and sensor, and purge those of a week ago, as Dagster's daemon does."""
    cursors = {"np6_refresh": account.cursor, "rates_follow": account.rates_cursor}
    for sensor in SENSORS:
        for minute in range(TICKS_A_DAY):
            at = night.timestamp() - 60 * minute
            instance.create_tick(
                TickData(
                    instigator_origin_id=f"{sensor:0>40}",
                    instigator_name=sensor,
                    instigator_type=InstigatorType.SENSOR,
                    status=TickStatus.SKIPPED,
                    timestamp=at,
                    end_timestamp=at + 1,
                    skip_reason="nothing new was published since the last fetch",
                    cursor=cursors.get(sensor),
                    selector_id=f"{sensor:0>40}",
                )
            )
        instance.purge_ticks(
            f"{sensor:0>40}", f"{sensor:0>40}", (night - timedelta(days=7)).timestamp(), [TickStatus.SKIPPED]
        )


def _sizes(home: Path) -> dict[str, int]:
    """Bytes on disk (of blocks) by part: the database all runs share, those of the runs, ticks, logs, the rest."""
    sizes = dict.fromkeys(("index", "runs", "ticks", "logs", "rest"), 0)
    for path in home.rglob("*"):
        if path.is_file():
            sizes[_part(path.relative_to(home))] += path.stat().st_blocks * 512
    return sizes


def _part(path: Path) -> str:
    if path.parts[0] == "storage":
        return "logs"
    if path.parts[:2] == ("history", "runs"):
        return "index" if path.name.startswith("index.") else "runs"
    return "ticks" if path.parts[0] == "schedules" else "rest"


def main() -> None:
    """Print a line a day."""
    parser = argparse.ArgumentParser(prog="python -m soak.records", description=__doc__)
    parser.add_argument("--days", type=int, default=30, help="days that are simulated")
    parser.add_argument("--every", type=int, default=120, help="minutes between two ticks that may fetch")
    parser.add_argument("--sends-every", type=int, default=1, help="something is sent on one day in so many")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="np6-records-") as folder:
        every = timedelta(minutes=options.every)
        for night in nights(Path(folder), options.days, every, options.sends_every):
            parts = ", ".join(f"{part} {size / 1e6:.1f}" for part, size in night.files.items())
            print(
                f"{night.day}: {night.probes} probes, {night.requests} requests, {night.fetches} fetches, "
                f"{night.rates} of rates, {night.recorded} recorded, {night.bytes / 1e6:.1f} MB ({parts})",
                flush=True,
            )


if __name__ == "__main__":
    main()
