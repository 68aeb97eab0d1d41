"""Compute waits: as requested, or exponential backoff with jitter, up to a limit."""

from datetime import UTC, datetime

import httpx
import pytest

from np6_assets.np6.retry import RetryPolicy, read_requested_wait, read_reset

NOW = datetime(2026, 3, 20, 12, 0, 0, tzinfo=UTC)
EPOCH = 1_774_008_000  # NOW, in seconds


@pytest.mark.parametrize(
    ("after", "reset", "seconds"),
    [
        ("", "", None),
        ("17", "", 17),
        (" 0 ", "", 0),
        ("Fri, 20 Mar 2026 12:01:30 GMT", "", 90),
        ("Fri, 20 Mar 2026 14:01:30 +0200", "", 90),
        ("Friday, 20-Mar-26 12:01:30 GMT", "", 90),  # RFC 9110, 5.6.7: the two obsolete forms
        ("Fri Mar 20 12:01:30 2026", "", 90),
        ("Fri, 20 Mar 2026 11:00:00 GMT", "", 0),  # past
        ("", str(EPOCH + 45), 45),
        ("", str((EPOCH + 45) * 1000 + 250), 45.25),
        ("", "45", 45),
        ("", "0", 0),
        ("", str(EPOCH - 45), 0),  # past
        ("", str((EPOCH - 45) * 1000), 0),
        ("", "1.5", 1.5),
        ("17", "45", 17),
        ("soon", "45", 45),
        # not a wait, in whatever way
        *((text, "", None) for text in ("soon", "-3", "1e3", "2026-03-20T12:00:00Z", "9" * 30, "\xff\x80")),
        ("Fri, 20 Mar 2026 12:01:30 +99999999999999999999", "", None),
        ("Fri, 99 Mar 99999 12:01:30 GMT", "soon", None),
    ],
)
def test_requested_wait_is_read_in_every_form(after, reset, seconds):
    assert NOW.timestamp() == EPOCH
    headers = [(b"Retry-After", after.encode()), (b"X-RateLimit-Reset", reset.encode())]
    assert read_requested_wait(httpx.Headers(headers), NOW) == seconds


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (str(EPOCH * 1000 + 1500), ("epoch milliseconds", 1.5)),
        (str(EPOCH + 3), ("epoch seconds", 3)),
        ("3", ("seconds to wait", 3)),
        ("never", None),
    ],
)
def test_reset_unit_is_detected_by_size(text, found):
    assert read_reset(text, NOW) == found


def test_retry_doubles_its_waits_with_jitter_up_to_the_longest():
    retry = RetryPolicy(retries=8, backoff=0.5, longest_wait=20)
    assert [retry.compute_wait(failures, None, 1.0) for failures in range(1, 8)] == [0.5, 1, 2, 4, 8, 16, 20]
    assert [retry.compute_wait(failures, None, 0.0) for failures in (1, 5, 100_000)] == [0, 0, 0]
    assert retry.compute_wait(100_000, None, 1.0) == 20
    assert retry.compute_wait(3, None, 0.25) == 0.5
    # at least the requested wait, and at most the longest
    assert [retry.compute_wait(failures, 7, 1.0) for failures in (1, 6)] == [7, 16]
    assert retry.compute_wait(1, 3600, 0.0) == 20
