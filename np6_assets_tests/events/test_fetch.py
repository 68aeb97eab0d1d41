"""What a fetch makes of an answer's parts, however it is cut: the client's side is played by the test."""

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
from np6_assets_tests.events.decoding import DAY, HOUR, KIND, NOON, body_of, decoder
from np6_assets_tests.support.builders import build_event, render

LATE = DAY[1] + HOUR
PLANS = [DayPlan(day, day.start) for day in (parse_day("2026-03-20", "UTC"), parse_day("2026-03-21", "UTC"))]


def part(*elements: Any) -> Part:
    return Part.from_elements(body_of(elements)[1:-1], sum(isinstance(one, dict | list) for one in elements))


class Client:
    """Answers the request of each notification with some parts."""

    def __init__(self, *answers: Callable[[Any], None]) -> None:
        self.answers = answers
        self.clock = ApiClock(print)

    def fetch_all(self, requests: Iterable[tuple[Request, Callable[[], Any]]]) -> Generator[list[Answer[Any]]]:
        for number, (request, open_receiver) in enumerate(requests):
            receiver = open_receiver()
            self.answers[number % len(self.answers)](receiver)
            yield [Answer(request, receiver)]


class Known:
    """All notifications are listed; nothing is stored."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = list(ids)

    def read_ids(self, batch: DayBatch) -> fanout.KnownIds:
        return fanout.KnownIds(self.ids)


def fetch(
    *answers: Callable[[Any], None], kind: str = "activations", days: int = 2
) -> list[tuple[list[str], list[str]]]:
    """Ids and the texts of rejected events of each day."""
    client: Any = Client(*answers)
    known: Any = Known(range(len(answers))) if kind == "activations" else None
    fetcher = Fetcher(KIND[kind], client, decoder(kind), lambda: datetime(2026, 3, 25, tzinfo=UTC), known)
    return [contents(day) for day in fetcher.fetch_days(PLANS[:days])]


def contents(day: FetchedDay) -> tuple[list[str], list[str]]:
    span = (day.plan.day.start_ms, day.plan.day.end_ms)
    ids = [id_ for rows in merge_runs(day.events.runs, EVENTS, span) for id_ in rows.column("event_id").to_pylist()]
    rejected = [row for rows in merge_runs(day.events.rejected, QUARANTINE) for row in rows.to_pylist()]
    return ids, sorted(row["event"] for row in rejected if span[0] <= row["placed"] < span[1])


def sent(id_: str, time: int) -> dict[str, Any]:
    return build_event("activations", id=id_, timestamp=time)


def whole(*parts: Part) -> Callable[[Any], None]:
    def answer(receiver: Any) -> None:
        for one in parts:
            receiver.add(one)
        receiver.finish()

    return answer


@pytest.mark.parametrize("sizes", [[4], [2, 2], [3, 1], [1, 1, 1, 1]], ids=str)
def test_untimed_event_goes_to_the_same_day_however_the_answer_is_cut(sizes: list[int]):
    elements = iter([sent("a", NOON), sent("b", NOON + 1), {"timestamp": LATE, "no": "id"}, {"untimed": 1}])
    parts = [part(*islice(elements, size)) for size in sizes]
    (ids, rejected), (_, later) = fetch(whole(*parts), whole(part(sent("c", NOON))))
    assert (sorted(ids), rejected) == (["a", "b", "c"], [])
    assert later == [render({"timestamp": LATE, "no": "id"}), '{"untimed":1}']


@pytest.mark.parametrize("more", [[], ["not an object"]])
def test_untimed_event_keeps_to_its_answer_in_a_shared_part(more: list[str]):
    one = part(sent("a", NOON), {"a": 1}, *more, sent("b", LATE), {"a": 2})
    other = part({"a": 3}, sent("c", LATE), {"a": 4})
    (_, rejected), (_, later) = fetch(whole(one), whole(other), whole(part({"a": 5})))
    assert [text for text in rejected if text[0] == "{"] == ['{"a":1}', '{"a":3}', '{"a":5}']
    assert later == ['{"a":2}', '{"a":4}']


def test_untimed_event_keeps_to_its_answer_in_a_small_last_part():
    large = part(*(sent(f"{number:05}", LATE + number) for number in range(1500)))
    assert large.size > 2**20
    (_, rejected), (_, later) = fetch(whole(large, part({"untimed": 1})), whole(part(sent("c", NOON))))
    assert (rejected, later) == ([], ['{"untimed":1}'])


@pytest.mark.parametrize("kind", ["hits", "activations"])
@pytest.mark.parametrize(("joint", "is_refused"), [(9, False), (5, True)])
def test_resumed_answer_whose_order_breaks_at_the_joint_is_refused(kind: str, joint: int, is_refused: bool):
    refused = []

    def answer(receiver: Any) -> None:
        receiver.add(part(*(build_event(kind, id=f"{number}", timestamp=NOON + number) for number in range(10))))
        assert receiver.resume_from() == (NOON, NOON + 9)
        receiver.add(part(build_event(kind, id="c", timestamp=NOON + joint)))
        try:
            receiver.finish()
        except BadResponseError as error:
            refused.append(error)

    [(ids, _)] = fetch(answer, kind=kind, days=1)
    assert sorted(ids) == [*"0123456789", "c"]
    assert bool(refused) is is_refused


def test_facts_of_a_batch_belong_to_their_day():
    unreadable = build_event("activations", id="c", timestamp=LATE, urgent="maybe")
    elements = [sent("b", LATE) | {"novelty": 1}, unreadable, sent("d", PLANS[1].day.end_ms)]
    client: Any = Client(whole(part(sent("a", NOON), *elements)), whole(part(sent("e", NOON))))
    known: Any = Known(range(2))
    days = Fetcher(KIND["activations"], client, decoder("activations"), lambda: datetime.now(UTC), known).fetch_days(
        PLANS
    )
    told = [(day.plan, day.received, day.outside_window, day.unknown_fields, day.unreadable_values) for day in days]
    assert told == [(PLANS[0], 2, 1, [], {}), (PLANS[1], 2, 0, ["novelty"], {"urgent": 1})]
