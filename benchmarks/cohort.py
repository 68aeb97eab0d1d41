"""Write the Parquet of a cohort of sends and its reactions. The same seed gives the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.inputs import SEED
from benchmarks.rendering import generate_hashes, generate_uuids, hash_numbers
from np6_assets.contact.policy import ContactPolicy
from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.partitions import Day, parse_day
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

COHORT = parse_day("2026-03-20", "UTC")
WINDOW_DAYS = 7

_DAY_MS = 86_400_000
_BATCH_ROWS = 2**20
_REACTION_SHARES = {"hits": 0.4, "impressions": 0.25, "optouts": 0.2, "bounces": 0.15}
_IDS = ["ecce4585-1627-4495-90fc-7bbc27d2ae26", "3c74d8f9-b9e9-4864-b3fb-c97f57d7a80f"]
_WORDS = {
    "link_type": (["redirection"] * 9 + ["dismissal"]),
    "bounce_verdict": ["hard", "hard", "soft"],
    "optout_type": ["channel"],
}


def write_cohort(folder: Path, sends: int, reactions: int) -> None:
    """Write the event files of a cohort and its window, as the project would have fetched them."""
    first_day = COHORT.date
    for kind in KINDS:
        is_send = kind.asset == "activations"
        total = remaining = sends if is_send else int(reactions * _REACTION_SHARES[kind.asset])
        last = 1 if is_send else WINDOW_DAYS
        for ahead in range(last + 1):
            # Most events are of the first days; the last day gets the rest.
            count = remaining if ahead == last else int(remaining * (0.995 if is_send else 0.6))
            day = parse_day(str(first_day + timedelta(days=ahead)), "UTC")
            _write_day(folder, kind, day, total - remaining, count, sends)
            remaining -= count


def _write_day(folder: Path, kind: EventKind, day: Day, first: int, count: int, sends: int) -> None:
    made_with = f"UTC {ContactPolicy('drop').fingerprint}"
    schema = kind.schema.with_metadata(
        {b"np6.fetched_until": day.end.isoformat().encode(), b"np6.made_with": made_with.encode()}
    )

    def build_batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, count, _BATCH_ROWS):
            numbers = np.arange(start, min(start + _BATCH_ROWS, count), dtype=np.uint64)
            yield _build_batch(schema, kind, day, numbers, first, count, sends)

    rows = pa.RecordBatchReader.from_batches(schema, build_batches())
    parquet.write_file(Folder(str(folder)), parquet.build_path(kind.asset, "event_date", day.key), rows)


def _build_batch(
    schema: pa.Schema, kind: EventKind, day: Day, numbers: np.ndarray, first: int, count: int, sends: int
) -> pa.RecordBatch:
    """Build rows of a day. Activation n is of send n, a reaction of a random send; one in a hundred has no send."""
    numbers_of_all_days = numbers + np.uint64(first)
    event = generate_hashes(hash_numbers(SEED, len(kind.asset), ord(kind.asset[0])), numbers_of_all_days)
    send = numbers_of_all_days if kind.asset == "activations" else event % np.uint64(sends + sends // 100)
    key = generate_hashes(hash_numbers(SEED), send)
    contact = (key >> np.uint64(20)) % np.uint64(max(sends // 3, 1))
    same = np.zeros(len(numbers), dtype=np.int32)
    columns: dict[str, pa.Array] = {
        "event_id": _build_ids(event),
        "event_time": pa.array(day.start_ms + numbers.astype(np.int64) * _DAY_MS // max(count, 1)),
        "activation_id": pa.array(101 + (key % np.uint64(6)).astype(np.int64)),
        "agency": _choose(["DEMO"], same),
        "customer": _choose(["028"], same),
        "activation_version": _choose(_IDS, key >> np.uint64(8)),
        "activation_kind": _choose(["application"], same),
        "application_id": _choose(_IDS, key >> np.uint64(16)),
        "subscription_id": _build_ids(generate_hashes(hash_numbers(1), contact)),
        "stamp_id": _build_ids(key),
        "stamp_thread": _build_ids(generate_hashes(hash_numbers(2), contact)),
        "activated_at": pa.array(COHORT.start_ms + (key % np.uint64(_DAY_MS)).astype(np.int64)),
        **{name: _choose(words, event >> np.uint64(24)) for name, words in _WORDS.items()},
    }
    nulls = pa.nulls(len(numbers))
    return pa.RecordBatch.from_arrays(
        [columns.get(field.name, nulls).cast(field.type) for field in schema], schema=schema
    )


def _build_ids(hashes: np.ndarray) -> pa.Array:
    text = np.ascontiguousarray(generate_uuids(hashes))
    offsets = pa.py_buffer(np.arange(0, 36 * (len(hashes) + 1), 36, dtype=np.int32))
    return pa.StringArray.from_buffers(len(hashes), offsets, pa.py_buffer(text))


def _choose(words: list[str], hashes: np.ndarray) -> pa.Array:
    choice = (hashes % np.array(len(words), dtype=hashes.dtype)).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(choice), pa.array(words)).cast(pa.string())
