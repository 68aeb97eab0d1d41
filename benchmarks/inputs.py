"""The contenders' input: a day of events as JSON, and a cohort as Parquet. The same seed gives the same bytes.

This module sets how many events there are, when they are, in which order, and of which notification each is; the other
values are in `rendering`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.rendering import EVENT, Notification, Renderer, fold, sequence, uuids
from np6_assets.contact.policy import ContactPolicy
from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.partitions import Day, parse_day
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

SEED = 6
HITS_DAY = parse_day("2026-03-20", "UTC")
NOTIFICATION_COUNT = 300

_CHUNK = 50_000


class Shape(StrEnum):
    """How a day of events comes from the API."""

    PLAIN = "plain"
    """Hits, sorted by time."""
    ESCAPES = "escapes"
    """Hits, sorted by time; each event has escapes in its channel, and each link in its label and address."""
    RANDOM = "random"
    """Hits in completely random order, whatever `sort` asks for."""
    NOTIFICATIONS = "notifications"
    """Activations, spread unevenly over 300 notifications, each of which has its own feed, sorted by time."""

    @property
    def asset(self) -> str:
        """The asset that the events belong to."""
        return "activations" if self is Shape.NOTIFICATIONS else "hits"


@dataclass(frozen=True)
class Feed:
    """A day of events as the server sends it, in files.

    `body` is one JSON array. `index` holds int64 pairs, in the order of the body: an event's time and the offset of its
    first byte; the last pair is the end. `notifications` is a JSON file with the id of each notification, the number of
    its first event and the number after its last, or empty for a feed of the whole account. The rest describes the
    events, to check an output against: `ids` combines the hashes of all ids, whatever their order, and is None without
    events; `label` is the label of each redirection, or empty where labels are not checked.
    """

    shape: Shape
    body: str
    index: str
    notifications: str
    label: str
    bytes: int
    rows: int
    distinct: int
    ids: int | None
    redirections: int

    @property
    def served(self) -> tuple[str, ...]:
        """The arguments of the server."""
        return tuple(file for file in (self.body, self.index, self.notifications) if file)


def remove(feed: Feed) -> None:
    """Remove the feed's files."""
    for file in feed.served:
        Path(file).unlink()


def feed(folder: Path, events: int, shape: Shape = Shape.PLAIN) -> Feed:
    """Write a day of so many events. Memory: a chunk of text, and up to 40 bytes an event."""
    body, index, notifications = (folder / f"{shape}-{events}.{kind}" for kind in ("body", "index", "notifications"))
    renderer = Renderer("activation" if shape is Shape.NOTIFICATIONS else "hit", _senders(shape))
    chunks = _activations(events) if shape is Shape.NOTIFICATIONS else _hits(events, shape)
    offset = 0
    with body.open("wb") as text, index.open("wb") as pairs:
        for chunk in chunks:
            rendered = renderer.render(chunk)  # each event after a comma
            if shape is Shape.ESCAPES:
                rendered = _escape(rendered)
            commas = offset + _commas(rendered)
            pairs.write(np.stack([chunk["timestamp"], commas + 1], axis=1).tobytes())
            text.write(rendered if offset else b"[" + rendered[1:])
            offset += len(rendered)
        pairs.write(np.array([2**62, offset + 1], dtype=np.int64).tobytes())
        text.write(b"]")
    if shape is Shape.NOTIFICATIONS:
        notifications.write_text(json.dumps(_ranges(events)))
    return Feed(
        shape,
        str(body),
        str(index),
        str(notifications) if shape is Shape.NOTIFICATIONS else "",
        _LABEL if shape is Shape.ESCAPES else "",
        body.stat().st_size,
        *_described(body),
    )


_LABEL = "Découvrir la sélection / tout voir"
_LINKS = (
    (None, "deeplink://product?id=594"),
    ("Back to my cart", "deeplink://cart"),
    ("See the sale", "https://shop.example.com/sale?from=push"),
    ("Track my order", "deeplink://order/track"),
    (None, "https://shop.example.com/digest"),
    (None, "deeplink://product?id=594"),
)


def _senders(shape: Shape) -> list[Notification]:
    """The notifications: one for each link, or many."""
    if shape is Shape.NOTIFICATIONS:
        return [Notification(1001 + number, "marketing", *_LINKS[0]) for number in range(NOTIFICATION_COUNT)]
    if shape is Shape.ESCAPES:
        return [Notification(101 + number, "actualités", _LABEL, uri) for number, (_, uri) in enumerate(_LINKS)]
    return [Notification(101 + number, "marketing", *link) for number, link in enumerate(_LINKS)]


