"""Play a month of runs, as the sensor and the schedule ask for them, over an API that takes back what it said."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg

from np6_assets_tests.refresh.account import Clock
from np6_assets_tests.support.deployment import Deployment, impatient
from np6_assets_tests.support.events import (
    HOUR_MS,
    KINDS,
    Event,
    Misfit,
    Population,
    event,
    of_one_agency,
    population,
    random_uuid,
)
from np6_assets_tests.support.oracle import activation_id, day_bounds, event_time, parse_day
from soak import compare, forgetful
from soak.faults import ENDS, unlisted
from soak.forgetful import ForgetfulServer
from soak.round import TIMEZONE, WINDOW_DAYS, Outcome

FAULTY_DAYS = 30
"""Days with faults; one follows without any, as what is wrong at the end of a day is mended in the nights after it."""

FIRSTS = (date(2026, 3, 10), date(2026, 10, 8))
"""First days of months in which clocks change."""

TRAILING_DAYS = 5
"""Days before yesterday that are fetched in each night."""

REFRESHES = 2
"""Runs a day for the days that are not closed."""

WRONG_CLOCK = 0.1
"""Share of these runs in which our clock is wrong by hours."""

NEW_CUSTOMER_DAY, RENAMED_DAY = 10, 20
"""From these days on, events name a customer that was not there before, and a notification has another name."""
RENAMED = "Its new name"

OUR_CLOCK = "our clock is wrong"
FAULTS = (*forgetful.FAULTS, OUR_CLOCK)


def play(number: int, seed: int, folder: Path) -> Outcome:
    """Play a month in a folder. Everything but the timing of the requests follows from the seed."""
    started = time.monotonic()
    rng = random.Random(seed)
    first = rng.choice(FIRSTS)
    days = [first + timedelta(days=ahead) for ahead in range(FAULTY_DAYS + 1)]
    made, quiet = _account(rng, seed, days)
    ids = [entry["id"] for entry in made.notifications]
    names = [(day_bounds(days[RENAMED_DAY], TIMEZONE)[0], quiet, RENAMED)]
    drawn = forgetful.spells(rng, ids, day_bounds(days[1], TIMEZONE)[0], day_bounds(days[-1], TIMEZONE)[0])
    key = f"key-{rng.getrandbits(64):016x}"
    outcome = Outcome(number, seed, _moment(day_bounds(days[0], TIMEZONE)[0]), on_full_disk=False, days=len(days))
    folder.mkdir()
    with (
        (folder / "log").open("w") as log,
        contextlib.redirect_stderr(log),  # Dagster's records of the runs
        ForgetfulServer(made, drawn, names, seed, key) as server,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        server.end, server.sorts = rng.choice(ENDS), rng.random() < 0.5
        outcome.end, outcome.sorts = server.end, server.sorts
        clock = Clock(outcome.clock)
        deployment = Deployment(folder / "data", server, instance, clock, **_settings(first))
        deployment.np6 = impatient(server, max_retries=2, step_retry_delay=0)
        server.date = server.date_now
        for moment, is_night in _moments(rng, days):
            server.until_ms = moment
            clock.now = _moment(moment)
            if not is_night and rng.random() < WRONG_CLOCK and moment < day_bounds(days[-2], TIMEZONE)[0]:
                clock.forward(hours=rng.choice((-1, 1)) * rng.randrange(1, 7))
                server.injected[OUR_CLOCK] += 1
            _fetch_nightly(deployment, clock, days) if is_night else _refresh(deployment, clock, days)
            outcome.starts += 1
        deployment.materialize("reactivity_rates", first, days[-1])
        outcome.requests, outcome.faults = len(server.requests), server.injected
    data = folder / "data"
    outcome.lost += [
        *compare.wrong(data, made, days, TIMEZONE, WINDOW_DAYS),
        *compare.not_closed(data, days, TIMEZONE),
        *compare.wrongly_named(data, _names(made) | {quiet: RENAMED}),
        *compare.wrong_identity(data, made, days, TIMEZONE),
        *compare.leaked([data], {"the key": key.encode(), "an address": b"@example.com"}),
    ]
    outcome.files = len(compare.stored(data))
    outcome.seconds = time.monotonic() - started
    return outcome


def _names(made: Population) -> dict[int, str | None]:
    return {entry["id"]: entry.get("name") for entry in made.notifications}


def _settings(first: date) -> dict[str, str]:
    return {
        "NP6_TIMEZONE": TIMEZONE,
        "NP6_START_DATE": f"{first}",
        "NP6_WINDOW_DAYS": f"{WINDOW_DAYS}",
    }


def _refresh(deployment: Deployment, clock: Clock, days: list[date]) -> None:
    """A run as the sensor asks for it: of the days up to today that are not closed."""
    begun = [day for day in days if day_bounds(day, TIMEZONE)[0] <= clock.now.timestamp() * 1000]
    still_open = [day for day in begun if compare.not_closed(deployment.data, [day], TIMEZONE)]
    if still_open:
        deployment.materialize(list(KINDS), still_open[0], still_open[-1], raise_on_error=False)


def _fetch_nightly(deployment: Deployment, clock: Clock, days: list[date]) -> None:
    """A run as the schedule asks for it: of yesterday and TRAILING_DAYS before it, in full, and of the list.

    Every week it is of all days, of which the API may have forgotten most.
    """
    ended = [day for day in days if day_bounds(day, TIMEZONE)[1] <= clock.now.timestamp() * 1000]
    full = {"ops": {kind: {"config": {"full_refresh": True}} for kind in KINDS}}
    first = ended[0] if len(ended) % 7 == 0 else ended[-1 - TRAILING_DAYS :][0]
    deployment.materialize([*KINDS, "notifications"], first, ended[-1], run_config=full, raise_on_error=False)


def _moments(rng: random.Random, days: list[date]) -> Iterator[tuple[int, bool]]:
    """When to refresh (ms), and, with True, when to fetch in the night after each day."""
    for day in days:
        start, end = day_bounds(day, TIMEZONE)
        nights = [] if day == days[0] else [(start + 4 * HOUR_MS, True)]
        yield from sorted([*((rng.randrange(start, end), False) for _ in range(REFRESHES)), *nights])
    yield end + 4 * HOUR_MS, True


def _account(rng: random.Random, seed: int, days: list[date]) -> tuple[Population, int]:
    """A month of events, some of another agency; and the id of a notification that sends on a few days alone."""
    made = of_one_agency(population(seed, days[0], len(days), TIMEZONE, notifications=6, sends_per_day=15))
    sender, quiet = made.notifications[0]["id"], made.notifications[-1]["id"]
    made.notifications += [{"id": id_} for id_ in unlisted(made)]
    awake = set(rng.sample(days, 4))
    for kind in KINDS:
        feed = made.feed(kind)
        feed[:] = [one for one in feed if activation_id(one) != quiet or _day(one) in awake]
    for day in days:
        start, end = day_bounds(day, TIMEZONE)
        _react_at_once(rng, made, start, end)
        for kind in KINDS if day != days[0] else ():  # a folder takes the agencies of its first fetch for its own
            moment = rng.randrange(start, end)
            foreign = event(kind, id=random_uuid(rng), timestamp=moment, activation_id=sender, agency="OTHER")
            made.misfits.append(Misfit("of another agency", kind, moment, sender, foreign))
    since = day_bounds(days[NEW_CUSTOMER_DAY], TIMEZONE)[0]
    for kind in KINDS:
        for one in made.feed(kind):
            if isinstance(one.get("identity"), dict) and (event_time(one) or 0) >= since and one["id"] < "4":
                one["identity"]["customer"] = "new"
    return made, quiet


def _react_at_once(rng: random.Random, made: Population, start: int, end: int) -> None:
    """A hit of each notification that sends on a day, the same day: it tells of sends that an answer leaves out."""
    sends = {activation_id(one): one for one in made.activations if start <= (event_time(one) or 0) < end}
    for id_, send in sends.items():
        moment = min((event_time(send) or 0) + rng.randrange(HOUR_MS), end - 1)
        made.hits.append(event("hits", id=random_uuid(rng), timestamp=moment, activation_id=id_))


def _day(one: Event) -> date:
    return parse_day(event_time(one) or 0, TIMEZONE)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
