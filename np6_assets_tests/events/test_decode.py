"""Decode parts, and compare rows, rejected events and unreadable values with the oracle."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from np6_assets.contact.policy import ContactMode, ContactPolicy
from np6_assets.contact.tombstones import Tombstones
from np6_assets.events.decode import Decoder
from np6_assets_tests.events.decoding import (
    ALL_TIME,
    DAY,
    HOUR,
    KIND,
    NOON,
    SECRET,
    WHOLE,
    Result,
    build_body,
    build_hit,
    decode_body,
)
from np6_assets_tests.support.builders import PATHS
from np6_assets_tests.support.events import TEXTS, build_event, build_poison, build_population, render, set_field
from np6_assets_tests.support.oracle import compute_event_key, count_unreadable, expect_rows, find_reason, list_columns
from np6_assets_tests.support.poison import FIELD, Poison, is_bulky, list_field_poison, read_field_elements
from np6_assets_tests.support.tables import canonicalize, read_types
from np6_assets_tests.support.variants import BadEvent, compare_quarantine

D = date(2026, 3, 20)


def expect_canonical_rows(kind: str, events: Iterable[Any], mode: str = "keep") -> list[dict[str, Any]]:
    return canonicalize(expect_rows(kind, events, *ALL_TIME, mode, SECRET))


def assert_decoded(kind: str, result: Result, elements: Iterable[Any], mode: str = "keep") -> None:
    """Assert that rows, unreadable values and rejected events are those of the oracle."""
    elements = list(elements)
    rejected = [one for one in elements if isinstance(one, BadEvent)]
    stored = [one for one in elements if not isinstance(one, BadEvent)]
    assert canonicalize(result.rows) == expect_canonical_rows(kind, stored, mode)
    assert compare_quarantine(result.keys, rejected) == []
    assert all(len(row["reason"]) > 8 and "\n" not in row["reason"] for row in result.rejected)
    if mode == "keep":
        texts = {row["event_key"]: row["event"] for row in result.rejected}
        assert all(
            json.loads(texts[compute_event_key(one.body)]) == one.event for one in rejected if one.event is not None
        )
    lost = sum((count_unreadable(kind, one) for one in stored), Counter())
    assert {column: count for (_, column), count in result.found.unreadable_values.items()} == dict(lost)


SAMPLE = """
    14d3d192-bd40-4c0b-9048-4469ab3a981c 1614089593000 156 DEMO 028 ecce4585-1627-4495-90fc-7bbc27d2ae26 application
    076db4f8-4304-4b8e-b232-4820f2639a8a 65b51edb-0cc2-4fed-a6d0-2aa5a722d39a d52055cd-e854-4177-8ef5-b10fd8d568a7
    a3078b19-b379-4bc2-b29a-e8229a9c9332 1614089592000 notification_channel True None contact 000R4M0T
    someone@example.com 16d113840f999444259f73bac9ab8b10
