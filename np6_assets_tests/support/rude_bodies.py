"""Build the bodies that the rude server sends: complete, broken and compressed arrays."""

from __future__ import annotations

import functools
import gzip
import mmap
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from np6_assets_tests.support.rude_acts import Act

BOM = b"\xef\xbb\xbf"
BOMB_BYTES = 80 * 2**20
_ZSTD_HEAD = b"\x28\xb5\x2f\xfd\x00\x58"  # magic number, no optional fields, a window of 2 MiB


class Prepared:
    """A large sorted array in a file, with an index, of which any window is sent without reading it into memory.

    The file is `[`, the events with `,` and a newline between them, `]`. The index is native int64 pairs of
    (timestamp, offset of the event's first byte), and a last pair (2**62, offset just past the final `]`
    plus one), so that an event with its separator always ends where the next one starts.
    """

    def __init__(self, body: Path, index: Path) -> None:
        self.body = body
        self._index_file = index.open("rb")
        self._index = memoryview(mmap.mmap(self._index_file.fileno(), 0, access=mmap.ACCESS_READ)).cast("q")

    def slice(self, start: int | None, end: int | None) -> tuple[int, int]:
        """Return offset and length of the bytes, without brackets, of the events with start <= timestamp < end."""
        first = 0 if start is None else self._find_first(start)
        last = len(self._index) // 2 - 1 if end is None else self._find_first(end)
        if first >= last:
            return 0, 0
        offset = self._index[2 * first + 1]
        return offset, self._index[2 * last + 1] - 2 - offset

    def _find_first(self, ms: int) -> int:
        low, high = 0, len(self._index) // 2 - 1
        while low < high:
            middle = (low + high) // 2
            if self._index[2 * middle] < ms:
                low = middle + 1
            else:
                high = middle
        return low


def build_array(elements: Sequence[bytes], rng: random.Random) -> bytes:
    """Build a JSON array of the elements, with white space in a random legal style."""
    before, between, after = rng.choice(
        ((b"", b",", b""), (b"", b",\n", b"\n"), (b"\n ", b" ,\r\n\t", b" ")),
    )
    head, tail = rng.choice((b"", b"", b" ")), rng.choice((b"", b"\n"))
    return head + b"[" + before + between.join(elements) + after + b"]" + tail


def build_other_format(name: str, elements: Sequence[bytes]) -> bytes:
    """Build a body that is no array: "ndjson" or "object around the array"."""
    if name == "ndjson":
        return b"".join(element + b"\n" for element in elements)
    return b'{"events":[' + b",".join(elements) + b"]}"


def build_incomplete(act: Act, elements: Sequence[bytes], rng: random.Random) -> bytes:
    """Build a body that is not one complete array."""
    kept = list(elements[: max(1, int(len(elements) * act.at))])
    joined, everything = b",".join(kept), b",".join(elements)
    half = len(elements) // 2
    return {
        "cut after comma": b"[" + joined + b",",
        "cut before bracket": b"[" + joined,
        "cut in event": (b"[" + joined)[: -max(1, len(kept[-1]) // 2)] if kept else b"[",
        "trailing comma": b"[" + everything + b",]",
        "garbage after": b"[" + everything + b"]" + rng.choice((b" ]", b'{"error":"internal"}', b"x", b" [")),
        "two arrays": b"[" + b",".join(elements[:half]) + b"][" + b",".join(elements[half:]) + b"]",
    }[act.name]


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


# --- compression -------------------------------------------------------------------------------------------


def encode(body: bytes, encoding: str) -> bytes:
    """Encode the body: "", "gzip" or "zstd"."""
    return {"": lambda: body, "gzip": lambda: gzip.compress(body, 1), "zstd": lambda: compress_zstd(body)}[encoding]()


def compress_zstd(body: bytes) -> bytes:
    """Build a valid zstd frame of raw blocks (RFC 8878), as the standard library has no compressor."""
    blocks = [body[at : at + 100_000] for at in range(0, len(body), 100_000)] or [b""]
    return _build_zstd_frame([(_RAW, len(block), block) for block in blocks])


_RAW, _RUN = 0, 1  # zstd's types of blocks: bytes, and a repeated byte


def _build_zstd_frame(blocks: Sequence[tuple[int, int, bytes]]) -> bytes:
    framed = [_ZSTD_HEAD]
    for number, (type_, size, content) in enumerate(blocks):
        header = (number == len(blocks) - 1) | type_ << 1 | size << 3
        framed += [header.to_bytes(3, "little"), content]
    return b"".join(framed)


@functools.cache
def build_bomb(encoding: str) -> bytes:
    """Build a small body that decompresses to an array of BOMB_BYTES of white space."""
    if encoding == "gzip":
        return gzip.compress(b"[" + b" " * BOMB_BYTES + b"]", 9)
    run = 2**17  # the largest block
    return _build_zstd_frame([(_RAW, 1, b"["), *[(_RUN, run, b" ")] * (BOMB_BYTES // run), (_RAW, 1, b"]")])
