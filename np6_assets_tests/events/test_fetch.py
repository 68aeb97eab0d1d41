"""Fetch days from a fake client whose answers come in parts of any size."""

from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest

from np6_assets.events import fanout
from np6_assets.events.fetch import Fetcher
from np6_assets.events.merge import EVENTS, QUARANTINE, merge_runs
from np6_assets.events.plan import DayBatch, DayPlan
from np6_assets.events.receive import FetchedDay
from np6_assets.np6.clock import ApiClock
from np6_assets.np6.errors import BadResponseError
from np6_assets.np6.request import Answer, Request
from np6_assets.np6.stream import Part
from np6_assets.partitions import parse_day
from np6_assets_tests.events.decoding import DAY, HOUR, KIND, NOON, build_body, build_decoder
from np6_assets_tests.support.builders import build_event, render

LATE = DAY[1] + HOUR
PLANS = [DayPlan(day, day.start) for day in (parse_day("2026-03-20", "UTC"), parse_day("2026-03-21", "UTC"))]


def build_part(*elements: Any) -> Part:
    return Part.from_elements(build_body(elements)[1:-1], sum(isinstance(one, dict | list) for one in elements))


class FakeClient:
    """Answers each notification's request with some parts."""

    def __init__(self, *answers: Callable[[Any], None]) -> None:
        self.answers = answers
        self.clock = ApiClock(print)

    def fetch_all(self, requests: Iterable[tuple[Request, Callable[[], Any]]]) -> Generator[list[Answer[Any]]]:
        for number, (request, open_receiver) in enumerate(requests):
            receiver = open_receiver()
            self.answers[number % len(self.answers)](receiver)
            yield [Answer(request, receiver)]


class FakeStore:
    """Lists all notifications; nothing is stored."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = list(ids)

    def read_ids(self, batch: DayBatch) -> fanout.KnownIds:
        return fanout.KnownIds(self.ids)


def fetch_days(*answers: Callable[[Any], None], kind: str = "activations", days: int = 2) -> list[FetchedDay]:
    client: Any = FakeClient(*answers)
    store: Any = FakeStore(range(len(answers))) if kind == "activations" else None
    fetcher = Fetcher(KIND[kind], client, build_decoder(kind), lambda: datetime(2026, 3, 25, tzinfo=UTC), store)
    return list(fetcher.fetch_days(PLANS[:days]))


def read_day(day: FetchedDay) -> tuple[list[str], list[str]]:
    """Return ids, and texts of rejected events."""
    span = (day.plan.day.start_ms, day.plan.day.end_ms)
    ids = [id_ for rows in merge_runs(day.events.runs, EVENTS, span) for id_ in rows.column("event_id").to_pylist()]
    rejected = [row for rows in merge_runs(day.events.rejected, QUARANTINE) for row in rows.to_pylist()]
    return ids, sorted(row["event"] for row in rejected if span[0] <= row["placed"] < span[1])


def build_send(id_: str, time: int) -> dict[str, Any]:
    return build_event("activations", id=id_, timestamp=time)


def answer_parts(*parts: Part) -> Callable[[Any], None]:
    def answer(receiver: Any) -> None:
        for one in parts:
            receiver.add(one)
        receiver.finish()

    return answer


@pytest.mark.parametrize("sizes", [[4], [3, 1], [1, 1, 1, 1]], ids=str)
def test_untimed_event_has_the_same_day_in_parts_of_any_size(sizes: list[int]):
    elements = iter([build_send("a", NOON), build_send("b", NOON + 1), {"timestamp": LATE, "no": "id"}, {"untimed": 1}])
    parts = [build_part(*islice(elements, size)) for size in sizes]
    days = fetch_days(answer_parts(*parts), answer_parts(build_part(build_send("c", NOON))))
    (ids, rejected), (_, later) = map(read_day, days)
    assert (sorted(ids), rejected) == (["a", "b", "c"], [])
    assert later == [render({"timestamp": LATE, "no": "id"}), '{"untimed":1}']


@pytest.mark.parametrize("more", [[], ["not an object"]])
def test_untimed_event_has_the_day_of_its_answer_in_a_shared_part(more: list[str]):
    one = build_part(build_send("a", NOON), {"a": 1}, *more, build_send("b", LATE), {"a": 2})
    other = build_part({"a": 3}, build_send("c", LATE), {"a": 4})
    days = fetch_days(answer_parts(one), answer_parts(other), answer_parts(build_part({"a": 5})))
    (_, rejected), (_, later) = map(read_day, days)
    assert [text for text in rejected if text[0] == "{"] == ['{"a":1}', '{"a":3}', '{"a":5}']
    assert later == ['{"a":2}', '{"a":4}']


def test_untimed_event_has_the_day_of_its_answer_in_a_small_last_part():
    large = build_part(*(build_send(f"{number:05}", LATE + number) for number in range(1500)))
    assert large.size > 2**20
    small = build_part({"untimed": 1})
    days = fetch_days(answer_parts(large, small), answer_parts(build_part(build_send("c", NOON))))
    (_, rejected), (_, later) = map(read_day, days)
    assert (rejected, later) == ([], ['{"untimed":1}'])


@pytest.mark.parametrize("kind", ["hits", "activations"])
@pytest.mark.parametrize(("next_time", "is_refused"), [(9, False), (5, True)])
def test_receiver_refuses_a_resumed_answer_out_of_order(kind: str, next_time: int, is_refused: bool):
    refused = []

    def answer(receiver: Any) -> None:
        receiver.add(build_part(*(build_event(kind, id=f"{number}", timestamp=NOON + number) for number in range(10))))
        assert receiver.resume_from() == (NOON, NOON + 9)
        receiver.add(build_part(build_event(kind, id="c", timestamp=NOON + next_time)))
        try:
            receiver.finish()
        except BadResponseError as error:
            refused.append(error)

    [day] = fetch_days(answer, kind=kind, days=1)
    assert sorted(read_day(day)[0]) == [*"0123456789", "c"]
    assert bool(refused) is is_refused


def test_fetched_day_has_the_counts_of_its_own_events():
    unreadable = build_event("activations", id="c", timestamp=LATE, urgent="maybe")
    elements = [build_send("b", LATE) | {"novelty": 1}, unreadable, build_send("d", PLANS[1].day.end_ms)]
    parts = build_part(build_send("a", NOON), *elements), build_part(build_send("e", NOON))
    days = fetch_days(*map(answer_parts, parts))
    counts = [(day.plan, day.received, day.outside_window, day.unknown_fields, day.unreadable_values) for day in days]
    assert counts == [(PLANS[0], 2, 1, [], {}), (PLANS[1], 2, 0, ["novelty"], {"urgent": 1})]
