"""Find unknown fields in a sample of each part's events, by path and day."""

import io
from typing import Any

import pytest

from np6_assets.events.decode import DecodedEvents
from np6_assets.events.plan import DayPlan
from np6_assets.events.receive import FetchedDay
from np6_assets.events.unknown_fields import SLICE_BYTES, SLICES, sample_events
from np6_assets.np6.stream import Part
from np6_assets.partitions import parse_day
from np6_assets_tests.events.decoding import ALL_TIME, DAY, NOON, build_body, build_hit, decode_body
from np6_assets_tests.support.builders import Event, build_event
from np6_assets_tests.support.oracle import expect_rows
from np6_assets_tests.support.poison import build_poison


def add_unknown_field(event: Event, name: str = "novelty", value: Any = 1) -> Event:
    event["source"]["detail"][name] = value
    return event


def test_unknown_fields_are_reported_by_path_and_cost_no_events():
    event = build_hit("e", receiver_value={"id": "a", "phone": "+33"})
    event["novelty"] = {"id": [1, {"deep": None}]}
    event["identity"]["set"] = 3
    detail = event["source"]["detail"]
    detail["optout"] = {"type": "channel"}
    detail["activation"]["stamp"]["sets"] = []
    detail["link"][""] = None
    detail["link"]["a.b \x00 é"] = None
    result = decode_body("hits", [build_hit("plain"), event])
    assert result.unknown == {
        (0, "novelty"),
        (0, "identity.set"),
        (0, "source.detail.optout"),
        (0, "source.detail.activation.stamp.sets"),
        (0, "source.detail.activation.receiver.value.phone"),
        (0, "source.detail.link."),
        (0, "source.detail.link.*"),
    }
    assert result.rows == expect_rows("hits", [event, build_hit("plain")], *ALL_TIME, "keep")


def test_unknown_fields_hide_names_that_are_data():
    for name in (
        *("zoe@example.com", "zoe.martin", "+33612345678", "0612345678", "id-33612345678", "Zoé Martin", "a" * 41),
        *("d41d8cd98f00b204e9800998ecf8427e", "e" + "0a" * 12, "customer_key"),
    ):
        event = add_unknown_field(build_hit("e", unicity="customer_key"), name)
        event["source"][name] = {name: 1}
        assert decode_body("hits", [event]).unknown == {(0, "source.detail.*"), (0, "source.*")}, name


def test_unknown_fields_of_a_day_are_limited():
    found = DecodedEvents(unknown_fields={(0, f"field_{number:03}") for number in range(100)} | {(1, "other")})
    day = parse_day("2026-03-20", "UTC")
    plan = DayPlan(day, day.start)
    fields = FetchedDay(plan, day.end, found, 0).unknown_fields
    assert fields == [*(f"field_{number:03}" for number in range(24)), "and 76 more"]
    assert FetchedDay(plan, day.end, found, 1).unknown_fields == ["other"]


def test_documented_fields_of_any_shape_are_known():
    event = build_event(
        "bounces", id="e", timestamp=NOON, status={"code": 550}, channel={"name": "x"}, receiver_value="text"
    )
    event["source"]["detail"]["activation"]["stamp"]["set"] = {"any": "thing"}
    event["source"]["detail"]["bounce"]["analysis"]["subject"] = {"type": "token", "detail": {"type": "a"}}
    assert decode_body("bounces", [event, "text", {"source": 5}, {"source": {"detail": [1]}}]).unknown == set()


def test_unknown_fields_are_reported_for_their_day():
    later = DAY[1] + 3_600_000
    edges = (*DAY, DAY[1] + 86_400_000)
    times = {"first": NOON, "second": later, "seconds": later // 1000, "outside": edges[-1], "untimed": None}
    events = [add_unknown_field(build_hit(name, time), name) for name, time in times.items()]
    unknown = decode_body(
        "hits", [build_hit("plain"), *events, add_unknown_field(build_hit("", later), "rejected")], edges=edges
    ).unknown
    found = [(0, "first"), (1, "second"), (1, "rejected"), (1, "seconds")]
    assert unknown == {(number, f"source.detail.{name}") for number, name in found}


@pytest.mark.parametrize("begins", [0.5, 0.99])
def test_unknown_fields_are_found_anywhere_in_a_large_part(begins: float):
    events = [build_hit(number, timestamp=NOON + number) for number in range(4000)]
    first = int(begins * len(events))
    events[first:] = [add_unknown_field(one) for one in events[first:]]
    body = build_body(events)
    assert len(body) > 4 * SLICES * SLICE_BYTES
    result = decode_body("hits", body)
    assert len(result.parts) == 1
    assert result.unknown == {(0, "source.detail.novelty")}


POISONS = (
    *("100,000 levels in an unknown field", "100,000 levels of lists in an unknown field", "field without quotes"),
    *("integer of 5,000 digits in an unknown field", "invalid UTF-8 in a text column"),
)


@pytest.mark.parametrize("name", POISONS)
def test_sample_passes_over_poison(name: str):
    [one] = build_poison("hits", 1, NOON, 156, [name])
    around = [add_unknown_field(build_hit("before"), "above"), one.raw, add_unknown_field(build_hit("after"), "below")]
    assert {(0, "source.detail.above"), (0, "source.detail.below")} <= decode_body("hits", around).unknown


class CountingFile(io.BytesIO):
    """A file that counts the bytes read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.count += len(found)
        return found


@pytest.mark.parametrize("name", ["event of 20 MiB in an unknown field", "100,000 levels in an unknown field"])
def test_sample_reads_little_of_a_large_event(name: str):
    [one] = build_poison("hits", 1, NOON, 156, [name])
    file = CountingFile(b"[%b]" % one.raw)
    assert list(sample_events(Part(file, len(file.getvalue()), 1))) == []
    assert 0 < file.count <= SLICES * SLICE_BYTES
