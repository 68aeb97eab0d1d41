"""Select the notifications that are requested for a day."""

from datetime import date, timedelta

import pytest

from np6_assets.events.fanout import ACTIVE_DAYS, KnownIds, count_reasons, select_ids

DAY = date(2026, 3, 20)
BEFORE = DAY - timedelta(days=1)


@pytest.mark.parametrize(
    ("known", "refreshed", "closed"),
    [
        (KnownIds(listed=[7], stored=[8], gone=[8]), [7], [7]),  # new
        (KnownIds(listed=[7], stored=[7], sent={DAY - timedelta(days=ACTIVE_DAYS): [7]}), [7], [7]),
        (KnownIds(listed=[], sent={DAY: [7]}), [7], [7]),
        (KnownIds(listed=[], reacted={DAY: [7]}), [7], [7]),
        (KnownIds(listed=[], missing={DAY: [7]}), [7], [7]),
        (KnownIds(listed=[], reacted={DAY: [7]}, gone=[7]), [7], [7]),
        (KnownIds(listed=[7], stored=[8], gone=[7, 8]), [7], [7]),
        # inactive
        (KnownIds(listed=[7]), [], [7]),  # `notifications` was never materialized, so new ids are not known
        (KnownIds(listed=[7], stored=[7]), [], [7]),
        (KnownIds(listed=[], stored=[7]), [], [7]),
        (KnownIds(listed=[7], stored=[7], sent={DAY - timedelta(days=ACTIVE_DAYS + 1): [7]}), [], [7]),
        # gone
        (KnownIds(listed=[], stored=[7], sent={BEFORE: [7], DAY: [7]}, gone=[7]), [], []),
    ],
)
def test_notification_is_requested_if_active_or_when_the_day_closes(known, refreshed, closed):
    assert list(select_ids(known, [DAY], ask_all=False)) == refreshed
    assert list(select_ids(known, [DAY], ask_all=True)) == closed


def test_days_of_one_batch_share_their_ids():
    known = KnownIds(listed=[], sent={BEFORE: [2], DAY: [9]}, reacted={DAY: [4, 2]}, missing={BEFORE: [9]})
    assert select_ids(known, [BEFORE, DAY], ask_all=False) == {
        2: "sent that day",
        4: "named by a reaction",
        9: "did not answer before",
    }


def test_refresh_requests_only_active_notifications():
    all_ids = range(1, 5001)
    known = KnownIds(listed=all_ids, stored=all_ids, sent={BEFORE: range(1, 31)})
    refresh, closing = select_ids(known, [DAY], ask_all=False), select_ids(known, [DAY], ask_all=True)
    assert count_reasons(refresh) == {"sent in the week before": 30}
    assert count_reasons(closing) == {"listed": 5000}
