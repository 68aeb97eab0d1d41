"""Which days are asked for: the decision alone, over days that are stored in every state."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from np6_assets.partitions import day_of
from np6_assets.refresh import news

TODAY = date(2026, 3, 31)
NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ASSETS = ("hits", "optouts")


def stored(day: date, *until: datetime | None) -> news.Stored:
    return news.Stored(day_of(str(day), "UTC"), dict(zip(ASSETS, until, strict=True)))


def closed(day: date) -> news.Stored:
    end = day_of(str(day), "UTC").end
    return stored(day, end, end)


def missing(day: date) -> news.Stored:
    return stored(day, None, None)


def before(number: int) -> date:
    return TODAY - timedelta(days=number)


def test_a_day_is_closed_when_all_assets_are():
    end = day_of(str(TODAY), "UTC").end
    assert stored(TODAY, end, end).is_closed
    assert not stored(TODAY, end, end - timedelta(milliseconds=1)).is_closed
    assert not stored(TODAY, end, None).is_closed


def test_every_day_since_the_last_closed_one_is_looked_at_some_at_a_time():
    memory = news.Memory(closed_through=str(before(100)), still_open=(str(before(200)),))
    first = news.days_to_look_at(memory, TODAY)
    assert first == [before(200), *(before(99 - ahead) for ahead in range(news.DAYS_PER_TICK)), before(1), TODAY]
    looked = news.looked_at(memory, [closed(before(200)), *map(missing, first[1:])], NOW, HOUR)
    rest = news.days_to_look_at(looked, TODAY)
    assert set(first) | set(rest) == {before(200), *map(before, range(100))}
    assert before(200) not in rest


def test_nothing_but_today_is_looked_at_once_all_is_closed():
    memory = news.looked_at(news.Memory(closed_through=str(before(2))), [closed(before(1)), missing(TODAY)], NOW, HOUR)
    assert memory.closed_through == str(before(1))
    assert news.days_to_look_at(memory, TODAY) == [TODAY]


def test_yesterday_is_open_for_as_long_as_the_overlap():
    memory = news.Memory(closed_through=str(before(2)))
    midnight = day_of(str(before(1)), "UTC").end
    for moment, through in ((midnight + HOUR / 2, before(2)), (midnight + HOUR, before(1))):
        looked = news.looked_at(memory, [missing(before(1)), missing(TODAY)], moment, HOUR)
        assert looked.closed_through == str(through)
        assert news.days_to_look_at(looked, TODAY) == [before(1), TODAY]


@given(
    st.sets(st.integers(0, 400)), st.integers(0, 4), st.lists(st.sampled_from(["it has ended", "hits were published"]))
)
def test_runs_are_bounded_and_hold_the_days_that_need_them_and_no_others(
    numbers: set[int], under_way: int, causes: list[str]
):
    reasons = {
        str(before(number)): (causes or ["it has ended"])[number % max(len(causes), 1)] for number in sorted(numbers)
    }
    made = news.asks(reasons, under_way, today=TODAY)
    assert len(made) <= max(news.RUNS_UNDER_WAY - under_way, 0)
    days = [
        str(date.fromisoformat(ask.first) + timedelta(days=ahead))
        for ask in made
        for ahead in range((date.fromisoformat(ask.last) - date.fromisoformat(ask.first)).days + 1)
    ]
    assert len(days) == len(set(days)) <= news.DAYS_PER_RUN * news.RUNS_UNDER_WAY
    assert set(days) <= set(reasons)
    # the newest day comes first, so that an old day that cannot be fetched holds nothing up
    assert bool(made) == bool(reasons and under_way < news.RUNS_UNDER_WAY)
    assert not made or made[0].last == max(reasons)
    for ask in made:
        assert all(reasons[day] in ask.why for day in days if ask.first <= day <= ask.last)


@given(st.sets(st.integers(1, 300)))
def test_whatever_is_missing_is_asked_for_in_the_end(numbers: set[int]):
    left, memory = set(map(before, numbers)), news.Memory(closed_through=str(before(301)))
    for _ in range(2 * len(numbers) + 300 // news.DAYS_PER_TICK + 2):
        looked = [missing(day) if day in left else closed(day) for day in news.days_to_look_at(memory, TODAY)]
        memory = news.looked_at(memory, looked, NOW, HOUR)
        open_days = {one.day.key: "" for one in looked if not one.is_closed and one.day.date < TODAY}
        for ask in news.asks(open_days, 0, today=TODAY):
            left -= {day for day in left if ask.first <= str(day) <= ask.last}
    assert not left
    assert memory.closed_through == str(before(1))
    assert memory.still_open == ()


def test_a_day_that_is_asked_for_in_vain_is_asked_for_ever_more_rarely():
    memory, moment, one = news.Memory(closed_through=str(before(1))), NOW, missing(before(1))
    pauses = []
    for _ in range(8):
        memory = news.asked(memory, [news.Ask(str(before(1)), str(before(1)), "")], [one], moment)
        tried = memory.tries[str(before(1))]["hits"]
        pauses.append(tried.next_at - moment)
        assert news.waiting(memory, [str(before(1))], tried.next_at - timedelta(seconds=1))
        assert not news.waiting(memory, [str(before(1))], tried.next_at)
        moment = tried.next_at
    minutes = [pause.total_seconds() / 60 for pause in pauses]
    assert minutes == [1, 4, 16, 64, 256, 360, 360, 360]


def test_tries_are_counted_by_asset_until_it_gets_on():
    ask = news.Ask(str(TODAY), str(TODAY), "")
    one = stored(TODAY, NOW - HOUR, NOW - 2 * HOUR)
    memory = news.asked(news.Memory(closed_through=str(before(1))), [ask], [one], NOW)
    assert set(memory.tries[str(TODAY)]) == set(ASSETS)
    half = stored(TODAY, NOW, NOW - 2 * HOUR)
    looked = news.looked_at(memory, [half], NOW, HOUR)
    assert looked.tries == {str(TODAY): {"optouts": memory.tries[str(TODAY)]["optouts"]}}
    again = news.asked(looked, [news.Ask(str(TODAY), str(TODAY), "", frozenset({"optouts"}))], [half], NOW)
    assert {asset: tried.times for asset, tried in again.tries[str(TODAY)].items()} == {"optouts": 2}
    assert news.looked_at(again, [stored(TODAY, NOW, NOW)], NOW, HOUR).tries == {}


def test_days_that_could_not_be_looked_at_in_time_are_kept():
    tries = {str(before(9)): {"hits": news.Try(2, NOW.isoformat(), "")}}
    memory = news.Memory(closed_through=str(before(4)), still_open=(str(before(9)),), tries=tries)
    looked = news.looked_at(
        memory, [closed(before(3)), missing(TODAY)], NOW, HOUR, {str(before(9)), str(before(2)), str(before(1))}
    )
    assert looked == news.Memory(closed_through=str(before(3)), still_open=(str(before(9)),), tries=tries)


def test_days_of_other_assets_are_another_run():
    reasons = dict.fromkeys(map(str, map(before, range(4))), "it has ended")
    some = {str(before(1)): frozenset({"hits"}), str(before(2)): frozenset({"hits"})}
    made = news.asks(reasons, 0, assets=some)
    assert [(ask.first, ask.last, ask.assets) for ask in made] == [
        (str(TODAY), str(TODAY), None),
        (str(before(2)), str(before(1)), frozenset({"hits"})),
    ]


def test_the_memory_is_json_that_a_person_can_read():
    tries = {str(before(9)): {"hits": news.Try(2, NOW.isoformat(), "")}}
    memory = news.Memory(str(before(1)), (str(before(9)),), tries, 7, "Hm.")
    assert news.Memory.read(memory.write()) == memory
    assert json.loads(memory.write())["closed_through"] == "2026-03-30"


@pytest.mark.parametrize(
    "cursor",
    [
        *(None, "", "0", "[]", "{", '"text"', '{"other": 1}', '{"closed_through": "soon"}', '{"still_open": 3}'),
        *(
            '{"tries": {"2026-03-30": {"hits": {}}}}',
            '{"tries": {"2026-03-30": {"times": 1, "at": "x", "progress": ""}}}',
        ),
        '{"tries": {"2026-03-30": {"hits": {"times": 1, "at": "2026-03-30T12:00:00", "progress": ""}}}}',
    ],
)
def test_a_cursor_that_is_not_of_this_sensor_is_as_none(cursor: str | None):
    assert news.Memory.read(cursor) == news.Memory()


def test_the_words_name_days_together():
    held = {str(before(number)): {"hits": news.Try(2, NOW.isoformat(), str(number))} for number in (5, 6, 7)}
    made = [
        news.Ask(str(before(1)), str(TODAY), "they have ended"),
        news.Ask(str(before(3)), str(before(2)), "they have ended", frozenset({"optouts", "hits"})),
    ]
    reasons = dict.fromkeys(map(str, map(before, (0, 1, 2, 3, 12))), "they have ended")
    assert news.words(made, reasons, {str(before(9))}, held, "") == (
        "Asked for 2026-03-30 to 2026-03-31: they have ended. "
        "Asked for hits, optouts of 2026-03-28 to 2026-03-29: they have ended. "
        "Not asked for yet, as enough runs are under way: 2026-03-19. "
        "Being fetched already: 2026-03-22. "
        "hits of 2026-03-24 to 2026-03-26: asked for 2 times and not there; the runs say why. "
        "Asked for again from 2026-03-31 12:04 UTC on."
    )
