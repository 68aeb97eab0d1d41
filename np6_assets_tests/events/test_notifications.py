"""What is stored of notifications that the API lists, lists no longer, or never listed."""

from datetime import UTC, datetime, timedelta

from np6_assets.events.notifications import Notification, merge_notifications

NOW = datetime(2026, 3, 20, 9, tzinfo=UTC)
BEFORE = NOW - timedelta(days=9)
SALE = Notification(7, "Spring sale", "application", first_seen=BEFORE)


def test_first_list_is_stored_as_it_is():
    assert merge_notifications({7: Notification(7, "Spring sale", None)}, {}, [], NOW) == [
        Notification(7, "Spring sale", None, first_seen=NOW)
    ]


def test_deleted_notification_keeps_its_name_and_says_since_when_it_is_gone():
    [gone] = merge_notifications({}, {7: SALE}, [], NOW)
    assert gone == Notification(7, "Spring sale", "application", NOW, BEFORE)
    assert merge_notifications({}, {7: gone}, [], NOW + timedelta(days=1)) == [gone]


def test_notification_that_is_listed_again_has_its_new_name():
    gone = Notification(7, "Spring sale", "application", BEFORE, BEFORE)
    assert merge_notifications({7: Notification(7, "Summer sale", None)}, {7: gone}, [7], NOW) == [
        Notification(7, "Summer sale", None, None, BEFORE)
    ]


def test_notification_that_a_reaction_alone_names_is_stored_without_a_name():
    [named] = merge_notifications({}, {}, [9], NOW)
    assert named == Notification(9, None, None, None, NOW)
    assert merge_notifications({}, {9: named}, [9], NOW + timedelta(days=1)) == [named]


def test_notifications_are_stored_by_id():
    found = merge_notifications({30: Notification(30, "c", None)}, {7: SALE}, [9], NOW)
    assert [one.activation_id for one in found] == [7, 9, 30]
