"""Cut a stream of bytes into parts with the array's elements, or report what is wrong."""

import itertools
import json
import os
import re
import tempfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from np6_assets.np6.errors import BadResponseError, CutResponseError, WrongBodyError
from np6_assets.np6.stream import Part, PartWriter, find_elements
from np6_assets_tests.np6.arrays import ARRAYS, PART_BYTES, PLACES, STYLES, render_plain, split_at, split_by_size
from np6_assets_tests.support.poison import POISON, build_poison, is_bulky, list_field_poison


def is_event(value: Any) -> bool:
    return isinstance(value, dict | list)


def read_part(part: Part) -> list[Any]:
    """Read the elements of a part, and check its size and count."""
    body = Path(part.path).read_bytes()
    assert len(body) == part.size
    assert part.read() == body[1:-1]
    part.close()
    values = json.loads(body)
    assert sum(map(is_event, values)) == part.events
    return values


def write_parts(chunks: Iterable[bytes], part_bytes: int) -> list[list[Any]]:
    """Write a complete body; return the elements of each part."""
    parts: list[list[Any]] = []
    writer = PartWriter(lambda part: parts.append(read_part(part)), part_bytes)
    try:
        for chunk in chunks:
            writer.feed(chunk)
        writer.finish()
        assert writer.events == sum(is_event(value) for part in parts for value in part)
    finally:
        writer.close()
    return parts


def write_cut_body(chunks: Iterable[bytes], part_bytes: int) -> list[Any]:
    """Write a cut body; return the elements handed over."""
    kept: list[Any] = []
    writer = PartWriter(lambda part: kept.extend(read_part(part)), part_bytes)
    for chunk in chunks:
        writer.feed(chunk)
    with pytest.raises((CutResponseError, WrongBodyError)):
        writer.finish()
    for _ in range(2):
        writer.hand_over_whole_events()  # once
    writer.close()
    return kept


# --- complete arrays -------------------------------------------------------------------------------------------------


@given(ARRAYS, st.sampled_from(STYLES), PLACES, PART_BYTES)
@example([{}, 1], STYLES[0], [], 2)  # the last part has no events, although it has an element
@example([{}, 1, 2, {}], STYLES[0], [4], 2)
@example([{"a": 1}], STYLES[3], range(100), 4)  # the body ends in its own chunk of white space, right after a part
@example([], STYLES[3], range(100), 1)
@example([{"a": ['"}]é', {}]}, [], {"\\": "\\"}], STYLES[2], range(200), 1)  # single bytes
@settings(max_examples=30, deadline=None)
def test_parts_hold_the_elements_in_order(array, style, places, part_bytes):
    parts = write_parts(split_at(style(array).encode(), places), part_bytes)
    assert [value for part in parts for value in part] == array
    assert array or not parts


def test_parts_end_with_the_first_event_beyond_their_size():
    array = [{"id": number, "text": "x" * 90} for number in range(1000)]
    body = json.dumps(array).encode()
    parts = write_parts(split_by_size(body, 700), 5000)
    assert [value for part in parts for value in part] == array
    assert 15 < len(parts) <= len(body) / 5000 + 1
    assert {len(part) for part in parts[:-1]} <= set(range(43, 53))


# --- elements ------------------------------------------------------------------------------------------------------


@given(ARRAYS, st.sampled_from(STYLES))
@settings(max_examples=30, deadline=None)
def test_find_elements_splits_at_commas(array, style):
    text = style(array).encode().strip(b"\xef\xbb\xbf \r\n")[1:-1]
    found = [text[start:end] for start, end in find_elements(text)]
    assert [json.loads(one) for one in found] == array
    assert b",".join(found) == (text if array else b"")


@pytest.mark.parametrize("size", [997, 2**16])
def test_writer_finds_the_ends_of_poison(size):
    names = [name for name in POISON if "100,000" not in name and not is_bulky(name)]
    raws = [one.raw for one in [*build_poison("hits", 1, 1_774_000_000_000, 156, names), *list_field_poison()]]
    texts: list[bytes] = []

    def read_text(part: Part) -> None:
        texts.append(part.read())
        part.close()

    writer = PartWriter(read_text, 2000)
    for chunk in split_by_size(b"[%b]" % b",\n".join(raws), size):
        writer.feed(chunk)
    writer.finish()
    assert [text[start:end].strip() for text in texts for start, end in find_elements(text)] == raws
    assert writer.events == sum(raw.lstrip()[:1] in (b"{", b"[") for raw in raws)


