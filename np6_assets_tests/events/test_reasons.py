"""The table of bounce reasons in the UI."""

import pyarrow as pa

from np6_assets.events.reasons import reasons_of, reasons_table


def bounces(*pairs: tuple[str | None, str | None]) -> pa.Table:
    return pa.table(
        {
            "bounce_verdict": pa.array([verdict for verdict, _ in pairs], pa.string()),
            "bounce_reason": pa.array([reason for _, reason in pairs], pa.string()),
        }
    )


def test_bounces_are_counted_by_reason_the_most_frequent_first():
    reasons = reasons_of(bounces(("soft", "quota"), ("hard", "unregistered")))
    reasons += reasons_of(bounces(("hard", "unregistered"), (None, None)))
    assert reasons_table(reasons) == (
        "| Reason | Verdict | Bounces |\n"
        "| --- | ---: | ---: |\n"
        "| unregistered | hard | 2 |\n"
        "| not given | not given | 1 |\n"
        "| quota | soft | 1 |"
    )


def test_a_reason_that_could_name_a_receiver_is_not_shown():
    reasons = reasons_of(bounces(("hard", "no mailbox ann@example.com"), ("hard", "x" * 61), ("hard", "a | b")))
    assert (
        reasons_table(reasons) == "| Reason | Verdict | Bounces |\n| --- | ---: | ---: |\n| another text | hard | 3 |"
    )


def test_other_events_have_no_reasons():
    assert not reasons_of(pa.table({"event_id": ["1"]}))
