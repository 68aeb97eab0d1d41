"""The stream: however its bytes come, its parts hold the array's elements, or it says what is wrong."""

import itertools
import json
import os
import tempfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from np6_assets.np6.errors import BadResponseError, CutResponseError, WrongBodyError
from np6_assets.np6.stream import Part, PartWriter
from np6_assets_tests.np6.arrays import ARRAYS, PART_BYTES, PLACES, STYLES, by_size, cut_up, is_event, plain


def read(part: Part) -> list[Any]:
    """The elements of a part, as `json` reads them; what the part says of itself is checked on the way."""
    body = Path(part.path).read_bytes()
    assert len(body) == part.size
    assert part.read() == body[1:-1]
    part.close()
    values = json.loads(body)
    assert sum(map(is_event, values)) == part.events
    return values


def written(chunks: Iterable[bytes], part_bytes: int) -> list[list[Any]]:
    """The elements of each part of a whole body."""
    parts: list[list[Any]] = []
    writer = PartWriter(lambda part: parts.append(read(part)), part_bytes)
    try:
        for chunk in chunks:
            writer.feed(chunk)
        writer.finish()
        assert writer.events == sum(is_event(value) for part in parts for value in part)
    finally:
        writer.close()
    return parts


def before_cut(chunks: Iterable[bytes], part_bytes: int) -> list[Any]:
    """The elements that are handed over of a body that is cut."""
    kept: list[Any] = []
    writer = PartWriter(lambda part: kept.extend(read(part)), part_bytes)
    for chunk in chunks:
        writer.feed(chunk)
    with pytest.raises((CutResponseError, WrongBodyError)):
        writer.finish()
    writer.hand_over_whole_events()
    writer.close()
    return kept


# --- whole arrays -------------------------------------------------------------------------------------------------


@given(ARRAYS, st.sampled_from(STYLES), PLACES, PART_BYTES)
@example([{}, 1], STYLES[0], [], 2)  # the last part has no events, although it has an element
@example([{}, 1, 2, {}], STYLES[0], [4], 2)
@example([{"a": 1}], STYLES[3], range(100), 4)  # the body ends in its own chunk of white space, right after a part
@settings(max_examples=30, deadline=None)
def test_parts_hold_the_elements_in_their_order(array, style, places, part_bytes):
    parts = written(cut_up(style(array).encode(), places), part_bytes)
    assert [value for part in parts for value in part] == array


@given(ARRAYS.filter(bool), st.sampled_from(STYLES), st.integers(1, 40), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_parts_hold_the_elements_where_bytes_come_alone(array, style, part_bytes, size):
    parts = written(by_size(style(array).encode(), size), part_bytes)
    assert [value for part in parts for value in part] == array


def test_parts_end_with_the_first_event_past_their_size():
    array = [{"id": number, "text": "x" * 90} for number in range(1000)]
    body = json.dumps(array).encode()
    parts = written(by_size(body, 700), 5000)
    assert [value for part in parts for value in part] == array
    assert 15 < len(parts) <= len(body) / 5000 + 1
    assert {len(part) for part in parts[:-1]} <= set(range(43, 53))


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"\n[\r\n]\t", b"\xef\xbb\xbf[]"])
@pytest.mark.parametrize("size", [1, 1000])
def test_empty_array_has_no_parts(body, size):
    assert written(by_size(body, size), 1) == []


# --- what is not whole --------------------------------------------------------------------------------------------


@given(ARRAYS.filter(bool), st.sampled_from(STYLES[:3]), st.integers(0, 10_000), PLACES, PART_BYTES)
@example([1.5], STYLES[0], 3, [], 10_000)  # [1. is no 1
@example([1e22], STYLES[0], 3, [], 10_000)
@example([12], STYLES[0], 2, [], 10_000)
@settings(max_examples=30, deadline=None)
def test_cut_hands_over_a_beginning_alone(array, style, cut, places, part_bytes):
    body = style(array).encode()
    kept = before_cut(cut_up(body[: cut % len(body)], places), part_bytes)
    assert kept == array[: len(kept)]


@pytest.mark.parametrize("part_bytes", [1, 150, 10_000])
def test_cut_hands_over_all_whole_events_wherever_it_is(part_bytes):
    texts = ["plain", 'a "quoted" é', "{", '{"timestamp": 99}', "}],[{", "\\", "🎉 \\u005c"]
    array = [{"number": number, "inner": [{}, {"text": texts[number % 7]}, []]} for number in range(7)]
    rendered = [plain(one).encode() for one in array]
    body = b"[" + b" ,\n".join(rendered) + b"]"
    # an event is known to be whole once its part is, or its comma is there
    ends = list(itertools.accumulate((len(one) + 3 for one in rendered), initial=1))[1:]
    for cut in range(len(body)):
        kept = before_cut(by_size(body[:cut], 10), part_bytes)
        assert kept == array[: len(kept)]
        assert sum(end - 1 <= cut for end in ends) <= len(kept) <= sum(end - 3 <= cut for end in ends)


