"""The table of bounce reasons in the UI."""

import pyarrow as pa

from np6_assets.events.reasons import build_reasons_table, count_bounce_reasons


def bounces(*pairs: tuple[str | None, str | None]) -> pa.Table:
    return pa.table(
        {
            "bounce_verdict": pa.array([verdict for verdict, _ in pairs], pa.string()),
            "bounce_reason": pa.array([reason for _, reason in pairs], pa.string()),
        }
    )


def test_bounces_are_counted_by_reason_the_most_frequent_first():
    reasons = count_bounce_reasons(bounces(("soft", "quota"), ("hard", "unregistered")))
    reasons += count_bounce_reasons(bounces(("hard", "unregistered"), (None, None)))
    assert build_reasons_table(reasons) == (
        "| Reason | Verdict | Bounces |\n"
        "| --- | ---: | ---: |\n"
        "| unregistered | hard | 2 |\n"
        "| not given | not given | 1 |\n"
        "| quota | soft | 1 |"
    )


def test_a_reason_that_could_name_a_receiver_is_not_shown():
    reasons = count_bounce_reasons(
        bounces(("hard", "no mailbox ann@example.com"), ("hard", "x" * 61), ("hard", "a | b"))
    )
    assert (
        build_reasons_table(reasons)
        == "| Reason | Verdict | Bounces |\n| --- | ---: | ---: |\n| another text | hard | 3 |"
    )


def test_other_events_have_no_reasons():
    assert not count_bounce_reasons(pa.table({"event_id": ["1"]}))
