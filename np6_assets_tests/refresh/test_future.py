"""Events that are dated in the future: nothing waits for them, and they are where they belong once their time comes."""

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
    made = Account.made(tmp_path / "data", server, instance, NOON, events, NP6_START_DATE=f"{FIRST}")
    add(made, "activations", NOON - timedelta(hours=3))
    return made


def add(account: Account, kind: str, at: datetime, *, published: datetime | None = None) -> str:
    """Let something happen, and show it from another time on than its own; its id."""
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


def ids(account: Account, day: date) -> list[str]:
    """The hits that are stored of a day."""
    return [row["event_id"] for row in account.deployment.rows("hits", day)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "ahead",
    [
        pytest.param(timedelta(hours=8), id="today"),
        pytest.param(timedelta(days=1, hours=3), id="tomorrow"),
    ],
)
def test_event_dated_in_the_future_stalls_nothing(account: Account, ahead: timedelta):
    future = add(account, "hits", NOON + ahead, published=NOON)
    first = add(account, "hits", NOON - timedelta(minutes=5))
    assert account.obey(account.tick())
    is_today = ahead < timedelta(hours=12)
    assert ids(account, FIRST) == [first, *([future] if is_today else [])]
    assert account.deployment.fetched_until("hits", FIRST) == NOON

    # it is no news until its time; what comes meanwhile is
    account.clock.forward(minutes=5)
    assert account.tick().runs == []
    second = add(account, "hits", account.clock() + timedelta(minutes=1))
    account.clock.forward(minutes=15)
    assert account.obey(account.tick())
    assert ids(account, FIRST) == [first, second, *([future] if is_today else [])]

    # the day closes as any other, and its rates follow; tomorrow's event is not news before its time
    account.clock.now = datetime(2026, 3, 21, 1, tzinfo=UTC)
    tick = account.tick()
    assert tick.days == [(f"{FIRST}", f"{FIRST}")]
    assert account.obey(tick)
    assert account.deployment.fetched_until("hits", FIRST) == datetime(2026, 3, 21, tzinfo=UTC)
    assert account.follow() == [FIRST]
    [rates] = account.deployment.rates(FIRST)
    assert (rates["hits"], rates["status"]) == (2 + is_today, "open")

    # once tomorrow's time has come it is there, and counts for the send it belongs to
    account.clock.now = datetime(2026, 3, 21, 16, tzinfo=UTC)
    tick = account.tick()
    assert tick.days == ([] if is_today else [(f"{NEXT}", f"{NEXT}")])
    assert account.obey(tick)
    account.clock.now = datetime(2026, 3, 22, 1, tzinfo=UTC)
    assert account.obey(account.tick())
    assert ids(account, NEXT) == ([] if is_today else [future])
    assert FIRST in account.follow()
    [rates] = account.deployment.rates(FIRST)
    assert (rates["hits"], rates["activations"], rates["status"]) == (3, 1, "final")
