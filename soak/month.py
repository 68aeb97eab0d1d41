"""Run a month of fetches, as the sensor and the schedule request them, from an API with long outages."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg

from np6_assets_tests.support.builders import draw_uuid
from np6_assets_tests.support.clock import Clock
from np6_assets_tests.support.deployment import Deployment, build_resource
from np6_assets_tests.support.events import (
    HOUR_MS,
    KINDS,
    BadEvent,
    Event,
    Population,
    build_event,
    build_population,
    set_one_agency,
)
from np6_assets_tests.support.oracle import compute_day_bounds, parse_day, read_activation_id, read_event_time
from soak import compare, month_server
from soak.faults import END_MODES_OF_ROUNDS, find_unlisted_ids
from soak.month_server import MonthServer, Renaming
from soak.round import TIMEZONE, WINDOW_DAYS, Outcome

FAULTY_DAYS = 30
"""Days with faults; a day without any follows, as the nights after a day repair it."""

FIRST_DAYS = (date(2026, 3, 10), date(2026, 10, 8))
"""First days of months in which clocks change."""

TRAILING_DAYS = 5
"""Days before yesterday that every night fetches again."""

REFRESHES_A_DAY = 2
"""Incremental fetches a day of the days that are not closed."""

WRONG_CLOCK_SHARE = 0.1
"""Share of the incremental fetches in which our clock is wrong by hours."""

NEW_CUSTOMER_DAY, RENAMING_DAY = 10, 20
"""From these days on, events have a new customer, and a notification has a new name."""
NEW_NAME = "Its new name"

OUR_CLOCK = "our clock is wrong"
FAULTS = (*month_server.FAULTS, OUR_CLOCK)


def run_month(number: int, seed: int, folder: Path) -> Outcome:
    """Run a month in a folder. Everything except the timing of requests follows from the seed."""
    started = time.monotonic()
    rng = random.Random(seed)
    first = rng.choice(FIRST_DAYS)
    days = [first + timedelta(days=ahead) for ahead in range(FAULTY_DAYS + 1)]
    account, quiet_id = _build_account(rng, seed, days)
    ids = [entry["id"] for entry in account.notifications]
    renaming = Renaming(_get_start(days[RENAMING_DAY]), quiet_id, NEW_NAME)
    outages = month_server.draw_outages(rng, ids, _get_start(days[1]), _get_start(days[-1]))
    key = f"key-{rng.getrandbits(64):016x}"
    outcome = Outcome(number, seed, _to_datetime(_get_start(first)), limited_disk=False, days=len(days))
    folder.mkdir()
    settings = {"NP6_TIMEZONE": TIMEZONE, "NP6_START_DATE": f"{first}", "NP6_WINDOW_DAYS": f"{WINDOW_DAYS}"}
    with (
        (folder / "log").open("w") as log,
        contextlib.redirect_stderr(log),  # what Dagster logs of the runs
        MonthServer(account, outages, [renaming], seed, key) as server,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        server.end_mode, server.sorts = rng.choice(END_MODES_OF_ROUNDS), rng.random() < 0.5
        outcome.end, outcome.sorts = server.end_mode, server.sorts
        clock = Clock(outcome.clock)
        deployment = Deployment(folder / "data", server, instance, clock, **settings)
        deployment.np6 = build_resource(server, max_retries=2, step_retry_delay=0)
        server.date = server.get_date  # which the deployment has set to its clock
        for ms, is_night in _draw_fetches(rng, days):
            server.until_ms = ms
            clock.now = _to_datetime(ms)
            if is_night:
                _fetch_in_full(deployment, clock, days)
            else:
                if rng.random() < WRONG_CLOCK_SHARE and ms < _get_start(days[-2]):
                    clock.forward(hours=rng.choice((-1, 1)) * rng.randrange(1, 7))
                    server.injected[OUR_CLOCK] += 1
                _refresh(deployment, clock, days)
            outcome.starts += 1
        deployment.materialize("reactivity_rates", first, days[-1])
        outcome.requests, outcome.faults = len(server.requests), server.injected
    data = folder / "data"
    names = {entry["id"]: entry.get("name") for entry in account.notifications} | {quiet_id: NEW_NAME}
    outcome.losses += [
        *compare.find_wrong_rows(data, account, days, TIMEZONE, WINDOW_DAYS),
        *compare.find_open_days(data, days, TIMEZONE),
        *compare.find_wrong_names(data, names),
        *compare.find_wrong_identity(data, account, days, TIMEZONE),
        *compare.find_leaks([data], {"the key": key.encode(), "an address": b"@example.com"}),
    ]
    outcome.files = len(compare.list_files(data))
    outcome.seconds = time.monotonic() - started
    return outcome


def _refresh(deployment: Deployment, clock: Clock, days: list[date]) -> None:
    """Fetch the days up to today that are not closed, as the sensor requests them."""
    begun = [day for day in days if _get_start(day) <= clock.now.timestamp() * 1000]
    open_days = [day for day in begun if compare.find_open_days(deployment.data, [day], TIMEZONE)]
    if open_days:
        deployment.materialize(list(KINDS), open_days[0], open_days[-1], raise_on_error=False)


def _fetch_in_full(deployment: Deployment, clock: Clock, days: list[date]) -> None:
    """Fetch yesterday, TRAILING_DAYS before it and the list, as the schedule requests them.

    Every seventh night it is all days, most of which the API may have forgotten.
    """
    ended = [day for day in days if _get_end(day) <= clock.now.timestamp() * 1000]
    config = {"ops": {kind: {"config": {"full_refresh": True}} for kind in KINDS}}
    first = ended[0] if len(ended) % 7 == 0 else ended[-1 - TRAILING_DAYS :][0]
    deployment.materialize([*KINDS, "notifications"], first, ended[-1], run_config=config, raise_on_error=False)


def _draw_fetches(rng: random.Random, days: list[date]) -> Iterator[tuple[int, bool]]:
    """Draw the times (ms since epoch) of all fetches, in order; True for those in the night after a day."""
    for day in days:
        fetches = [(rng.randrange(_get_start(day), _get_end(day)), False) for _ in range(REFRESHES_A_DAY)]
        if day != days[0]:
            fetches.append((_get_start(day) + 4 * HOUR_MS, True))
        yield from sorted(fetches)
    yield _get_end(days[-1]) + 4 * HOUR_MS, True


def _build_account(rng: random.Random, seed: int, days: list[date]) -> tuple[Population, int]:
    """Build a month of events, some of another agency; also return the id of a notification that sends on few days."""
    account = set_one_agency(build_population(seed, days[0], len(days), TIMEZONE, notifications=6, sends_per_day=15))
    sender_id, quiet_id = account.notifications[0]["id"], account.notifications[-1]["id"]
    account.notifications += [{"id": id_} for id_ in find_unlisted_ids(account)]
    sending_days = set(rng.sample(days, 4))
    for kind in KINDS:
        feed = account.feed(kind)
        feed[:] = [each for each in feed if read_activation_id(each) != quiet_id or _get_day(each) in sending_days]
    for day in days:
        _add_hits(rng, account, day)
        for kind in KINDS if day != days[0] else ():  # a new folder would accept the agency
            ms = rng.randrange(_get_start(day), _get_end(day))
            foreign = build_event(kind, id=draw_uuid(rng), timestamp=ms, activation_id=sender_id, agency="OTHER")
            account.bad_events.append(BadEvent("of another agency", kind, ms, sender_id, foreign))
    for kind in KINDS:
        for each in account.feed(kind):
            is_late = (read_event_time(each) or 0) >= _get_start(days[NEW_CUSTOMER_DAY])
            if is_late and isinstance(each.get("identity"), dict) and each["id"] < "4":
                each["identity"]["customer"] = "new"
    return account, quiet_id


def _add_hits(rng: random.Random, account: Population, day: date) -> None:
    """Add a hit on the same day for each notification that sends, so that a reaction names sends that are hidden."""
    start, end = _get_start(day), _get_end(day)
    sends = {
        read_activation_id(send): send for send in account.activations if start <= (read_event_time(send) or 0) < end
    }
    for id_, send in sends.items():
        ms = min((read_event_time(send) or 0) + rng.randrange(HOUR_MS), end - 1)
        account.hits.append(build_event("hits", id=draw_uuid(rng), timestamp=ms, activation_id=id_))


def _get_day(event: Event) -> date:
    return parse_day(read_event_time(event) or 0, TIMEZONE)


def _get_start(day: date) -> int:
    return compute_day_bounds(day, TIMEZONE)[0]


def _get_end(day: date) -> int:
    return compute_day_bounds(day, TIMEZONE)[1]


def _to_datetime(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
