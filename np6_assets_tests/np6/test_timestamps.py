"""Detect the unit of a time by its size."""

import pytest

from np6_assets.np6.timestamps import to_milliseconds

MS = 1_774_008_000_123  # 2026-03-20T12:00:00.123Z


@pytest.mark.parametrize(
    ("number", "milliseconds"),
    [
        *[(-(10**20), None), (-1, None), (0, None)],
        *[(1, 1000), (10**11 - 1, 99_999_999_999_000)],
        *[(10**11, 10**11), (10**14 - 1, 10**14 - 1)],
        *[(10**14, 10**11), (10**14 + 999, 10**11), (10**17 - 1, 10**14 - 1)],
        *[(10**17, 10**11), (10**17 + 999_999, 10**11), (10**17 + 1_000_000, 10**11 + 1)],
        *[(MS // 1000, MS - 123), (MS, MS), (MS * 1000 + 999, MS), (MS * 10**6 + 999_999, MS)],
    ],
)
def test_time_unit_is_detected_by_size(number, milliseconds):
    assert to_milliseconds(number) == milliseconds