def _escape(rendered: bytes) -> bytes:
    r"""Escape as PHP's json_encode does: `\/`, and `\u00e9` for the one letter beyond ASCII that there is."""
    return rendered.replace(b"/", rb"\/").replace("é".encode(), rb"\u00e9")


def _hits(events: int, shape: Shape) -> Iterator[np.ndarray]:
    """Hits at even distances, in chunks; nine in ten click through."""
    base = fold(SEED, events)
    order = None
    if shape is Shape.RANDOM:
        order = np.argsort(sequence(fold(SEED, events, 1), np.arange(events, dtype=np.uint64)))
    for first in range(0, events, _CHUNK):
        number = np.arange(first, min(first + _CHUNK, events), dtype=np.uint64)
        if order is not None:
            number = order[first : first + _CHUNK].astype(np.uint64)
        rows = np.zeros(len(number), dtype=EVENT)
        rows["key"] = sequence(base, number)
        rows["timestamp"] = _at(number.astype(np.int64), events)
        rows["stamp_time"] = rows["timestamp"] - _delay(rows["key"])
        rows["notification"] = rows["key"] % np.uint64(len(_LINKS))
        rows["dismissed"] = rows["key"] % np.uint64(10) == 0
        yield rows


def _activations(events: int) -> Iterator[np.ndarray]:
    """Activations, notification by notification, each one's at even distances over the day, in chunks."""
    base = fold(SEED, events, 2)
    firsts = _firsts(events)
    for first in range(0, events, _CHUNK):
        number = np.arange(first, min(first + _CHUNK, events), dtype=np.int64)
        notification = np.searchsorted(firsts, number, side="right") - 1
        count = firsts[notification + 1] - firsts[notification]
        rows = np.zeros(len(number), dtype=EVENT)
        rows["key"] = sequence(base, number.astype(np.uint64))
        rows["timestamp"] = _at(number - firsts[notification], count)
        rows["stamp_time"] = rows["timestamp"] - _delay(rows["key"])
        rows["notification"] = notification
        yield rows


def _firsts(events: int) -> np.ndarray:
    """The number of each notification's first event, and the number of all: the n-th has 1/n of what the first has."""
    # whole numbers alone, so that they are the same everywhere
    shares = np.cumsum(10**9 // np.arange(1, NOTIFICATION_COUNT + 1, dtype=np.int64))
    return np.concatenate([[0], events * shares // shares[-1]])


def _ranges(events: int) -> list[tuple[int, int, int]]:
    firsts = _firsts(events).tolist()
    ids = [one.id for one in _senders(Shape.NOTIFICATIONS)]
    return list(zip(ids, firsts[:-1], firsts[1:], strict=True))


def _at(number: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    return HITS_DAY.start_ms + number * (HITS_DAY.end_ms - HITS_DAY.start_ms) // count


def _delay(keys: np.ndarray) -> np.ndarray:
    """From a send to its event, in ms: up to two hours."""
    return (keys >> np.uint64(38)).astype(np.int64) // 10


def _commas(rendered: bytes) -> np.ndarray:
    """The offset of the comma before each event."""
    opening = rendered[: rendered.index(b'"id"')]
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
_DAY_MS = 86_400_000
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
    whole = parse_day(day.isoformat(), "UTC")
    made_with = f"UTC {ContactPolicy('drop').fingerprint}"
    schema = kind.schema.with_metadata(
        {b"np6.fetched_until": whole.end.isoformat().encode(), b"np6.made_with": made_with.encode()}
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for at in range(0, count, _BATCH):
            number = np.arange(at, min(at + _BATCH, count), dtype=np.uint64)
            yield _rows(schema, kind, whole, number, first, count, sends)

    rows = pa.RecordBatchReader.from_batches(schema, batches())
    parquet.write_file(Folder(str(folder)), parquet.build_path(kind.asset, "event_date", whole.key), rows)


def _rows(
    schema: pa.Schema, kind: EventKind, day: Day, number: np.ndarray, first: int, count: int, sends: int
) -> pa.RecordBatch:
    """Rows of a day: activation number n is of send n; a reaction of one drawn at random, one in a hundred of none."""
    is_send = kind.asset == "activations"
    drawn = sequence(fold(SEED, len(kind.asset), ord(kind.asset[0])), number + np.uint64(first))
    send = number + np.uint64(first) if is_send else drawn % np.uint64(sends + sends // 100)
    key = sequence(fold(SEED), send)
    cohort_start = parse_day(COHORT.isoformat(), "UTC").start_ms
    at = day.start_ms + number.astype(np.int64) * _DAY_MS // max(count, 1)
    notification = (key % np.uint64(6)).astype(np.int64)
    activated = cohort_start + (key % np.uint64(_DAY_MS)).astype(np.int64)

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
