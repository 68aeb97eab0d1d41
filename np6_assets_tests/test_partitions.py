"""Days in every time zone, and the days that a cohort's window reaches forward to."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from np6_assets.partitions import daily, days_ahead, parse_day

ZONES = st.sampled_from(sorted(zone for zone in available_timezones() if zone[0].isupper() and zone != "Factory"))
DATES = st.dates(date(2020, 1, 1), date(2036, 12, 31))
MOMENT = timedelta(milliseconds=1)
HOUR = timedelta(hours=1)


def local_date(instant: datetime, timezone: str) -> str:
    return instant.astimezone(ZoneInfo(timezone)).date().isoformat()


@given(ZONES, DATES, st.integers(0, 999))
@example("Africa/Cairo", date(2026, 4, 24), 0)  # has no midnight
@example("America/Havana", date(2026, 11, 1), 50)  # has two
@example("America/Santiago", date(2026, 4, 4), 990)  # its last hour comes twice
@example("Antarctica/Troll", date(2026, 3, 29), 500)  # two hours at once
@example("Australia/Lord_Howe", date(2026, 4, 5), 990)  # half an hour
@example("Europe/Paris", date(2026, 10, 25), 990)
@settings(max_examples=200, deadline=None)
def test_day_has_the_instants_of_its_local_date(timezone, day, thousandths):
    found = parse_day(day.isoformat(), timezone)
    inside = found.start + (found.end - found.start) * thousandths / 1000
    assert {local_date(one, timezone) for one in (found.start, inside, found.end - MOMENT)} == {found.key}
    assert local_date(found.start - MOMENT, timezone) < found.key < local_date(found.end, timezone)
    assert (found.start.utcoffset(), found.end.utcoffset()) == (timedelta(0), timedelta(0))
    assert found.date == day


@pytest.mark.parametrize(
    ("timezone", "key", "start", "end"),
    [
        ("UTC", "2026-03-20", 1_773_964_800_000, 1_774_051_200_000),
        ("Europe/Paris", "2026-03-29", 1_774_738_800_000, 1_774_821_600_000),
        ("Asia/Kolkata", "2026-03-20", 1_773_945_000_000, 1_774_031_400_000),
    ],
)
def test_day_has_bounds_in_milliseconds(timezone, key, start, end):
    day = parse_day(key, timezone)
    assert (day.start_ms, day.end_ms) == (start, end)


# --- Dagster's partitions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Paris", "Australia/Lord_Howe", "America/Havana", "Asia/Kolkata"])
@pytest.mark.parametrize("key", ["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-25", "2026-11-01", "2026-07-14"])
def test_dagster_partition_is_the_same_day(timezone, key):
    window = daily(date(2026, 1, 1), timezone).time_window_for_partition_key(key)
    day = parse_day(key, timezone)
    assert (window.start.timestamp() * 1000, window.end.timestamp() * 1000) == (day.start_ms, day.end_ms)


@given(
    st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Pacific/Auckland", "Pacific/Pago_Pago"]),
    st.integers(24, 364 * 24).map(lambda hours: datetime(2026, 1, 1, tzinfo=UTC) + hours * HOUR),
)
@example("Europe/Paris", datetime(2026, 3, 28, 22, 59, 59, tzinfo=UTC))
@example("Europe/Paris", datetime(2026, 3, 28, 23, 0, tzinfo=UTC))
@settings(max_examples=60, deadline=None)
def test_today_is_the_last_partition(timezone, now):
    keys = daily(date(2026, 1, 1), timezone).get_partition_keys(now)
    today = date.fromisoformat(local_date(now, timezone))
    first = date(2026, 1, 1)
    assert keys == [(first + timedelta(days=number)).isoformat() for number in range((today - first).days + 1)]


@given(
    st.sampled_from(["UTC", "Europe/Paris", "Australia/Lord_Howe"]),
    st.integers(0, 60),
    st.integers(0, 5),
    st.integers(0, 14),
)
@example("Europe/Paris", 28, 2, 7)
@settings(max_examples=60, deadline=None)
def test_cohort_needs_its_day_and_the_days_after_it(timezone, day, more, window):
    cohorts = [(date(2026, 3, 1) + timedelta(days=day + number)) for number in range(more + 1)]
    assert map_cohorts(timezone, window, cohorts, now=datetime(2027, 1, 1, tzinfo=UTC)) == [
        (cohorts[0] + timedelta(days=number)).isoformat() for number in range(more + window + 1)
    ]


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Paris", "Pacific/Auckland"])
def test_mapping_leaves_out_future_days(timezone):
    now = datetime(2026, 3, 29, 10, tzinfo=UTC)
    today = date.fromisoformat(local_date(now, timezone))
    for ago in range(9):
        cohort = today - timedelta(days=ago)
        assert map_cohorts(timezone, 7, [cohort], now) == [
            (cohort + timedelta(days=number)).isoformat() for number in range(min(ago, 7) + 1)
        ]


def map_cohorts(timezone: str, window: int, cohorts: list[date], now: datetime) -> list[str]:
    """Map cohorts to the event days that they need, all of which exist."""
    partitions = daily(date(2026, 1, 1), timezone)
    result = days_ahead(window).get_upstream_mapped_partitions_result_for_partitions(
        partitions.subset_with_partition_keys([cohort.isoformat() for cohort in cohorts]),
        partitions,
        partitions,
        current_time=now,
    )
    assert result.required_but_nonexistent_partition_keys == []
    return list(result.partitions_subset.get_partition_keys())
