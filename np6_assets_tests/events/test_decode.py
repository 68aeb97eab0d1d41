"""Decoding a part, against the oracle: what becomes a row, what is rejected and why, what is null and counted."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
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
    between,
    body_of,
    decode,
    decoder,
    hit,
)
from np6_assets_tests.support.events import PATHS, TEXTS, build_event, build_poison, build_population, render, set_field
from np6_assets_tests.support.oracle import compute_event_key, count_unreadable, expect_rows, find_reason, list_columns
from np6_assets_tests.support.poison import FIELD, POISON, Poison, is_bulky, list_field_poison, read_field_elements
from np6_assets_tests.support.tables import canonicalize, read_types
from np6_assets_tests.support.variants import Misfit, compare_quarantine

D = date(2026, 3, 20)


def expected(kind: str, events: Iterable[Any], mode: str = "keep") -> list[dict[str, Any]]:
    return canonicalize(expect_rows(kind, events, *ALL_TIME, mode, SECRET))


def assert_decoded(kind: str, result: Result, elements: Iterable[Any], mode: str = "keep") -> None:
    """Assert that rows, unreadable values and rejected events are those of the oracle."""
    elements = list(elements)
    rejected = [one for one in elements if isinstance(one, Misfit)]
    stored = [one for one in elements if not isinstance(one, Misfit)]
    assert canonicalize(result.rows) == expected(kind, stored, mode)
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
def test_event_of_the_reference_becomes_the_row_of_the_contract(kind: str):
    result = decode(kind, [build_event(kind, id=SAMPLE.split()[0], timestamp=1614089593000)])
    assert [str(value) for value in result.rows[0].values()] == (SAMPLE + OWN.get(kind, "")).split()
    assert (result.rejected, result.unknown) == ([], set())
    assert result.schema is not None
    assert read_types(result.schema) == list_columns(kind)
    assert [field.name for field in result.schema if not field.nullable] == ["event_id", "event_time", "activation_id"]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        pytest.param(kind, mode, marks=pytest.mark.slow if kind == "bounces" else [])
        for kind, mode in zip(KIND, ("drop", "pseudonymize", "keep", "drop", "keep"), strict=True)
    ],
)
def test_population_decodes_as_the_oracle_says(kind: str, mode: ContactMode):
    options: dict[str, Any] = {"misfit_days": [D], "poison_days": [D] if kind in OWN else [], "coerced_share": 0.3}
    made = build_population(11, D, 1, "Europe/Paris", lead_days=1, sends_per_day=9, **options)
    elements = [*made.feed(kind), *(one for one in made.misfits if one.kind == kind)]
    rng = random.Random(f"{kind} {mode}")
    rng.shuffle(elements)
    body = body_of(elements, rng)
    whole = decode(kind, body, mode)
    assert len(whole.parts) == 1
    assert_decoded(kind, whole, elements, mode)
    if kind == "bounces":
        small = decode(kind, body, mode, part_bytes=50_000)
        assert len(small.parts) > 5
        assert (small.rows, small.found.unreadable_values) == (whole.rows, whole.found.unreadable_values)
        assert sorted(small.keys) == sorted(whole.keys)


def assert_costs_at_most_itself(one: Poison, result: Result) -> None:
    """Assert what became of a poison that stood between two good events."""
    assert one.outcome in ("stored" if result.rows else "rejected", "either")
    if one.event is not None and result.rows:
        assert canonicalize(result.rows) == expected(one.kind, [one.event])
    if result.rejected:
        assert compare_quarantine(result.keys, [Misfit(one.name, one.kind, 0, 156, None, one.raw)]) == []
        assert len(result.rejected[0]["reason"]) > 8


@pytest.mark.slow  # all together they are in the quick suite
@pytest.mark.parametrize("name", POISON)
def test_poisonous_event_costs_at_most_itself(name: str):
    [one] = build_poison("hits", 1, NOON, 156, [name])
    assert_costs_at_most_itself(one, between("hits", one.raw))


@pytest.mark.parametrize(
    ("kind", "part_bytes"), [("hits", WHOLE), pytest.param("bounces", 2**14, marks=pytest.mark.slow)]
)
def test_poisonous_events_together_cost_at_most_themselves(kind: str, part_bytes: int):
    several = [one for one in build_poison(kind, 2, NOON, 156) if part_bytes == WHOLE or not is_bulky(one.name)]
    good = [build_event(kind, id=f"good {number}", timestamp=NOON + 1000 * number) for number in range(len(several))]
    elements = [one for pair in zip(good, [one.raw for one in several], strict=True) for one in pair]
    result = decode(kind, elements, part_bytes=part_bytes)
    assert len(result.rows) + len(result.rejected) == len(elements)
    stored = [one.event for one in several if one.outcome == "stored"]
    surely = expected(kind, [*good, *stored])
    ids = {row["event_id"] for row in surely}
    assert canonicalize(row for row in result.rows if row["event_id"] in ids) == surely
    rejected = [Misfit(one.name, kind, 0, 156, None, one.raw) for one in several if one.outcome != "stored"]
    missing = {error.removesuffix(" is missing") for error in compare_quarantine(result.keys, rejected)}
    assert missing <= {one.name for one in several if one.outcome == "either"}


@pytest.mark.parametrize("name", ["invalid UTF-8 in a text column", "text in place of receiver", "repeated id"])
def test_poisonous_event_in_a_large_part_costs_at_most_itself(name: str):
    good = [hit(f"good {number:04}", NOON + number) for number in range(1400)]
    [one] = build_poison("hits", 3, NOON, 156, [name])
    result = decode("hits", body := body_of([*good[:700], one.raw, *good[700:]]))
    assert len(result.parts) == 1
    assert len(body) > 2**20
    assert [row for row in result.rows if row["event_id"].startswith("good")] == expected("hits", good)
    assert len(result.rows) + len(result.rejected) == len(good) + 1


@pytest.mark.parametrize("one", list_field_poison(), ids=lambda one: one.name)
def test_body_from_the_field_costs_at_most_its_middle_event(one: Poison):
    first, middle, last = read_field_elements(one.name)
    neighbours = expected("hits", [json.loads(first), json.loads(last)])
    result = decode("hits", [first, middle, last])
    assert [row for row in result.rows if row in neighbours] == neighbours
    assert_costs_at_most_itself(one, replace(result, rows=[row for row in result.rows if row not in neighbours]))


@pytest.mark.parametrize("path", sorted(FIELD.glob("[!p]*.json")), ids=lambda path: path.stem)
def test_events_from_the_field_decode_as_the_oracle_says(path: Any):
    feeds = json.loads(path.read_text())
    for kind in sorted(KIND.keys() & feeds.keys()):
        assert_decoded(kind, decode(kind, feeds[kind]), feeds[kind])


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


@hypothesis_settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(list(KIND)),
    changes=st.lists(
        st.dictionaries(st.sampled_from([name for name in PATHS if name != "id"]), JSON_VALUES, max_size=3), max_size=12
    ),
    others=st.lists(JSON_VALUES, max_size=2),
    rng=st.randoms(use_true_random=False),
)
def test_any_value_in_any_field_is_stored_or_rejected_as_the_oracle_says(
    kind: str, changes: list[dict[str, Any]], others: list[Any], rng: random.Random
):
    events = list(others)
    for number, fields in enumerate(changes):
        events.append(build_event(kind, id=f"event {number}", timestamp=NOON + number))
        for name in sorted(fields, key=lambda name: len(PATHS[name])):
            set_field(events[-1], name, fields[name])
    rng.shuffle(events)
    # as bytes: a rejected event without an id is known by them
    elements = [
        one if find_reason(kind, one) is None else Misfit("", kind, 0, 0, one, render(one, rng).encode())
        for one in events
    ]
    assert_decoded(kind, decode(kind, elements, rng=rng), elements)


@pytest.mark.parametrize("column", ["id", "agency", "stamp_id", "link_type"])
def test_text_that_looks_like_json_is_stored_where_an_object_is_rejected(column: str):
    texts, wrong = ["[1]", "{}", '{"a":"b"}', "[", "{x"], [{"a": "b"}, [1], [], {}]
    events = [hit(number) for number in range(len(texts) + len(wrong))]
    for one, value in zip(events, texts + wrong, strict=True):
        set_field(one, column, value)
    result = decode("hits", events)
    assert canonicalize(result.rows) == expected("hits", events[: len(texts)])
    assert len(result.rejected) == len(wrong)
    assert all(".".join(PATHS[column]) in row["reason"] for row in result.rejected)


TIMES = {1: 1000, 10**11 - 1: (10**11 - 1) * 1000, 10**11: 10**11, 10**14 - 1: 10**14 - 1, 10**14: 10**11}
TIMES |= {10**17 - 1: 10**14 - 1, 10**17: 10**11, 2**63 - 1: 9_223_372_036_854}


@pytest.mark.parametrize("written", [int, str])
def test_times_are_read_by_their_size(written: type):
    result = decode("hits", [hit(number, written(number), stamp_time=written(number)) for number in TIMES])
    assert {row["event_id"]: row["event_time"] for row in result.rows} == {f"{one}": ms for one, ms in TIMES.items()}
    assert all(row["activated_at"] == row["event_time"] for row in result.rows)
    none = [written(number) for number in (0, -1, -NOON)]
    result = decode("hits", [*(hit(one, stamp_time=one) for one in none), *(hit(f"r{one}", one) for one in none)])
    assert [row["activated_at"] for row in result.rows] == [None] * 3
    assert sorted(result.keys) == sorted(f"r{one}" for one in none)


TWO_DAYS = (DAY[0], DAY[1], DAY[1] + 24 * HOUR)


def test_events_outside_the_window_are_dropped_and_counted():
    times = [DAY[0] - 1, DAY[0], DAY[1] - 1, DAY[1], TWO_DAYS[2] - 1, TWO_DAYS[2]]
    rejected = [hit("", time) for time in (DAY[0] - 1, TWO_DAYS[2], NOON)]
    result = decode("hits", [*(hit(time, time) for time in times), *rejected], edges=TWO_DAYS)
    assert [row["event_time"] for row in result.rows] == times[1:-1]
    assert result.found.outside_window == 4
    assert result.found.received == {0: 2, 1: 2}
    assert [row["placed"] for row in result.rejected] == [NOON]


def test_rejected_event_without_a_time_goes_to_the_timed_event_before_it():
    late = hit("", DAY[1] + 5)
    elements = ["a", hit(1), {}, 5, hit(2, NOON + 1), [], late, {"id": 7}]
    result = decode("hits", elements, edges=TWO_DAYS)
    assert {row["event"]: row["placed"] for row in result.rejected} == {
        '"a"': 0,  # the first day asked, says the fetcher
        "{}": NOON,
        "5": NOON,
        "[]": NOON + 1,
        render(late): DAY[1] + 5,
        '{"id":7}': DAY[1] + 5,
    }


def test_rejected_event_is_known_by_its_id_or_its_bytes():
    texts = ['{"id":"x"}', '{"id":12}', '{"id":1.5}', '{ "id" : "" }', '{"id":true}', '{"id":null}', '{"id":["x"]}']
    elements = [text.encode() for text in [*texts, "{}", "{ }", '"x"', "nonsense"]]
    fast = decode("hits", elements[:9])
    assert sorted(fast.keys) == sorted(map(compute_event_key, elements[:9]))
    slow = decode("hits", [b" \n" + element + b"\t" for element in elements])
    assert sorted(slow.keys) == sorted(map(compute_event_key, elements))
    assert {"x", "12", "1.5"} <= set(slow.keys)
    assert len(set(slow.keys)) == len(elements)


@pytest.mark.parametrize("mode", ["keep", "drop"])
def test_erased_receivers_are_neither_rows_nor_rejected(mode: ContactMode):
    erased = ("000ERASED", "gone@example.com")
    events = [
        *(hit("by id", receiver_id=erased[0]), hit("by address", unicity=erased[1]), hit("kept")),
        *(hit("rejected", unicity=erased[1], agency=[]), hit("rejected and kept", agency=[])),
        hit("outside", DAY[1], receiver_id=erased[0]),
    ]
    result = decode("hits", events, edges=DAY, using=decoder("hits", mode, erased))
    assert (result.ids, result.keys) == (["kept"], ["rejected and kept"])
    assert sorted(result.found.erased_keys) == ["by address", "by id", "rejected"]


def test_erased_receiver_known_by_a_pseudonym_alone_is_erased():
    policy, gone = ContactPolicy("pseudonymize", SECRET), "gone@example.com"
    using = Decoder(KIND["hits"], policy, Tombstones(b"s").add_values([policy.compute_pseudonym(gone)]))
    result = decode("hits", [hit("1", unicity=gone), hit("2", unicity=gone, agency=[]), hit("kept")], using=using)
    assert (result.ids, result.keys, sorted(result.found.erased_keys)) == (["kept"], [], ["1", "2"])


@pytest.mark.parametrize("error", [duckdb.FatalException, duckdb.InternalException])
def test_decoder_connects_anew_after_a_fatal_error(error: type[Exception]):
    class Broken:
        cursors = 0

        def cursor(self) -> Any:
            self.cursors += 1
            raise error("database has been invalidated")

    using = Decoder(KIND["hits"], ContactPolicy("keep"), Tombstones(b""))
    broken: Any = Broken()
    using._database = broken
    for _ in range(2):
        result = decode("hits", [hit(1), hit(2, agency=[]), hit(3)], using=using)
        assert (result.ids, result.keys) == (["1", "3"], ["2"])
    assert broken.cursors == 1


def test_number_as_an_agency_is_its_text():
    """Apart from the population's variants: in a folder, it is another agency, whose events go to quarantine."""
    assert [row["agency"] for row in decode("hits", [hit("a", agency=28)]).rows] == ["28"]
