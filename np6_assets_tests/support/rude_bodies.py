"""Build the bodies that the rude server sends: complete, broken and compressed arrays."""

from __future__ import annotations

import functools
import gzip
import random
from collections.abc import Iterator, Sequence

from np6_assets_tests.support.rude_acts import Act

BOMB_BYTES = 80 * 2**20


def build_array(elements: Sequence[bytes], rng: random.Random) -> bytes:
    """Build a JSON array of the elements, with white space in a random legal style."""
    before, between, after = rng.choice(
        ((b"", b",", b""), (b"", b",\n", b"\n"), (b"\n ", b" ,\r\n\t", b" ")),
    )
    head, tail = rng.choice((b"", b"", b" ")), rng.choice((b"", b"\n"))
    return head + b"[" + before + between.join(elements) + after + b"]" + tail


def build_body(act: Act | None, elements: Sequence[bytes], rng: random.Random) -> bytes:
    """Build the body of an answer: an array, unless the act is one of other formats or of broken arrays."""
    name, at = ("", 0.0) if act is None else (act.name, act.at)
    kept = list(elements[: max(1, int(len(elements) * at))])
    joined, everything, half = b",".join(kept), b",".join(elements), len(elements) // 2
    broken = {
        "cut after comma": b"[" + joined + b",",
        "cut before bracket": b"[" + joined,
        "cut in event": (b"[" + joined)[: -max(1, len(kept[-1]) // 2)] if kept else b"[",
        "trailing comma": b"[" + everything + b",]",
        "garbage after": b"[" + everything + b"]" + rng.choice((b" ]", b'{"error":"internal"}', b"x", b" [")),
        "two arrays": b"[" + b",".join(elements[:half]) + b"][" + b",".join(elements[half:]) + b"]",
        "ndjson": b"".join(element + b"\n" for element in elements),
        "object around the array": b'{"events":[' + everything + b"]}",
    }
    if name in broken:
        return broken[name]
    return (b"\xef\xbb\xbf" if name == "BOM" else b"") + build_array(elements, rng)


def find_cut(body: bytes, elements: Sequence[bytes], at: float) -> int:
    """Return a length that ends within an element (or within the empty array)."""
    if not elements:
        return body.index(b"[") + 1
    element = elements[min(len(elements) - 1, int(len(elements) * at))]
    return body.index(element) + max(1, len(element) // 2)


def split_randomly(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Split the body into pieces of random sizes."""
    at = 0
    while at < len(body):
        size = rng.choice((1, 100, 4_000, 70_000))
        yield body[at : at + size]
        at += size


@functools.cache
def build_bomb() -> bytes:
    """Build a small gzip body that decompresses to an array of BOMB_BYTES of white space."""
    return gzip.compress(b"[" + b" " * BOMB_BYTES + b"]", 9)
