"""Which notifications are asked for a day, whatever the list says."""

from datetime import date, timedelta

import pytest

from np6_assets.events.fanout import ACTIVE_DAYS, Known, asked, reasons

DAY = date(2026, 3, 20)
BEFORE = DAY - timedelta(days=1)


@pytest.mark.parametrize("everyone", [True, False])
@pytest.mark.parametrize(
    "known",
    [
        Known(listed=[7], stored=[8], gone=[8]),  # new
        Known(listed=[7], stored=[7], sent={DAY - timedelta(days=ACTIVE_DAYS): [7]}),
        Known(listed=[], sent={DAY: [7]}),
        Known(listed=[], reacted={DAY: [7]}),
        Known(listed=[], missing={DAY: [7]}),
        Known(listed=[], reacted={DAY: [7]}, gone=[7]),
        Known(listed=[7], stored=[8], gone=[7, 8]),
    ],
)
def test_who_may_have_sent_is_asked_by_every_fetch(known: Known, everyone: bool):
    assert list(asked(known, [DAY], everyone=everyone)) == [7]


@pytest.mark.parametrize(
    "known",
    [
        Known(listed=[7]),  # `notifications` was never materialized: who is new is not known
        Known(listed=[7], stored=[7]),
        Known(listed=[], stored=[7]),
        Known(listed=[7], stored=[7], sent={DAY - timedelta(days=ACTIVE_DAYS + 1): [7]}),
    ],
)
def test_who_is_silent_is_asked_when_the_day_closes(known: Known):
    assert list(asked(known, [DAY], everyone=True)) == [7]
    assert not asked(known, [DAY], everyone=False)


@pytest.mark.parametrize("everyone", [True, False])
def test_who_is_gone_is_not_asked_again(everyone: bool):
    known = Known(listed=[], stored=[7], sent={BEFORE: [7], DAY: [7]}, gone=[7])
    assert not asked(known, [DAY], everyone=everyone)


def test_days_that_are_asked_together_share_their_ids():
    known = Known(listed=[], sent={BEFORE: [2], DAY: [9]}, reacted={DAY: [4, 2]}, missing={BEFORE: [9]})
    assert asked(known, [BEFORE, DAY], everyone=False) == {
        2: "sent that day",
        4: "named by a reaction",
        9: "did not answer before",
    }


def test_an_account_of_5000_notifications_with_30_active_ones_costs_30_requests_a_refresh():
    everybody = range(1, 5001)
    active = range(1, 31)
    known = Known(listed=everybody, stored=everybody, sent={BEFORE: active})
    refresh, closing = asked(known, [DAY], everyone=False), asked(known, [DAY], everyone=True)
    assert reasons(refresh) == {"sent in the week before": 30}
    assert reasons(closing) == {"listed": 5000}
