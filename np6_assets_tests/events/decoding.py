"""Decode bodies in parts of any size, as a download does, and merge their runs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from np6_assets.contact.policy import ContactMode, ContactPolicy
from np6_assets.contact.tombstones import Tombstones
from np6_assets.events.decode import DecodedEvents, DecodedPart, Decoder
from np6_assets.events.kinds import KINDS
from np6_assets.events.merge import EVENTS, RunStore, merge_runs
from np6_assets.np6.stream import PartWriter
from np6_assets_tests.support.builders import Event, RawEvent, build_event, render, set_field
from np6_assets_tests.support.oracle import Row, list_columns
from np6_assets_tests.support.tables import build_table, read_rows
from np6_assets_tests.support.variants import BadEvent

KIND = {kind.asset: kind for kind in KINDS}
NOON = 1_774_008_000_000  # 2026-03-20T12:00:00Z
HOUR = 3_600_000
DAY = (NOON - 12 * HOUR, NOON + 12 * HOUR)
ALL_TIME = (1, 2**60)
SECRET = "a secret for tests, long enough"
WHOLE = 2**26
"""Bytes of a part that holds any test's body."""


@dataclass
class Result:
    """The decoded parts of a body: `rows` are merged, `rejected` are in the order of the parts."""

    rows: list[Row]
    rejected: list[Row]
    parts: list[DecodedPart]
    found: DecodedEvents
    schema: pa.Schema | None = None

    @property
    def unknown(self) -> set[tuple[int, str]]:
        return self.found.unknown_fields

    @property
    def ids(self) -> list[str]:
        return [row["event_id"] for row in self.rows]

    @property
    def keys(self) -> list[str]:
        return [row["event_key"] for row in self.rejected]


@cache
def build_decoder(kind: str, mode: ContactMode = "keep", erased: tuple[str, ...] = ()) -> Decoder:
    policy = ContactPolicy(mode, SECRET if mode == "pseudonymize" else "")
    return Decoder(KIND[kind], policy, Tombstones(b"salt").add_values(erased))


def build_body(elements: Iterable[Any], rng: random.Random | None = None) -> bytes:
    """Build an array of events, bad_events or bytes."""
    return b"[" + b",".join(_render_element(one, rng) for one in elements) + b"]"


def _render_element(one: Any, rng: random.Random | None) -> bytes:
    match one:
        case bytes():
            return one
        case RawEvent():
            return one.raw
        case BadEvent():
            return one.body
        case _:
            return render(one, rng).encode()


def decode_body(
    kind: str,
    elements: bytes | Iterable[Any],
    mode: ContactMode = "keep",
    *,
    part_bytes: int = WHOLE,
    edges: Sequence[int] = ALL_TIME,
    rng: random.Random | None = None,
    decoder: Decoder | None = None,
) -> Result:
    """Decode a body, or the body of these elements, in parts, and merge them."""
    body = elements if isinstance(elements, bytes) else build_body(elements, rng)
    decoder = decoder or build_decoder(kind, mode)
    parts: list[DecodedPart] = []
    with closing(RunStore(EVENTS)) as store:
        writer = PartWriter(lambda part: parts.append(decoder.decode(part, edges, store)), part_bytes)
        for start in range(0, len(body), 2**14):
            writer.feed(body[start : start + 2**14])
        writer.finish()
        result = Result([], [row for part in parts for row in part.rejected], parts, DecodedEvents())
        for part in parts:
            result.found += part.events
        for table in merge_runs(result.found.runs, EVENTS):
            selected = table.select(decoder.kind.schema.names)
            result.rows += read_rows(selected)
            result.schema = selected.schema
    return result


def build_hits_table(ids: Sequence[str], times: Iterable[int]) -> pa.Table:
    """Build a table of hits with these ids and times."""
    rows = [
        {**dict.fromkeys(list_columns("hits")), "event_id": id_, "event_time": time, "activation_id": 1}
        for id_, time in zip(ids, times, strict=True)
    ]
    return build_table(rows, list_columns("hits"))


def build_hit(id: object, timestamp: Any = NOON, **fields: Any) -> Event:
    """Build a hit with any value as its time."""
    event = build_event("hits", id=str(id), timestamp=NOON, **fields)
    set_field(event, "timestamp", timestamp)
    return event
