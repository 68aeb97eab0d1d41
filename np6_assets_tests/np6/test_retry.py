"""Compute waits: as requested, or exponential backoff with jitter, up to a limit."""

import email.utils
from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from np6_assets.np6.retry import RetryPolicy, parse_http_date, read_requested_wait, read_reset

NOW = datetime(2026, 3, 20, 12, 0, 0, tzinfo=UTC)
EPOCH = 1_774_008_000  # NOW, in seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "Fri, 20 Mar 2026 12:01:30 GMT"}, 90),
        ({"Retry-After": "Friday, 20-Mar-26 12:01:30 GMT"}, 90),  # RFC 9110, 5.6.7: the two obsolete forms
        ({"Retry-After": "Fri Mar 20 12:01:30 2026"}, 90),
        ({"Retry-After": "Fri, 20 Mar 2026 11:00:00 GMT"}, 0),  # past
        ({"X-RateLimit-Reset": str(EPOCH + 45)}, 45),
        ({"X-RateLimit-Reset": str((EPOCH + 45) * 1000 + 250)}, 45.25),
        ({"X-RateLimit-Reset": "45"}, 45),
        ({"X-RateLimit-Reset": "0"}, 0),
        ({"X-RateLimit-Reset": str(EPOCH - 45)}, 0),  # past
        ({"X-RateLimit-Reset": str((EPOCH - 45) * 1000)}, 0),
        ({"X-RateLimit-Reset": "1.5"}, 1.5),
        ({"X-RateLimit-Reset": "soon"}, None),
        ({"Retry-After": "17", "X-RateLimit-Reset": "45"}, 17),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "45"}, 45),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "Fri, 20 Mar 2026 12:01:30 +99999999999999999999"}, None),
    ],
)
def test_requested_wait_is_read_in_every_form(headers, seconds):
    assert NOW.timestamp() == EPOCH
    assert read_requested_wait(httpx.Headers(headers), NOW) == seconds


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (str(EPOCH * 1000 + 1500), ("epoch milliseconds", 1.5)),
        (str(EPOCH + 3), ("epoch seconds", 3)),
        ("3", ("seconds to wait", 3)),
        ("", None),
        ("never", None),
    ],
)
def test_reset_unit_is_detected_by_size(text, found):
    assert read_reset(text, NOW) == found


def test_http_date_has_a_zone():
    assert parse_http_date("Fri, 20 Mar 2026 12:00:00 GMT") == NOW
    assert parse_http_date("Fri Mar 20 12:00:00 2026") == NOW
    assert parse_http_date("Fri, 20 Mar 2026 14:00:00 +0200") == NOW.astimezone(timezone(timedelta(hours=2)))
    assert parse_http_date("2026-03-20T12:00:00Z") is None
    assert parse_http_date("") is None


HEADER_TEXTS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"-?\d{1,25}(\.\d{1,12})?", fullmatch=True),
    st.datetimes(timezones=st.just(UTC)).map(email.utils.format_datetime),
    st.from_regex(r"Fri, \d{1,3} Mar \d{1,6} \d\d:\d\d:\d\d [+-]\d{1,30}", fullmatch=True),
)


@given(HEADER_TEXTS | st.none(), HEADER_TEXTS | st.none())
@settings(max_examples=15, deadline=None)
def test_requested_wait_accepts_any_header(after, reset):
    headers = {"Retry-After": after, "X-RateLimit-Reset": reset}
    sent = [(name.encode(), text.encode()) for name, text in headers.items() if text is not None]
    seconds = read_requested_wait(httpx.Headers(sent), NOW)
    assert seconds is None or seconds >= 0
    assert 0 <= RetryPolicy().compute_wait(1, seconds, 0.5) <= 120


def test_retry_doubles_its_waits_with_jitter_up_to_the_longest():
    retry = RetryPolicy(retries=8, backoff=0.5, longest_wait=20)
    assert [retry.compute_wait(failures, None, 1.0) for failures in range(1, 8)] == [0.5, 1, 2, 4, 8, 16, 20]
    assert [retry.compute_wait(failures, None, 0.0) for failures in (1, 5, 100_000)] == [0, 0, 0]
    assert retry.compute_wait(100_000, None, 1.0) == 20
    assert retry.compute_wait(3, None, 0.25) == 0.5


def test_retry_waits_at_least_the_requested_and_at_most_the_longest_wait():
    retry = RetryPolicy(retries=8, backoff=0.5, longest_wait=20)
    assert retry.compute_wait(1, 7, 1.0) == 7
    assert retry.compute_wait(6, 7, 1.0) == 16
    assert retry.compute_wait(1, 3600, 0.0) == 20
