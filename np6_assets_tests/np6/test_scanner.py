"""Find the ends of events and of the array in a stream of bytes."""

import json
from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st

from np6_assets.np6.stream import ArrayScanner, Part, PartWriter, find_elements
from np6_assets_tests.np6.arrays import ARRAYS, PLACES, STYLES, is_event, split_at, split_by_size
from np6_assets_tests.support.poison import POISON, build_poison, is_bulky, list_field_poison

SMALL_POISON = [name for name in POISON if "100,000" not in name and not is_bulky(name)]


@given(ARRAYS, st.sampled_from(STYLES), PLACES)
@settings(max_examples=30, deadline=None)
def test_scanner_counts_events_and_finds_the_end(array, style, places):
    scanner = ArrayScanner()
    for chunk in split_at(style(array).encode(), places):
        assert not scanner.closed or not chunk.strip()
        before, end = scanner.events, scanner.next_event_end(chunk)
        assert (end is None) == (_count_events_after(scanner, chunk) == before)
        if end is not None:
            assert _count_events_after(scanner, chunk[: end - 1]) == before
            assert _count_events_after(scanner, chunk[:end]) == before + 1
        scanner.feed(chunk)
    assert (scanner.closed, scanner.events) == (True, sum(map(is_event, array)))


def _count_events_after(scanner: ArrayScanner, chunk: bytes) -> int:
    copy = ArrayScanner()
    vars(copy).update(vars(scanner))
    copy.feed(chunk)
    return copy.events


@given(ARRAYS, st.sampled_from(STYLES))
@settings(max_examples=30, deadline=None)
def test_find_elements_splits_at_commas(array, style):
    text = style(array).encode().strip(b"\xef\xbb\xbf \r\n")[1:-1]
    found = [text[start:end] for start, end in find_elements(text)]
    assert [json.loads(one) for one in found] == array
    assert b",".join(found) == (text if array else b"")


@given(ARRAYS.filter(bool), st.sampled_from(STYLES[:2]), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_find_elements_of_a_cut_text_cuts_only_the_last(array, style, cut):
    text = style(array).encode()[1:-1]
    text = text[: cut % len(text)]
    found = list(find_elements(text))
    whole = [json.loads(text[start:end]) for start, end in found[:-1]]
    assert whole == array[: len(whole)]
    assert not found or (found[0][0], found[-1][1]) == (0, len(text))


def test_find_elements_accepts_elements_that_are_not_json():
    text = b'{"id":}, undefined,{"a":"\xff,"},[1,2 ,'
    found = [text[start:end] for start, end in find_elements(text)]
    assert found == [b'{"id":}', b" undefined", b'{"a":"\xff,"}', b"[1,2 ,"]


def test_scanner_and_writer_find_the_ends_of_poison():
    raws = [one.raw for one in [*build_poison("hits", 1, 1_774_000_000_000, 156, SMALL_POISON), *list_field_poison()]]
    body = b"[%b]" % b",\n".join(raws)
    for size in (997, 2**16):
        found: list[bytes] = []
        scanner = ArrayScanner()
        for chunk in split_by_size(body, size):
            scanner.feed(chunk)
        assert scanner.closed
        assert scanner.events == sum(raw.lstrip()[:1] in (b"{", b"[") for raw in raws)
        writer = PartWriter(lambda part, found=found: found.extend(read_elements(part)), 2000)
        for chunk in split_by_size(body, size):
            writer.feed(chunk)
        writer.finish()
        assert [one.strip() for one in found] == raws


def read_elements(part: Part) -> list[bytes]:
    with closing(part):
        text = part.read()
    return [text[start:end] for start, end in find_elements(text)]
