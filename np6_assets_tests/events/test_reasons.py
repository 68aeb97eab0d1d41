"""Table of bounce reasons in the UI."""

import pyarrow as pa

from np6_assets.events.reasons import build_reasons_table, count_bounce_reasons


def build_bounces(*pairs: tuple[str | None, str | None]) -> pa.Table:
    return pa.table(
        {
            "bounce_verdict": pa.array([verdict for verdict, _ in pairs], pa.string()),
            "bounce_reason": pa.array([reason for _, reason in pairs], pa.string()),
        }
    )


def test_table_counts_bounces_by_reason_in_descending_order():
    reasons = count_bounce_reasons(build_bounces(("soft", "quota"), ("hard", "unregistered")))
    reasons += count_bounce_reasons(build_bounces(("hard", "unregistered"), (None, None)))
    assert build_reasons_table(reasons) == (
        "| Reason | Verdict | Bounces |\n"
        "| --- | ---: | ---: |\n"
        "| unregistered | hard | 2 |\n"
        "| not given | not given | 1 |\n"
        "| quota | soft | 1 |"
    )


def test_table_hides_reasons_that_may_hold_contact_data():
    reasons = count_bounce_reasons(
        build_bounces(("hard", "no mailbox ann@example.com"), ("hard", "x" * 61), ("hard", "a | b"))
    )
    assert (
        build_reasons_table(reasons)
        == "| Reason | Verdict | Bounces |\n| --- | ---: | ---: |\n| another text | hard | 3 |"
    )


def test_other_events_have_no_reasons():
    assert not count_bounce_reasons(pa.table({"event_id": ["1"]}))