def test_cut_takes_nothing_of_an_event_twice():
    kept: list[Any] = []
    writer = PartWriter(lambda part: kept.extend(read(part)), 1)
    for chunk in (b'[{"a":1}', b',{"a":2}', b',{"a":'):
        writer.feed(chunk)
    writer.hand_over_whole_events()
    writer.hand_over_whole_events()
    writer.close()
    assert kept == [{"a": 1}, {"a": 2}]


NOT_AN_ARRAY = {
    "an HTML or XML page": b"<!DOCTYPE html><html>[{}]</html>",
    "a JSON object": b'{"error": []}',
    "one JSON object after another (NDJSON)": b'{"a":[1]}\n{"a":2}\n',
    "text": b'"[]"',
}


@pytest.mark.parametrize("what", NOT_AN_ARRAY)
@pytest.mark.parametrize("start", [b"", b" \n", b"\xef\xbb\xbf"])
def test_wrong_body_is_described_without_quoting_it(what, start):
    for part_bytes in (1, 1000):
        with pytest.raises(WrongBodyError) as caught:
            written([start + NOT_AN_ARRAY[what]], part_bytes)
        assert str(caught.value) == f"the body is {what}, not a JSON array"


def test_refusal_says_that_the_body_is_empty():
    for body in (b"", b" \n", b"\xef\xbb\xbf"):
        with pytest.raises(WrongBodyError, match="the body is empty"):
            written([body], 1000)


MORE = [b" ]", b"[]", b'[{"a":2}]', b' {"error":"internal"}', b"x", b"\n[", b",", b'"more"', b'"]']


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("array", [b"[]", b'[{"a":1}]'])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_refusal_of_what_goes_on_after_its_array(array, more, size):
    for part_bytes in (1, 1000):
        with pytest.raises(BadResponseError, match="goes on after the end") as caught:
            written(by_size(array + more, size), part_bytes)
        assert not isinstance(caught.value, CutResponseError)  # nothing of it is to be trusted


@pytest.mark.parametrize("body", [b"[", b'[{"a":1}', b'[{"a":1},', b'[{"a":"]', b'[{"a":"\\"}]', b"[[]", b"[1"])
@pytest.mark.parametrize("part_bytes", [1, 1000])
def test_array_that_is_not_closed_is_cut(body, part_bytes):
    with pytest.raises(CutResponseError, match="before its array is closed"):
        written([body], part_bytes)


@pytest.mark.parametrize("part_bytes", [1, 7, 1000])
@pytest.mark.parametrize("size", [1, 9, 1000])
def test_comma_before_the_end_is_refused(part_bytes, size):
    for end in (b",]", b", ]", b",\n]\n"):
        with pytest.raises(BadResponseError, match="comma before the end"):
            written(by_size(b'[{"a":1},{"a":2}' + end, size), part_bytes)


def test_comma_is_needed_between_the_events_of_two_parts():
    with pytest.raises(BadResponseError, match="no comma between two events"):
        written([b'[{"a":1', b"} ", b' {"a":2}]'], 1)


# --- files --------------------------------------------------------------------------------------------------------


def test_parts_are_files_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    parts: list[Part] = []
    writer = PartWriter(parts.append, 100)
    for number in range(20):
        writer.feed((b"," if number else b"[") + json.dumps({"number": number, "text": "x" * 20}).encode())
        assert list(tmp_path.iterdir()) == []  # a process killed now leaves nothing behind
    writer.feed(b"]")
    writer.finish()
    assert len(parts) == 5
    for part in parts:
        state = os.fstat(part.file.fileno())
        assert (state.st_nlink, state.st_size, state.st_dev) == (0, part.size, tmp_path.stat().st_dev)
        part.close()
        assert part.file.closed


def test_writer_keeps_parts_on_disk_and_not_in_memory():
    chunk = b'{"text":"%b"},' % (b"x" * 1000) * 250
    sizes: list[int] = []

    def take(part: Part) -> None:
        sizes.append(part.size)
        part.close()

    writer = PartWriter(take, 2**20)
    tracemalloc.start()
    try:
        writer.feed(b"[")
        for _ in range(100):
            writer.feed(chunk)
        writer.feed(b"{}]")
        writer.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 25 * 10**6
    assert max(sizes) < 2**20 + 2 * len(chunk)
    assert peak < 2**21


def test_part_can_be_made_from_elements():
    part = Part.from_elements(b'{"a":1},{"a":2},3', 2, ((0, 0), (1, 8)))
    assert (part.size, part.events, part.answers) == (19, 2, ((0, 0), (1, 8)))
    assert read(part) == [{"a": 1}, {"a": 2}, 3]


def test_writer_closes_what_it_does_not_hand_over():
    def open_files() -> int:
        return sum(1 for _ in Path("/dev/fd").iterdir())

    before = open_files()
    writer = PartWriter(lambda part: None)
    writer.feed(b'[{"a":1}')
    assert open_files() == before + 1
    writer.close()
    writer.close()
    assert open_files() == before
