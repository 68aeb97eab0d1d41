"""Test the planner over days in every state."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from np6_assets.partitions import parse_day
from np6_assets.refresh import planner

TODAY = date(2026, 3, 31)
NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ASSETS = ("hits", "optouts")


def build_state(day: date, *until: datetime | None) -> planner.DayWatermarks:
    return planner.DayWatermarks(parse_day(str(day), "UTC"), dict(zip(ASSETS, until, strict=True)))


def build_closed(day: date) -> planner.DayWatermarks:
    end = parse_day(str(day), "UTC").end
    return build_state(day, end, end)


def build_missing(day: date) -> planner.DayWatermarks:
    return build_state(day, None, None)


def days_ago(number: int) -> date:
    return TODAY - timedelta(days=number)


@settings(max_examples=50)
@given(
    st.sets(st.integers(0, 400)), st.integers(0, 4), st.lists(st.sampled_from(["it has ended", "hits were published"]))
)
def test_plan_is_bounded_and_has_only_days_with_a_reason(numbers: set[int], active: int, causes: list[str]):
    reasons = {
        str(days_ago(number)): (causes or ["it has ended"])[number % max(len(causes), 1)] for number in sorted(numbers)
    }
    runs = planner.plan_runs(reasons, active, today=TODAY)
    assert len(runs) <= max(planner.MOST_ACTIVE_RUNS - active, 0)
    days = [
        str(date.fromisoformat(run.first) + timedelta(days=ahead))
        for run in runs
        for ahead in range((date.fromisoformat(run.last) - date.fromisoformat(run.first)).days + 1)
    ]
    assert len(days) == len(set(days)) <= planner.DAYS_PER_RUN * planner.MOST_ACTIVE_RUNS
    assert set(days) <= set(reasons)
    # the newest day comes first, so that an old day that cannot be fetched holds nothing up
    assert bool(runs) == bool(reasons and active < planner.MOST_ACTIVE_RUNS)
    assert not runs or runs[0].last == max(reasons)
    for run in runs:
        assert all(reasons[day] in run.reason for day in days if run.first <= day <= run.last)


@given(st.sets(st.integers(1, 300)))
@settings(max_examples=20)
def test_plans_include_every_missing_day(numbers: set[int]):
    left, memory = set(map(days_ago, numbers)), planner.Memory(closed_through=days_ago(301))
    for _ in range(2 * len(numbers) + 300 // planner.NEW_DAYS_PER_TICK + 2):
        states = [
            build_missing(day) if day in left else build_closed(day)
            for day in planner.select_days_to_read(memory, TODAY)
        ]
        memory = planner.update_memory(memory, states, NOW, HOUR)
        open_days = {one.day.key: "" for one in states if not one.is_closed and one.day.date < TODAY}
        for run in planner.plan_runs(open_days, 0, today=TODAY):
            left -= {day for day in left if run.first <= str(day) <= run.last}
    assert not left
    assert memory.closed_through == days_ago(1)
    assert memory.still_open == ()


def test_failed_attempts_back_off():
    memory, moment, day_state = planner.Memory(closed_through=days_ago(1)), NOW, build_missing(days_ago(1))
    pauses = []
    for _ in range(8):
        memory = planner.record_attempts(
            memory, [planner.PlannedRun(str(days_ago(1)), str(days_ago(1)), "")], [day_state], moment
        )
        attempt = memory.attempts[str(days_ago(1))]["hits"]
        pauses.append(attempt.next_at - moment)
        assert planner.select_backing_off(memory, [str(days_ago(1))], attempt.next_at - timedelta(seconds=1))
        assert not planner.select_backing_off(memory, [str(days_ago(1))], attempt.next_at)
        moment = attempt.next_at
    minutes = [pause.total_seconds() / 60 for pause in pauses]
    assert minutes == [1, 4, 16, 64, 256, 360, 360, 360]


def test_attempts_are_counted_by_asset_until_its_watermark_moves():
    run = planner.PlannedRun(str(TODAY), str(TODAY), "")
    before_fetch = build_state(TODAY, NOW - HOUR, NOW - 2 * HOUR)
    memory = planner.record_attempts(planner.Memory(closed_through=days_ago(1)), [run], [before_fetch], NOW)
    assert set(memory.attempts[str(TODAY)]) == set(ASSETS)
    half_fetched = build_state(TODAY, NOW, NOW - 2 * HOUR)
    updated = planner.update_memory(memory, [half_fetched], NOW, HOUR)
    assert updated.attempts == {str(TODAY): {"optouts": memory.attempts[str(TODAY)]["optouts"]}}
    again = planner.record_attempts(
        updated, [planner.PlannedRun(str(TODAY), str(TODAY), "", frozenset({"optouts"}))], [half_fetched], NOW
    )
    assert {asset: attempt.count for asset, attempt in again.attempts[str(TODAY)].items()} == {"optouts": 2}
    assert planner.update_memory(again, [build_state(TODAY, NOW, NOW)], NOW, HOUR).attempts == {}


def test_memory_keeps_days_that_were_not_read_in_time():
    attempts = {str(days_ago(9)): {"hits": planner.Attempt(2, NOW, "")}}
    memory = planner.Memory(closed_through=days_ago(4), still_open=(days_ago(9),), attempts=attempts)
    updated = planner.update_memory(
        memory,
        [build_closed(days_ago(3)), build_missing(TODAY)],
        NOW,
        HOUR,
        {str(days_ago(9)), str(days_ago(2)), str(days_ago(1))},
    )
    assert updated == planner.Memory(closed_through=days_ago(3), still_open=(days_ago(9),), attempts=attempts)


@pytest.mark.parametrize(
    "cursor",
    [
        *(None, "", "0", "[]", "{", '"text"', '{"other": 1}', '{"closed_through": "soon"}', '{"still_open": 3}'),
        *(
            '{"attempts": {"2026-03-30": {"hits": {}}}}',
            '{"attempts": {"2026-03-30": {"count": 1, "last_at": "x", "state": ""}}}',
        ),
        '{"attempts": {"2026-03-30": {"hits": {"count": 1, "last_at": "2026-03-30T12:00:00", "state": ""}}}}',
    ],
)
def test_memory_ignores_a_foreign_cursor(cursor: str | None):
    assert planner.Memory.read(cursor) == planner.Memory()
    attempts = {str(days_ago(9)): {"hits": planner.Attempt(2, NOW, "")}}
    memory = planner.Memory(days_ago(1), (days_ago(9),), attempts, 7, NOW, "Hm.", days_ago(20))
    assert planner.Memory.read(memory.write()) == memory
    assert json.loads(memory.write())["closed_through"] == "2026-03-30"


def test_summary_names_consecutive_days_together():
    backing_off = {str(days_ago(number)): {"hits": planner.Attempt(2, NOW, str(number))} for number in (5, 6, 7)}
    runs = [
        planner.PlannedRun(str(days_ago(1)), str(TODAY), "they have ended"),
        planner.PlannedRun(str(days_ago(3)), str(days_ago(2)), "they have ended", frozenset({"optouts", "hits"})),
    ]
    reasons = dict.fromkeys(map(str, map(days_ago, (0, 1, 2, 3, 12))), "they have ended")
    assert planner.summarize_tick(runs, reasons, {str(days_ago(9))}, backing_off, "") == (
        "Requested 2026-03-30 to 2026-03-31: they have ended. "
        "Requested hits, optouts of 2026-03-28 to 2026-03-29: they have ended. "
        "Not requested yet, as enough runs are in progress: 2026-03-19. "
        "Being fetched already: 2026-03-22. "
        "hits of 2026-03-24 to 2026-03-26: 2 failed attempts; the runs say why. "
        "Next attempt from 2026-03-31 12:04 UTC on."
    )
