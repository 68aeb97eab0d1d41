"""Hypothesis strategies for JSON arrays, and their texts in every style and in pieces."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hypothesis import strategies as st

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


def render_plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


STYLES: tuple[Callable[[Any], str], ...] = (
    lambda value: json.dumps(value, separators=(",", ":")),
    render_plain,
    lambda value: "\ufeff" + json.dumps(value, ensure_ascii=False, indent=1),
    lambda value: "\r\n " + json.dumps(value, separators=(" ,\t", " : ")).replace("/", "\\/") + "\n\n",
)
PLACES = st.lists(st.integers(0, 2000), max_size=12)
PART_BYTES = st.one_of(st.integers(1, 40), st.just(10_000))


def split_at(body: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Split the body at the places."""
    edges = sorted({place % (len(body) + 1) for place in places} | {0, len(body)})
    return (body[start:end] for start, end in itertools.pairwise(edges))


def split_by_size(body: bytes, size: int) -> list[bytes]:
    return [body[place : place + size] for place in range(0, len(body), size)]
