"""Merge listed, deleted and unlisted notifications with the stored ones."""

from datetime import UTC, datetime, timedelta

from np6_assets.events.notifications import Notification, merge_notifications

NOW = datetime(2026, 3, 20, 9, tzinfo=UTC)
BEFORE = NOW - timedelta(days=9)
SALE = Notification(7, "Spring sale", "application", first_seen=BEFORE)


def test_merge_stores_the_first_list():
    assert merge_notifications({7: Notification(7, "Spring sale", None)}, {}, [], NOW) == [
        Notification(7, "Spring sale", None, first_seen=NOW)
    ]


def test_merge_keeps_a_deleted_notification_with_the_time():
    [gone] = merge_notifications({}, {7: SALE}, [], NOW)
    assert gone == Notification(7, "Spring sale", "application", NOW, BEFORE)
    assert merge_notifications({}, {7: gone}, [], NOW + timedelta(days=1)) == [gone]


def test_merge_updates_a_notification_that_is_listed_again():
    gone = Notification(7, "Spring sale", "application", BEFORE, BEFORE)
    assert merge_notifications({7: Notification(7, "Summer sale", None)}, {7: gone}, [7], NOW) == [
        Notification(7, "Summer sale", None, None, BEFORE)
    ]


def test_merge_adds_a_notification_named_by_a_reaction():
    [named] = merge_notifications({}, {}, [9], NOW)
    assert named == Notification(9, None, None, None, NOW)
    assert merge_notifications({}, {9: named}, [9], NOW + timedelta(days=1)) == [named]


def test_merge_sorts_by_id():
    found = merge_notifications({30: Notification(30, "c", None)}, {7: SALE}, [9], NOW)
    assert [one.activation_id for one in found] == [7, 9, 30]
