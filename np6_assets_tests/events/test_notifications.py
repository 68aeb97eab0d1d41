"""Merge listed, deleted and unlisted notifications with the stored ones."""

from datetime import UTC, datetime, timedelta

import pytest

from np6_assets.events.notifications import Notification, merge_notifications

NOW = datetime(2026, 3, 20, 9, tzinfo=UTC)
BEFORE = NOW - timedelta(days=9)
SALE = Notification(7, "Spring sale", "application", first_seen=BEFORE)
GONE = Notification(7, "Spring sale", "application", BEFORE, BEFORE)


@pytest.mark.parametrize(
    ("listed", "stored", "named", "expected"),
    [
        ([Notification(7, "Sale", None)], [], [], [Notification(7, "Sale", None, first_seen=NOW)]),
        ([], [SALE], [], [Notification(7, "Spring sale", "application", NOW, BEFORE)]),  # deleted
        ([], [GONE], [], [GONE]),
        ([Notification(7, "Summer", None)], [GONE], [7], [Notification(7, "Summer", None, None, BEFORE)]),  # again
        ([], [], [9], [Notification(9, None, None, None, NOW)]),  # by a reaction alone
        ([], [Notification(9, None, None, None, BEFORE)], [9], [Notification(9, None, None, None, BEFORE)]),
    ],
)
def test_merge_keeps_what_was_known(listed, stored, named, expected):
    by_id = [{one.activation_id: one for one in several} for several in (listed, stored)]
    assert merge_notifications(*by_id, named, NOW) == expected


def test_merge_sorts_by_id():
    found = merge_notifications({30: Notification(30, "c", None)}, {7: SALE}, [9], NOW)
    assert [one.activation_id for one in found] == [7, 9, 30]
