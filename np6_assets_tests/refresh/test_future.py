"""Test events that are dated in the future: they delay nothing, and are counted once their time comes."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets_tests.refresh.account import Account
from np6_assets_tests.support.events import KINDS, build_event, build_population
from np6_assets_tests.support.rude_server import RudeServer

FIRST = date(2026, 3, 20)
NEXT = FIRST + timedelta(days=1)
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)


@pytest.fixture
def account(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> Account:
    """One notification, sent once this morning; the window is a day."""
    events = build_population(51, FIRST, 1, sends_per_day=6)
    for kind in KINDS:
        events.feed(kind).clear()
    account = Account.create(tmp_path / "data", server, instance, NOON, events, NP6_START_DATE=f"{FIRST}")
    add_event(account, "activations", NOON - timedelta(hours=3))
    return account


def add_event(account: Account, kind: str, at: datetime, *, published: datetime | None = None) -> str:
    """Add an event, published at its own time or another, and return its id."""
    id_ = f"{kind}-{at:%dT%H%M}"
    account.late = {**account.late, id_: (published or at) - at}
    account.events.feed(kind).append(
        build_event(
            kind,
            id=id_,
            timestamp=round(at.timestamp() * 1000),
            activation_id=account.events.notifications[0]["id"],
            stamp_id="send",
            stamp_time=round((NOON - timedelta(hours=3)).timestamp() * 1000),
        )
    )
    return id_


def list_hits(account: Account, day: date) -> list[str]:
    """List the stored hits of a day."""
    return [row["event_id"] for row in account.deployment.rows("hits", day)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "ahead",
    [
        pytest.param(timedelta(hours=8), id="today"),
        pytest.param(timedelta(days=1, hours=3), id="tomorrow"),
    ],
)
def test_future_event_delays_nothing(account: Account, ahead: timedelta):
    future = add_event(account, "hits", NOON + ahead, published=NOON)
    first = add_event(account, "hits", NOON - timedelta(minutes=5))
    assert account.run_requests(account.tick())
    is_today = ahead < timedelta(hours=12)
    assert list_hits(account, FIRST) == [first, *([future] if is_today else [])]
    assert account.deployment.fetched_until("hits", FIRST) == NOON

    # it is not news before its time; other events are
    account.clock.forward(minutes=5)
    assert account.tick().runs == []
    second = add_event(account, "hits", account.clock() + timedelta(minutes=1))
    account.clock.forward(minutes=15)
    assert account.run_requests(account.tick())
    assert list_hits(account, FIRST) == [first, second, *([future] if is_today else [])]

    # the day closes as usual, and its rates follow; tomorrow's event is not news yet
    account.clock.now = datetime(2026, 3, 21, 1, tzinfo=UTC)
    tick = account.tick()
    assert tick.days == [(f"{FIRST}", f"{FIRST}")]
    assert account.run_requests(tick)
    assert account.deployment.fetched_until("hits", FIRST) == datetime(2026, 3, 21, tzinfo=UTC)
    assert account.follow() == [FIRST]
    [rates] = account.deployment.rates(FIRST)
    assert (rates["hits"], rates["status"]) == (2 + is_today, "open")

    # tomorrow it is fetched, and counts for its send
    account.clock.now = datetime(2026, 3, 21, 16, tzinfo=UTC)
    tick = account.tick()
    assert tick.days == ([] if is_today else [(f"{NEXT}", f"{NEXT}")])
    assert account.run_requests(tick)
    account.clock.now = datetime(2026, 3, 22, 1, tzinfo=UTC)
    assert account.run_requests(account.tick())
    assert list_hits(account, NEXT) == ([] if is_today else [future])
    assert FIRST in account.follow()
    [rates] = account.deployment.rates(FIRST)
    assert (rates["hits"], rates["activations"], rates["status"]) == (3, 1, "final")