# --- incomplete arrays --------------------------------------------------------------------------------------------


@given(ARRAYS.filter(bool), st.sampled_from(STYLES[:3]), st.integers(0, 10_000), PLACES, PART_BYTES)
@example([1.5], STYLES[0], 3, [], 10_000)  # not 1
@example([1e22], STYLES[0], 3, [], 10_000)
@example([12], STYLES[0], 2, [], 10_000)
@settings(max_examples=30, deadline=None)
def test_cut_body_hands_over_a_beginning(array, style, cut, places, part_bytes):
    body = style(array).encode()
    kept = write_cut_body(split_at(body[: cut % len(body)], places), part_bytes)
    assert kept == array[: len(kept)]


@pytest.mark.parametrize("part_bytes", [1, 150, 10_000])
def test_cut_body_hands_over_all_whole_events(part_bytes):
    texts = ['a "quoted" é', "}],[{", "\\", "🎉 \\u005c"]
    array = [{"n": number, "inner": [{}, {"text": text}, []]} for number, text in enumerate(texts)]
    rendered = [render_plain(one).encode() for one in array]
    body = b"[" + b" ,\n".join(rendered) + b"]"
    # an event is complete at the end of its part, or at its comma
    ends = list(itertools.accumulate((len(one) + 3 for one in rendered), initial=1))[1:]
    for cut in range(len(body)):
        kept = write_cut_body(split_by_size(body[:cut], 10), part_bytes)
        assert kept == array[: len(kept)]
        assert sum(end - 1 <= cut for end in ends) <= len(kept) <= sum(end - 3 <= cut for end in ends)


MORE = (b" ]", b"[]", b'[{"a":2}]', b' {"error":"internal"}', b"x", b"\n[", b",", b'"more"', b'"]')
WRONG = {
    "the body is an HTML or XML page, not a JSON array": (b"<!DOCTYPE html><html>[{}]</html>",),
    "the body is a JSON object, not a JSON array": (b'{"error": []}',),
    "the body is one JSON object after another (NDJSON), not": (b'\xef\xbb\xbf{"a":[1]}\n{"a":2}\n',),
    "the body is text, not a JSON array": (b' \n"[]"',),
    "the body is empty": (b"", b" \n", b"\xef\xbb\xbf"),
    "goes on after the end": [array + more for array in (b"[]", b'[{"a":1}]') for more in MORE],
    "comma before the end": (b'[{"a":1},{"a":2},]', b'[{"a":1},{"a":2}, ]', b'[{"a":1},{"a":2},\n]\n'),
    "no comma between two events": (b'[{"a":1}  {"a":2}]',),
    # cut bodies: what was received can be trusted
    "before its array is closed": (*(b"[", b'[{"a":1}', b'[{"a":1},', b'[{"a":"]', b'[{"a":"\\"}]', b"[[]", b"[1"),),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_body_is_refused(message):
    sizes = (1,) if "no comma" in message else (1, 7, 1000)
    for body, part_bytes, size in itertools.product(WRONG[message], sizes, sizes):
        chunks = split_by_size(body, size) if body.startswith((b"[", b'"')) else [body]
        with pytest.raises(BadResponseError, match=re.escape(message)) as caught:
            write_parts(chunks, part_bytes)
        assert isinstance(caught.value, CutResponseError) == ("before" in message and "closed" in message)


# --- files --------------------------------------------------------------------------------------------------------


def test_parts_are_unnamed_files(tmp_path, monkeypatch):
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


def test_writer_keeps_parts_on_disk():
    chunk = b'{"text":"%b"},' % (b"x" * 1000) * 250
    sizes: list[int] = []

    def close_part(part: Part) -> None:
        sizes.append(part.size)
        part.close()

    writer = PartWriter(close_part, 2**20)
    tracemalloc.start()
    try:
        writer.feed(b"[")
        for _ in range(40):
            writer.feed(chunk)
        writer.feed(b"{}]")
        writer.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 10 * 10**6
    assert max(sizes) < 2**20 + 2 * len(chunk)
    assert peak < 2**21


def test_writer_closes_its_open_part():
    before = len([*Path("/dev/fd").iterdir()])
    writer = PartWriter(lambda part: None)
    writer.feed(b'[{"a":1}')
    assert len([*Path("/dev/fd").iterdir()]) == before + 1
    writer.close()
    writer.close()
    assert len([*Path("/dev/fd").iterdir()]) == before
