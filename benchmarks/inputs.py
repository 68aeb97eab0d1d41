"""Write a day of events as JSON, in files that `server` sends. The same seed gives the same bytes.

This module sets number, time, order and notification of the events; `rendering` writes all other values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import duckdb
import numpy as np

from benchmarks.rendering import EVENT, Notification, Renderer, generate_hashes, hash_numbers
from np6_assets.partitions import parse_day

SEED = 6
DAY = parse_day("2026-03-20", "UTC")
NOTIFICATION_COUNT = 300

_BATCH_EVENTS = 50_000


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
    """A day of events in files, and what to check an output against.

    Attributes:
        shape: its shape.
        body: file of one JSON array.
        index: file of int64 pairs, in the order of the body: time of an event and offset of its first byte; the last
            pair is the end.
        notifications: JSON file of triples (id, number of the first event, number after the last), or empty for a feed
            of the whole account.
        label: label of each redirection, or empty where labels are not checked.
        bytes: size of the body.
        rows: number of events.
        distinct: number of distinct ids.
        ids: hashes of all ids combined, in any order; None without events.
        redirections: number of events whose link is a redirection.
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
    def files(self) -> tuple[str, ...]:
        """The feed's files, in the order of the server's arguments."""
        return tuple(file for file in (self.body, self.index, self.notifications) if file)

    def remove(self) -> None:
        """Remove the feed's files."""
        for file in self.files:
            Path(file).unlink()


def write_feed(folder: Path, events: int, shape: Shape = Shape.PLAIN) -> Feed:
    """Write a day of events. Takes the memory of a batch of text, and up to 40 bytes an event."""
    body, index, notifications = (folder / f"{shape}-{events}.{kind}" for kind in ("body", "index", "notifications"))
    renderer = Renderer("activation" if shape is Shape.NOTIFICATIONS else "hit", _build_notifications(shape))
    batches = _generate_activations(events) if shape is Shape.NOTIFICATIONS else _generate_hits(events, shape)
    offset = 0
    with body.open("wb") as text, index.open("wb") as pairs:
        for batch in batches:
            rendered = renderer.render(batch)  # a comma before each event
            if shape is Shape.ESCAPES:
                rendered = _escape(rendered)
            commas = offset + _find_commas(rendered)
            pairs.write(np.stack([batch["timestamp"], commas + 1], axis=1).tobytes())
            text.write(rendered if offset else b"[" + rendered[1:])
            offset += len(rendered)
        pairs.write(np.array([2**62, offset + 1], dtype=np.int64).tobytes())
        text.write(b"]")
    if shape is Shape.NOTIFICATIONS:
        notifications.write_text(json.dumps(_build_ranges(events)))
    return Feed(
        shape,
        str(body),
        str(index),
        str(notifications) if shape is Shape.NOTIFICATIONS else "",
        _LABEL if shape is Shape.ESCAPES else "",
        body.stat().st_size,
        *_count_events(body),
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


def _build_notifications(shape: Shape) -> list[Notification]:
    """Build one notification for each link, or many with the same link."""
    if shape is Shape.NOTIFICATIONS:
        return [Notification(1001 + number, "marketing", *_LINKS[0]) for number in range(NOTIFICATION_COUNT)]
    if shape is Shape.ESCAPES:
        return [Notification(101 + number, "actualités", _LABEL, uri) for number, (_, uri) in enumerate(_LINKS)]
    return [Notification(101 + number, "marketing", *link) for number, link in enumerate(_LINKS)]


def _escape(rendered: bytes) -> bytes:
    r"""Escape as PHP's json_encode does: `\/`, and `\u00e9` for the only letter beyond ASCII."""
    return rendered.replace(b"/", rb"\/").replace("é".encode(), rb"\u00e9")


def _generate_hits(events: int, shape: Shape) -> Iterator[np.ndarray]:
    """Yield hits in batches, at even distances in time; nine in ten are click-throughs."""
    base = hash_numbers(SEED, events)
    order = None
    if shape is Shape.RANDOM:
        order = np.argsort(generate_hashes(hash_numbers(SEED, events, 1), np.arange(events, dtype=np.uint64)))
    for first in range(0, events, _BATCH_EVENTS):
        number = np.arange(first, min(first + _BATCH_EVENTS, events), dtype=np.uint64)
        if order is not None:
            number = order[first : first + _BATCH_EVENTS].astype(np.uint64)
        rows = np.zeros(len(number), dtype=EVENT)
        rows["key"] = generate_hashes(base, number)
        rows["timestamp"] = _spread_over_day(number.astype(np.int64), events)
        rows["stamp_time"] = rows["timestamp"] - _compute_delays(rows["key"])
        rows["notification"] = rows["key"] % np.uint64(len(_LINKS))
        rows["dismissed"] = rows["key"] % np.uint64(10) == 0
        yield rows


def _generate_activations(events: int) -> Iterator[np.ndarray]:
    """Yield activations in batches, notification by notification, each one's at even distances over the day."""
    base = hash_numbers(SEED, events, 2)
    firsts = _compute_first_numbers(events)
    for first in range(0, events, _BATCH_EVENTS):
        number = np.arange(first, min(first + _BATCH_EVENTS, events), dtype=np.int64)
        notification = np.searchsorted(firsts, number, side="right") - 1
        count = firsts[notification + 1] - firsts[notification]
        rows = np.zeros(len(number), dtype=EVENT)
        rows["key"] = generate_hashes(base, number.astype(np.uint64))
        rows["timestamp"] = _spread_over_day(number - firsts[notification], count)
        rows["stamp_time"] = rows["timestamp"] - _compute_delays(rows["key"])
        rows["notification"] = notification
        yield rows


def _compute_first_numbers(events: int) -> np.ndarray:
    """Compute the number of each notification's first event, then that of all; the n-th has 1/n of the first's."""
    # Integers only, so that the numbers are the same on every machine.
    shares = np.cumsum(10**9 // np.arange(1, NOTIFICATION_COUNT + 1, dtype=np.int64))
    return np.concatenate([[0], events * shares // shares[-1]])


def _build_ranges(events: int) -> list[tuple[int, int, int]]:
    firsts = _compute_first_numbers(events).tolist()
    ids = [notification.id for notification in _build_notifications(Shape.NOTIFICATIONS)]
    return list(zip(ids, firsts[:-1], firsts[1:], strict=True))


def _spread_over_day(number: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    return DAY.start_ms + number * (DAY.end_ms - DAY.start_ms) // count


def _compute_delays(keys: np.ndarray) -> np.ndarray:
    """Compute the time from a send to its event, in ms: up to two hours."""
    return (keys >> np.uint64(38)).astype(np.int64) // 10


def _find_commas(rendered: bytes) -> np.ndarray:
    """Find the offset of the comma before each event."""
    opening = rendered[: rendered.index(b'"id"')]
    offsets, offset = [], rendered.find(opening)
    while offset >= 0:
        offsets.append(offset)
        offset = rendered.find(opening, offset + len(opening))
    return np.array(offsets, dtype=np.int64)


def _count_events(body: Path) -> tuple[int, int, int, int]:
    """Count rows, distinct ids and redirections, and combine all ids, with another reader than the project's."""
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
