"""What the contenders are given: one day's hits as JSON, and a cohort as Parquet. The same seed gives the same bytes.

The values are the simulated account's: only how many there are, and when, is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from np6_assets.contact import ContactPolicy
from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.partitions import Day, day_of
from np6_assets.sandbox.population import DAY, DISMISSAL, EVENT, Account, Events, Kind, Population, fold, sequence
from np6_assets.sandbox.rendering import Renderer, uuids
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

SEED = 6
HITS_DAY = day_of("2026-03-20", "UTC")

_CHUNK = 50_000


@dataclass(frozen=True)
class Feed:
    """A day of a feed, as the server sends it.

    `body` is a JSON array, sorted by time; `index` holds int64 pairs of an event's time and the offset of its first
    byte, and a last pair for the end. The rest is what is in it, to check an output against: `ids` is all ids hashed
    and combined, so that it does not depend on their order.
    """

    body: str
    index: str
    bytes: int
    rows: int
    distinct: int
    ids: int
    redirections: int


def remove(feed: Feed) -> None:
    """Give back the disk that a feed takes."""
    for file in (feed.body, feed.index):
        Path(file).unlink()


def feed(folder: Path, events: int, day: Day = HITS_DAY) -> Feed:
    """So many hits, spread evenly over a day."""
    body, index = folder / f"hits-{events}.body", folder / f"hits-{events}.index"
    renderer = Renderer(Population(Account(seed=SEED)))
    offset = 0
    with body.open("wb") as text, index.open("wb") as pairs:
        for chunk in _hits(events, day):
            rendered = renderer.render(chunk)  # each event after a comma
            commas = offset + _commas(rendered)
            pairs.write(np.stack([chunk["timestamp"], commas + 1], axis=1).tobytes())
            text.write(rendered if offset else b"[" + rendered[1:])
            offset += len(rendered)
        pairs.write(np.array([2**62, offset + 1], dtype=np.int64).tobytes())
        text.write(b"]")
    return Feed(str(body), str(index), body.stat().st_size, *_described(body))


def _hits(events: int, day: Day) -> Iterator[Events]:
    """Hits at even distances, in chunks; nine in ten click through."""
    base = fold(SEED, events)
    for first in range(0, events, _CHUNK):
        number = np.arange(first, min(first + _CHUNK, events), dtype=np.uint64)
        rows = np.zeros(len(number), dtype=EVENT)
        rows["key"] = sequence(base, number)
        rows["timestamp"] = day.start_ms + number.astype(np.int64) * (day.end_ms - day.start_ms) // events
        rows["stamp_time"] = rows["timestamp"] - (rows["key"] >> np.uint64(38)).astype(np.int64) // 10
        rows["notification"] = rows["key"] % np.uint64(6)
        rows["kind"] = Kind.HIT
        rows["variant"] = np.where(rows["key"] % np.uint64(10) == 0, DISMISSAL, 0)
        yield rows


def _commas(rendered: bytes) -> np.ndarray:
    """Where the comma before each event is."""
    opening = b',{"type":"hit"'
    found, at = [], rendered.find(opening)
    while at >= 0:
        found.append(at)
        at = rendered.find(opening, at + len(opening))
    return np.array(found, dtype=np.int64)


def _described(body: Path) -> tuple[int, int, int, int]:
    """Rows, distinct ids, all ids combined and click-throughs, by another reader than the project's."""
    with duckdb.connect(config={"threads": 2, "memory_limit": "2GB"}) as database:
        row = database.execute(
            """
            SELECT count(*), count(DISTINCT id), bit_xor(hash(id))::VARCHAR, count(*) FILTER (kind = 'redirection')
            FROM (
                SELECT id, source.detail.link.type AS kind
                FROM read_json(?, format = 'array', columns = {
                    id: 'VARCHAR', source: 'STRUCT(detail STRUCT(link STRUCT(type VARCHAR)))'
                })
            )
            """,
            [str(body)],
        ).fetchone()
    assert row is not None
    rows, distinct, ids, redirections = row
    return rows, distinct, int(ids), redirections


COHORT = date(2026, 3, 20)
WINDOW_DAYS = 7


