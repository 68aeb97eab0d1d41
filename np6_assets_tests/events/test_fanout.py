"""Select the notifications that are requested for a day."""

from datetime import date, timedelta

import pytest

from np6_assets.events.fanout import ACTIVE_DAYS, KnownIds, count_reasons, select_ids

DAY = date(2026, 3, 20)
BEFORE = DAY - timedelta(days=1)


@pytest.mark.parametrize("ask_all", [True, False])
@pytest.mark.parametrize(
    "known",
    [
        KnownIds(listed=[7], stored=[8], gone=[8]),  # new
        KnownIds(listed=[7], stored=[7], sent={DAY - timedelta(days=ACTIVE_DAYS): [7]}),
        KnownIds(listed=[], sent={DAY: [7]}),
        KnownIds(listed=[], reacted={DAY: [7]}),
        KnownIds(listed=[], missing={DAY: [7]}),
        KnownIds(listed=[], reacted={DAY: [7]}, gone=[7]),
        KnownIds(listed=[7], stored=[8], gone=[7, 8]),
    ],
)
def test_active_notification_is_requested_by_every_fetch(known: KnownIds, ask_all: bool):
    assert list(select_ids(known, [DAY], ask_all=ask_all)) == [7]


@pytest.mark.parametrize(
    "known",
    [
        KnownIds(listed=[7]),  # `notifications` was never materialized, so new ids are not known
        KnownIds(listed=[7], stored=[7]),
        KnownIds(listed=[], stored=[7]),
        KnownIds(listed=[7], stored=[7], sent={DAY - timedelta(days=ACTIVE_DAYS + 1): [7]}),
    ],
)
def test_inactive_notification_is_requested_when_the_day_closes(known: KnownIds):
    assert list(select_ids(known, [DAY], ask_all=True)) == [7]
    assert not select_ids(known, [DAY], ask_all=False)


@pytest.mark.parametrize("ask_all", [True, False])
def test_gone_notification_is_not_requested_again(ask_all: bool):
    known = KnownIds(listed=[], stored=[7], sent={BEFORE: [7], DAY: [7]}, gone=[7])
    assert not select_ids(known, [DAY], ask_all=ask_all)


def test_days_of_one_batch_share_their_ids():
    known = KnownIds(listed=[], sent={BEFORE: [2], DAY: [9]}, reacted={DAY: [4, 2]}, missing={BEFORE: [9]})
    assert select_ids(known, [BEFORE, DAY], ask_all=False) == {
        2: "sent that day",
        4: "named by a reaction",
        9: "did not answer before",
    }


def test_refresh_requests_only_active_notifications():
    all_ids = range(1, 5001)
    active_ids = range(1, 31)
    known = KnownIds(listed=all_ids, stored=all_ids, sent={BEFORE: active_ids})
    refresh, closing = select_ids(known, [DAY], ask_all=False), select_ids(known, [DAY], ask_all=True)
    assert count_reasons(refresh) == {"sent in the week before": 30}
    assert count_reasons(closing) == {"listed": 5000}
