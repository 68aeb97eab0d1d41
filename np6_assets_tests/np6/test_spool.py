"""The spool: however the bytes come, its parts hold the array's elements, or it says what is wrong."""

import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from np6_assets.np6.errors import BadResponseError, CutResponseError
from np6_assets.np6.spool import Part, Spool, elements

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text(st.sampled_from('"\\[]{},: u0041\n\té🎉'), max_size=12),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.dictionaries(TEXTS, VALUES, max_size=4)
ARRAYS = st.lists(EVENTS | VALUES, max_size=8)

STYLES: tuple[Callable[[Any], str], ...] = (
    lambda value: json.dumps(value, separators=(",", ":")),
    lambda value: json.dumps(value, ensure_ascii=False),
    lambda value: json.dumps(value, ensure_ascii=False, indent=1),
    lambda value: "\r\n " + json.dumps(value, separators=(" ,\t", " : ")).replace("/", "\\/") + "\n\n",
)


def spooled(chunks: Iterable[bytes], part_bytes: int) -> list[list[Any]]:
    """The elements of each part, as `json` reads them; the events counted are checked on the way."""
    parts: list[list[Any]] = []
    spool = Spool(lambda part: parts.append(read(part)), part_bytes)
    try:
        for chunk in chunks:
            spool.feed(chunk)
        spool.finish()
    finally:
        spool.close()
    return parts


def read(part: Part) -> list[Any]:
    body = Path(part.path).read_bytes()
    part.close()
    assert len(body) == part.size
    assert part.quotes in (body.count(b'"'), None)
    assert part.quotes is None or b"\\" not in body
    values = json.loads(body)
    assert sum(isinstance(value, dict | list) for value in values) == part.events
    return values