def cohort(folder: Path, sends: int, reactions: int) -> None:
    """The Parquet of a cohort of sends and of its reactions over the window, as the project would have fetched it.

    Reactions: 4 in 10 are hits, a quarter impressions, the others optouts and bounces.
    """
    shares = {"hits": 0.4, "impressions": 0.25, "optouts": 0.2, "bounces": 0.15}
    for kind in KINDS:
        after = [0, 1] if kind.asset == "activations" else range(WINDOW_DAYS + 1)
        total = sends if kind.asset == "activations" else int(reactions * shares[kind.asset])
        left = total
        for days in after:
            # most of them on the first day, and all that is left on the last
            count = left if days == after[-1] else int(left * (0.995 if kind.asset == "activations" else 0.6))
            _write_day(folder, kind, COHORT + timedelta(days=days), total - left, count, sends)
            left -= count


_BATCH = 2**20
_WORDS = {
    "link_type": (["redirection"] * 9 + ["dismissal"]),
    "bounce_verdict": ["hard", "hard", "soft"],
    "optout_type": ["channel"],
}


def _write_day(folder: Path, kind: EventKind, day: date, first: int, count: int, sends: int) -> None:
    whole = day_of(day.isoformat(), "UTC")
    made_with = f"UTC {ContactPolicy('drop').fingerprint}"
    schema = kind.schema.with_metadata(
        {b"np6.fetched_until": whole.end.isoformat().encode(), b"np6.made_with": made_with.encode()}
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for at in range(0, count, _BATCH):
            number = np.arange(at, min(at + _BATCH, count), dtype=np.uint64)
            yield _rows(schema, kind, whole, number, first, count, sends)

    rows = pa.RecordBatchReader.from_batches(schema, batches())
    parquet.write(Folder(str(folder)), parquet.file_of(kind.asset, "event_date", whole.key), rows)


def _rows(
    schema: pa.Schema, kind: EventKind, day: Day, number: np.ndarray, first: int, count: int, sends: int
) -> pa.RecordBatch:
    """Rows of a day: activation number n is of send n; a reaction of one drawn at random, one in a hundred of none."""
    is_send = kind.asset == "activations"
    drawn = sequence(fold(SEED, len(kind.asset), ord(kind.asset[0])), number + np.uint64(first))
    send = number + np.uint64(first) if is_send else drawn % np.uint64(sends + sends // 100)
    key = sequence(fold(SEED), send)
    cohort_start = day_of(COHORT.isoformat(), "UTC").start_ms
    at = day.start_ms + number.astype(np.int64) * DAY // max(count, 1)
    notification = (key % np.uint64(6)).astype(np.int64)
    activated = cohort_start + (key % np.uint64(DAY)).astype(np.int64)

    def ids(hashes: np.ndarray) -> pa.Array:
        text = np.ascontiguousarray(uuids(hashes))
        offsets = pa.py_buffer(np.arange(0, 36 * (len(hashes) + 1), 36, dtype=np.int32))
        return pa.StringArray.from_buffers(len(hashes), offsets, pa.py_buffer(text))

    def one_of(words: list[str], choice: np.ndarray) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(choice.astype(np.int32)), pa.array(words)).cast(pa.string())

    versions = ["ecce4585-1627-4495-90fc-7bbc27d2ae26", "3c74d8f9-b9e9-4864-b3fb-c97f57d7a80f"]
    made: dict[str, pa.Array] = {
        "event_id": ids(drawn),
        "event_time": pa.array(at),
        "activation_id": pa.array(101 + notification),
        "agency": one_of(["DEMO"], notification * 0),
        "customer": one_of(["028"], notification * 0),
        "activation_version": one_of(versions, (key >> np.uint64(8)) % np.uint64(2)),
        "activation_kind": one_of(["application"], notification * 0),
        "application_id": one_of(versions, (key >> np.uint64(16)) % np.uint64(2)),
        "subscription_id": ids(sequence(fold(1), (key >> np.uint64(20)) % np.uint64(max(sends // 3, 1)))),
        "stamp_id": ids(key),
        "stamp_thread": ids(sequence(fold(2), (key >> np.uint64(20)) % np.uint64(max(sends // 3, 1)))),
        "activated_at": pa.array(activated),
    }
    made |= {
        name: one_of(words, (drawn >> np.uint64(24)) % np.uint64(len(words)))
        for name, words in _WORDS.items()
        if name in schema.names
    }
    columns = [
        made[field.name].cast(field.type) if field.name in made else pa.nulls(len(number), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