"""
OWN = {
    "hits": "redirection None deeplink://product?id=594",
    "optouts": "channel channel",
    "bounces": "None hard token unregistered",
}


@pytest.mark.parametrize("kind", KIND)
def test_decoder_reads_the_reference_event(kind: str):
    result = decode_body(kind, [build_event(kind, id=SAMPLE.split()[0], timestamp=1614089593000)])
    assert [str(value) for value in result.rows[0].values()] == (SAMPLE + OWN.get(kind, "")).split()
    assert (result.rejected, result.unknown) == ([], set())
    assert result.schema is not None
    assert read_types(result.schema) == list_columns(kind)
    assert [field.name for field in result.schema if not field.nullable] == ["event_id", "event_time", "activation_id"]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("hits", "drop"), ("optouts", "pseudonymize"), ("activations", "keep")),
        *(pytest.param(kind, "keep", marks=pytest.mark.slow) for kind in ("bounces", "impressions")),
    ],
)
def test_decoder_reads_a_population_as_the_oracle(kind: str, mode: ContactMode):
    options: dict[str, Any] = {"bad_event_days": [D], "poison_days": [D] if kind in OWN else [], "coerced_share": 0.3}
    population = build_population(11, D, 1, "Europe/Paris", lead_days=1, sends_per_day=9, **options)
    elements = [*population.feed(kind), *(one for one in population.bad_events if one.kind == kind)]
    rng = random.Random(f"{kind} {mode}")
    rng.shuffle(elements)
    body = build_body(elements, rng)
    whole = decode_body(kind, body, mode)
    assert len(whole.parts) == 1
    assert_decoded(kind, whole, elements, mode)
    if kind in ("activations", "bounces"):
        small = decode_body(kind, body, mode, part_bytes=20_000)
        assert len(small.parts) > 2
        assert (small.rows, small.found.unreadable_values) == (whole.rows, whole.found.unreadable_values)
        assert sorted(small.keys) == sorted(whole.keys)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "part_bytes"), [("hits", WHOLE), ("bounces", 2**14)])
def test_decoder_loses_at_most_the_poisonous_events(kind: str, part_bytes: int):
    poisons = [one for one in build_poison(kind, 2, NOON, 156) if part_bytes == WHOLE or not is_bulky(one.name)]
    good = [build_event(kind, id=f"good {number}", timestamp=NOON + 1000 * number) for number in range(len(poisons))]
    elements = [one for pair in zip(good, [one.raw for one in poisons], strict=True) for one in pair]
    result = decode_body(kind, elements, part_bytes=part_bytes)
    assert len(result.rows) + len(result.rejected) == len(elements)
    stored = [one.event for one in poisons if one.outcome == "stored"]
    certain = expect_canonical_rows(kind, [*good, *stored])
    ids = {row["event_id"] for row in certain}
    assert canonicalize(row for row in result.rows if row["event_id"] in ids) == certain
    rejected = [BadEvent(one.name, kind, 0, 156, None, one.raw) for one in poisons if one.outcome != "stored"]
    missing = {error.removesuffix(" is missing") for error in compare_quarantine(result.keys, rejected)}
    assert missing <= {one.name for one in poisons if one.outcome == "either"}


@pytest.mark.parametrize("name", ["invalid UTF-8 in a text column", "text in place of receiver", "repeated id"])
def test_decoder_loses_at_most_the_poisonous_event_of_a_large_part(name: str):
    good = [build_hit(f"good {number:04}", NOON + number) for number in range(1400)]
    [one] = build_poison("hits", 3, NOON, 156, [name])
    result = decode_body("hits", body := build_body([*good[:700], one.raw, *good[700:]]))
    assert len(result.parts) == 1
    assert len(body) > 2**20
    assert [row for row in result.rows if row["event_id"].startswith("good")] == expect_canonical_rows("hits", good)
    assert len(result.rows) + len(result.rejected) == len(good) + 1


@pytest.mark.parametrize("padding", range(4))
def test_decoder_loses_only_the_event_whose_text_an_error_quotes(padding: int):
    # DuckDB quotes the list in its error, and cuts it after some bytes
    wrong = build_hit("wrong", identity=["x" * padding + "🎉" * 200])
    result = decode_body("hits", [build_hit("a"), wrong, build_hit("b")])
    assert (result.ids, result.keys) == (["a", "b"], ["wrong"])


@pytest.mark.parametrize("one", list_field_poison(), ids=lambda one: one.name)
def test_decoder_loses_at_most_the_middle_event_of_a_production_body(one: Poison):
    first, middle, last = read_field_elements(one.name)
    neighbours = expect_canonical_rows("hits", [json.loads(first), json.loads(last)])
    result = decode_body("hits", [first, middle, last])
    assert [row for row in result.rows if row in neighbours] == neighbours
    stored = [row for row in result.rows if row not in neighbours]
    assert len(stored) + len(result.rejected) == 1
    assert one.outcome in ("stored" if stored else "rejected", "either")
    if one.event is not None and stored:
        assert canonicalize(stored) == expect_canonical_rows("hits", [one.event])
    if result.rejected:
        assert compare_quarantine(result.keys, [BadEvent(one.name, "hits", 0, 156, None, one.raw)]) == []


@pytest.mark.parametrize("path", sorted(FIELD.glob("[!p]*.json")), ids=lambda path: path.stem)
def test_decoder_reads_production_events_as_the_oracle(path: Any):
    feeds = json.loads(path.read_text())
    for kind in sorted(KIND.keys() & feeds.keys()):
        assert_decoded(kind, decode_body(kind, feeds[kind]), feeds[kind])


ODD_TEXTS = (
    *("\x00", "a\x00b", "\ufffe\uffff", "\U0010ffff", '{"a":1}', "[1]", "{}", '"x"', "true", "id", "156.0"),
    *("0001-01-01T00:00:00Z", "2026-04-30T06:30:00-05:30", "2026-04-30T12:00:00.1239999Z"),
    *("9999-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.500Z", "2026-02-30T00:00:00Z", "2026-04-30T25:00:00Z"),
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.sampled_from([0, 10**11, 10**14, 10**17, 2**63 - 1, 2**63, -(2**63)])
    | st.integers(-1000, 1000).map(lambda number: number / 2)
    | st.integers(-(2**66), 2**66).map(str)
    | st.sampled_from([*TEXTS, *ODD_TEXTS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "id", "detail", "x"]), inner),
    max_leaves=4,
)


@hypothesis_settings(max_examples=10, deadline=None)
@given(
    kind=st.sampled_from(list(KIND)),
    changes=st.lists(
        st.dictionaries(st.sampled_from([name for name in PATHS if name != "id"]), JSON_VALUES, max_size=3), max_size=12
    ),
    others=st.lists(JSON_VALUES, max_size=2),
    rng=st.randoms(use_true_random=False),
)
def test_decoder_reads_any_value_in_any_field_as_the_oracle(
    kind: str, changes: list[dict[str, Any]], others: list[Any], rng: random.Random
):
    events = list(others)
    for number, fields in enumerate(changes):
        events.append(build_event(kind, id=f"event {number}", timestamp=NOON + number))
        for name in sorted(fields, key=lambda name: len(PATHS[name])):
            set_field(events[-1], name, fields[name])
    rng.shuffle(events)
    # as bytes, by which a rejected event without an id is identified
    elements = [
        one if find_reason(kind, one) is None else BadEvent("", kind, 0, 0, one, render(one, rng).encode())
        for one in events
    ]
    assert_decoded(kind, decode_body(kind, elements, rng=rng), elements)


@pytest.mark.parametrize("column", ["id", "agency", "stamp_id", "link_type"])
def test_decoder_accepts_json_text_where_it_rejects_an_object(column: str):
    texts, wrong = ["[1]", "{}", '{"a":"b"}', "[", "{x"], [{"a": "b"}, [1], [], {}]
    events = [build_hit(number) for number in range(len(texts) + len(wrong))]
    for one, value in zip(events, texts + wrong, strict=True):
        set_field(one, column, value)
    result = decode_body("hits", events)
    assert canonicalize(result.rows) == expect_canonical_rows("hits", events[: len(texts)])
    assert len(result.rejected) == len(wrong)
    assert all(".".join(PATHS[column]) in row["reason"] for row in result.rejected)


TIMES = {1: 1000, 10**11 - 1: (10**11 - 1) * 1000, 10**11: 10**11, 10**14 - 1: 10**14 - 1, 10**14: 10**11}
TIMES |= {10**17 - 1: 10**14 - 1, 10**17: 10**11, 2**63 - 1: 9_223_372_036_854}


@pytest.mark.parametrize("written", [int, str])
def test_decoder_detects_the_unit_of_a_time(written: type):
    result = decode_body("hits", [build_hit(number, written(number), stamp_time=written(number)) for number in TIMES])
    assert {row["event_id"]: row["event_time"] for row in result.rows} == {f"{one}": ms for one, ms in TIMES.items()}
    assert all(row["activated_at"] == row["event_time"] for row in result.rows)
    none = [written(number) for number in (0, -1, -NOON)]
    result = decode_body(
        "hits", [*(build_hit(one, stamp_time=one) for one in none), *(build_hit(f"r{one}", one) for one in none)]
    )
    assert [row["activated_at"] for row in result.rows] == [None] * 3
    assert sorted(result.keys) == sorted(f"r{one}" for one in none)


TWO_DAYS = (DAY[0], DAY[1], DAY[1] + 24 * HOUR)


def test_decoder_drops_and_counts_events_outside_the_window():
    times = [DAY[0] - 1, DAY[0], DAY[1] - 1, DAY[1], TWO_DAYS[2] - 1, TWO_DAYS[2]]
    rejected = [build_hit("", time) for time in (DAY[0] - 1, TWO_DAYS[2], NOON)]
    result = decode_body("hits", [*(build_hit(time, time) for time in times), *rejected], edges=TWO_DAYS)
    assert [row["event_time"] for row in result.rows] == times[1:-1]
    assert result.found.outside_window == 4
    assert result.found.received == {0: 2, 1: 2}
    assert [row["placed"] for row in result.rejected] == [NOON]


def test_rejected_event_without_a_time_has_that_of_the_event_before():
    late = build_hit("", DAY[1] + 5)
    elements = ["a", build_hit(1), {}, 5, build_hit(2, NOON + 1), [], late, {"id": 7}]
    result = decode_body("hits", elements, edges=TWO_DAYS)
    assert {row["event"]: row["placed"] for row in result.rejected} == {
        '"a"': 0,  # the fetcher puts it on the first day
        "{}": NOON,
        "5": NOON,
        "[]": NOON + 1,
        render(late): DAY[1] + 5,
        '{"id":7}': DAY[1] + 5,
    }


def test_rejected_event_has_its_id_or_a_hash_as_key():
    texts = ['{"id":"x"}', '{"id":12}', '{"id":1.5}', '{ "id" : "" }', '{"id":true}', '{"id":null}', '{"id":["x"]}']
    elements = [text.encode() for text in [*texts, "{}", "{ }", '"x"', "nonsense"]]
    fast = decode_body("hits", elements[:9])
    assert sorted(fast.keys) == sorted(map(compute_event_key, elements[:9]))
    slow = decode_body("hits", [b" \n" + element + b"\t" for element in elements])
    assert sorted(slow.keys) == sorted(map(compute_event_key, elements))
    assert {"x", "12", "1.5"} <= set(slow.keys)
    assert len(set(slow.keys)) == len(elements)


@pytest.mark.parametrize("error", [duckdb.FatalException, duckdb.InternalException])
def test_decoder_reconnects_after_a_fatal_error(error: type[Exception]):
    class Broken:
        cursors = 0

        def cursor(self) -> Any:
            self.cursors += 1
            raise error("database has been invalidated")

    decoder = Decoder(KIND["hits"], ContactPolicy("keep"), Tombstones(b""))
    broken: Any = Broken()
    decoder._database = broken
    for _ in range(2):
        result = decode_body("hits", [build_hit(1), build_hit(2, agency=[]), build_hit(3)], decoder=decoder)
        assert (result.ids, result.keys) == (["1", "3"], ["2"])
    assert broken.cursors == 1


def test_decoder_reads_a_numeric_agency_as_text():
    """Not among the population's variants, as a folder would reject the events of another agency."""
    assert [row["agency"] for row in decode_body("hits", [build_hit("a", agency=28)]).rows] == ["28"]