def cut_up(body: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The body in pieces that end at the places (and at its end)."""
    edges = sorted({place % (len(body) + 1) for place in places} | {0, len(body)})
    return (body[start:end] for start, end in itertools.pairwise(edges))


@given(
    ARRAYS,
    st.sampled_from(STYLES),
    st.lists(st.integers(0, 2000), max_size=12),
    st.one_of(st.integers(1, 40), st.just(10_000)),
)
@example([{}, 1], STYLES[0], [], 2)  # the last part has no events, for all that it has an element
@example([{}, 1, 2, {}], STYLES[0], [4], 2)
@example([{"a": 1}], STYLES[3], range(100), 4)  # the body ends in its own chunk of white space, right after a part
@settings(max_examples=120, deadline=None)
def test_parts_hold_the_elements_in_their_order(array, style, places, part_bytes):
    parts = spooled(cut_up(style(array).encode(), places), part_bytes)
    assert [value for part in parts for value in part] == array


@given(ARRAYS.filter(bool), st.sampled_from(STYLES), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_byte_may_come_alone(array, style, part_bytes):
    body = style(array).encode()
    parts = spooled((body[place : place + 1] for place in range(len(body))), part_bytes)
    assert [value for part in parts for value in part] == array


def test_large_arrays_are_cut_at_the_ends_of_events():
    array = [{"id": number, "text": "x" * 90} for number in range(1000)]
    body = json.dumps(array).encode()
    parts = spooled([body[place : place + 700] for place in range(0, len(body), 700)], 5000)
    assert [value for part in parts for value in part] == array
    assert 15 < len(parts) <= len(body) / 5000 + 1
    # a part is closed at the first end of an event past its size: never much larger, never smaller
    assert {len(part) for part in parts[:-1]} <= set(range(43, 53))


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"\n[\r\n]\t"])
def test_an_empty_array_is_whole(body):
    assert [value for part in spooled([body], 1) for value in part] == []


# --- what is not whole --------------------------------------------------------------------------------------------


@given(
    ARRAYS.filter(bool),
    st.sampled_from(STYLES),
    st.integers(0, 10_000),
    st.lists(st.integers(0, 2000), max_size=6),
    st.integers(1, 60),
)
@settings(max_examples=120, deadline=None)
def test_a_prefix_is_never_taken_for_the_whole(array, style, cut, places, part_bytes):
    body = style(array).rstrip().encode()
    with pytest.raises(CutResponseError):
        spooled(cut_up(body[: cut % len(body)], places), part_bytes)


MOMENTS = st.lists(st.tuples(st.integers(0, 5), EVENTS | st.none()), min_size=1, max_size=10)


@given(
    MOMENTS,
    st.sampled_from(STYLES),
    st.integers(0, 10_000),
    st.lists(st.integers(0, 2000), max_size=6),
    st.one_of(st.integers(1, 60), st.just(10_000)),
)
@settings(max_examples=120, deadline=None)
def test_what_is_salvaged_is_a_beginning_and_says_where_to_go_on(moments, style, cut, places, part_bytes):
    # events in the order of their times, and elements without a time among them
    moments = sorted(moments, key=lambda moment: moment[0])
    array = [event if event is None else {**event, "timestamp": time} for time, event in moments]
    body = style(array).rstrip().encode()
    kept: list[Any] = []
    spool = Spool(lambda part: kept.extend(read(part)), part_bytes)
    for chunk in cut_up(body[: cut % len(body)], places):
        spool.feed(chunk)
    with pytest.raises(CutResponseError):
        spool.finish()
    last = spool.salvage(lambda event: None if event is None else event["timestamp"])
    spool.close()
    assert kept == array[: len(kept)]
    whole = [time for time, event in moments[: len(kept)] if event is not None]
    assert last in whole or (last is None and (not kept or None in array))
    # asked for from `last` on, what is not there yet comes whole
    assert last is None or all(time >= last for time, _ in moments[len(kept) :])


@pytest.mark.parametrize("part_bytes", [1, 150, 10_000])
def test_a_download_goes_on_from_its_last_whole_event_wherever_it_is_cut(part_bytes):
    texts = ["plain", 'a "quoted" é', "{", '{"timestamp": 99}', "}]", "\\"]
    array = [{"timestamp": number, "inner": [{}, {"text": texts[number % 6]}]} for number in range(12)]
    written = [json.dumps(one, ensure_ascii=False).encode() for one in array]
    body = b"[" + b" ,\n".join(written) + b"]"
    ends = [len(b" ,\n".join(written[: number + 1])) + 1 for number in range(12)]
    for cut in range(len(body)):
        kept: list[Any] = []
        spool = Spool(lambda part, kept=kept: kept.extend(read(part)), part_bytes)
        for place in range(0, cut, 10):
            spool.feed(body[place : min(place + 10, cut)])
        whole = sum(end <= cut for end in ends)
        assert spool.salvage(lambda event: event["timestamp"]) == (whole - 1 if whole else None)
        spool.close()
        assert kept == array[:whole]


def test_a_cut_in_the_middle_of_a_character_keeps_what_came_before():
    body = '[{"timestamp":1,"text":"é"},{"timestamp":2,"text":"🎉"}]'.encode()
    kept: list[Any] = []
    spool = Spool(lambda part: kept.extend(read(part)))
    spool.feed(body[: body.index("🎉".encode()) + 2])
    assert spool.salvage(lambda event: event["timestamp"]) == 1
    assert kept == [{"timestamp": 1, "text": "é"}]


NOT_AN_ARRAY = {
    "html": b"<html>[{}]</html>",
    "an object": b'{"error": []}',
    "text": b'"[]"',
    "a number": b" 12",
    "two arrays": b'[{"a":1}][{"a":2}]',
    "two empty arrays": b"[][]",
    "an object after it": b'[{"a":1}] {"error":"internal"}',
    "a bracket after it": b'[{"a":1}] ]',
    "a word after it": b'[{"a":1}]x',
    "another after it": b'[{"a":1}]\n[',
    "a byte order mark": b"\xef\xbb\xbf[]",
}


@pytest.mark.parametrize("body", NOT_AN_ARRAY.values(), ids=NOT_AN_ARRAY)
@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("part_bytes", [1, 1000])
def test_what_is_not_one_array_is_refused(body, size, part_bytes):
    chunks = [body[place : place + size] for place in range(0, len(body), size)]
    with pytest.raises(BadResponseError) as caught:
        spooled(chunks, part_bytes)
    assert not isinstance(caught.value, CutResponseError)  # nothing of it is to be trusted


@pytest.mark.parametrize("body", [b"", b" \n", b"[", b'[{"a":1}', b'[{"a":1},', b'[{"a":"]', b'[{"a":"\\"}]', b"[[]"])
@pytest.mark.parametrize("part_bytes", [1, 1000])
def test_an_array_that_is_not_closed_is_cut(body, part_bytes):
    with pytest.raises(CutResponseError, match="before its array is closed"):
        spooled([body], part_bytes)


@pytest.mark.parametrize("part_bytes", [1, 7])
def test_commas_between_parts_are_looked_at(part_bytes):
    with pytest.raises(BadResponseError, match="no comma"):
        spooled([b'[{"a":1', b'} {"a":2}, {"a":3}]'], part_bytes)
    with pytest.raises(BadResponseError, match="comma before the end"):
        spooled([b'[{"a":1}, {"a":2', b"}, ]"], part_bytes)


# --- the files ----------------------------------------------------------------------------------------------------


def test_parts_are_files_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    parts: list[Part] = []
    spool = Spool(parts.append, 100)
    for number in range(20):
        spool.feed((b"," if number else b"[") + json.dumps({"number": number, "text": "x" * 20}).encode())
        assert list(tmp_path.iterdir()) == []  # a process killed now leaves nothing behind
    spool.feed(b"]")
    spool.finish()
    assert len(parts) == 5  # closed at the first end of an event past 100 bytes
    for part in parts:
        state = os.fstat(part.file.fileno())
        assert (state.st_nlink, state.st_size) == (0, part.size)
        assert state.st_dev == tmp_path.stat().st_dev
        part.close()
        assert part.file.closed


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_what_was_not_handed_over_is_given_back():
    before = open_files()
    spool = Spool(lambda part: None)
    spool.feed(b'[{"a":1}')
    assert open_files() == before + 1
    spool.close()
    spool.close()
    assert open_files() == before


# --- elements -----------------------------------------------------------------------------------------------------


@given(ARRAYS, st.sampled_from(STYLES))
@settings(max_examples=120, deadline=None)
def test_elements_agrees_with_json(array, style):
    text = style(array)
    found = list(elements(text))
    assert [value for *_, value in found] == json.loads(text)
    assert [json.loads(text[start:end]) for start, end, _ in found] == array


@given(ARRAYS.filter(bool), st.sampled_from(STYLES), st.integers(0, 10_000))
@example([1.5], STYLES[0], 3)  # [1. is no 1
@example([1e22], STYLES[0], 3)
@example([12], STYLES[0], 2)
@settings(max_examples=120, deadline=None)
def test_elements_of_a_prefix_are_a_prefix(array, style, cut):
    text = style(array).rstrip()
    found = []
    with pytest.raises(BadResponseError):
        # what comes before the error counts
        found.extend(value for *_, value in elements(text[: cut % len(text)]))
    assert found == array[: len(found)]


def test_elements_lets_through_what_json_only_tolerates():
    text = '[{"a": "tab\tand \\ud83d alone"}, "\x01"]'
    assert [value for *_, value in elements(text)] == [{"a": "tab\tand \ud83d alone"}, "\x01"]


@pytest.mark.parametrize("text", ["", "{}", "x", "]", '"["'])
def test_elements_of_what_is_no_array(text):
    with pytest.raises(BadResponseError, match="not a JSON array"):
        list(elements(text))


@pytest.mark.parametrize("text", ["[1,]", "[1 2]", "[1", "[{}", "[{},", "[,]", "[tru]", '["a]', "[01]", "[1}"])
def test_elements_of_a_broken_array(text):
    with pytest.raises(CutResponseError):
        list(elements(text))
