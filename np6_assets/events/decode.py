"""Decode a part to one sorted run of typed rows, its rejected events, and counts.

Knows files and Arrow, nothing of HTTP. The SQL is in `json_sql.py`, the validation of single events in `reject.py`.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from np6_assets.contact.policy import ContactPolicy
from np6_assets.contact.rows import RowPolicy
from np6_assets.contact.tombstones import Tombstones
from np6_assets.events import json_sql
from np6_assets.events.json_sql import ID_HASH
from np6_assets.events.kinds import EventKind
from np6_assets.events.merge import EVENTS, IS_STORED, QUARANTINE, Numbers, RunStore, SortedRun, sort_and_deduplicate
from np6_assets.events.reject import (
    NOT_PARSED,
    REJECTED_SCHEMA,
    UNKNOWN_AGENCY,
    EventValidator,
    RejectedEvent,
    get_agency,
    parse_event,
    read_event_time,
)
from np6_assets.events.unknown_fields import build_known_tree, find_unknown_fields, sample_events
from np6_assets.np6.stream import Part, find_elements
from np6_assets.storage.query import connect_decoder

Edges = Sequence[int]
"""The window of a part, in ms: its start, the ends of its days but the last, its end."""


@dataclass
class DecodedEvents:
    """What was decoded from parts; days are numbered as those of their window.

    Attributes:
        runs: the rows of all days, with ID_HASH; `rejected`: the rejected events of all days.
        received: number of events by day, duplicates included; `outside_window`: of no day.
        erased_keys: keys of events whose receiver was erased; `erased_counts`: their number by day.
        unknown_fields: days and paths; `unreadable_values`: counts by day and column.
        unknown_agencies: number of events by agency, of agencies that the folder does not know.
    """

    runs: list[SortedRun] = field(default_factory=list)
    rejected: list[SortedRun] = field(default_factory=list)
    received: Counter[int] = field(default_factory=Counter)
    outside_window: int = 0
    erased_keys: list[str] = field(default_factory=list)
    erased_counts: Counter[int] = field(default_factory=Counter)
    unknown_fields: set[tuple[int, str]] = field(default_factory=set)
    unreadable_values: Counter[tuple[int, str]] = field(default_factory=Counter)
    unknown_agencies: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: DecodedEvents) -> DecodedEvents:
        for name in vars(self):
            value, more = getattr(self, name), getattr(other, name)
            setattr(self, name, value | more if isinstance(value, set) else value + more)
        return self


@dataclass(frozen=True)
class DecodedPart:
    """One decoded part.

    Attributes:
        events: all but the rejected ones.
        rejected: rows of REJECTED_SCHEMA; `placed` is 0 if no event with a time precedes.
        times: times of the rows in the order received, those outside the window included.
        last_time: time (ms) of the last event inside the window that has one, rejected or not; else 0.
    """

    events: DecodedEvents
    rejected: list[dict[str, Any]]
    times: Numbers
    last_time: int


@dataclass
class _PartRows:
    """A part as read: `tables` hold the events at `places`, which are all but those in `rejected`.

    `answer_starts` has the place of the first event of each answer.
    """

    answer_starts: list[int]
    tables: list[pa.Table] = field(default_factory=list)
    places: list[Numbers] = field(default_factory=list)
    rejected: list[RejectedEvent] = field(default_factory=list)


class Decoder:
    """Decodes parts of one event kind. Safe to share between threads."""

    def __init__(
        self, kind: EventKind, contact: ContactPolicy, tombstones: Tombstones, agencies: frozenset[str] = frozenset()
    ) -> None:
        """`agencies` are the known ones; if there are none, every one is admitted."""
        self.kind = kind
        self._agencies = sorted(agencies)
        self.schema = pa.schema([*kind.schema, pa.field(ID_HASH, pa.uint64()), pa.field(IS_STORED, pa.bool_())])
        self.policy = RowPolicy(contact, tombstones)
        self._lock = threading.Lock()
        self._validator = EventValidator(kind, agencies)
        self._known = build_known_tree(kind)
        self._query = json_sql.build_part_query(kind)
        self._database: duckdb.DuckDBPyConnection | None = None

    def decode(self, part: Part, edges: Edges, store: RunStore) -> DecodedPart:
        """Decode a part and close it; its rows inside the window become a run of the store."""
        with closing(part):
            read = self._read_part(part)
            fields = [
                (read_event_time(event), path)
                for event in sample_events(part)
                for path in find_unknown_fields(event, self._known)
            ]
        table, places = pa.concat_tables(read.tables), np.concatenate(read.places)
        times = np.zeros(len(places) + len(read.rejected), np.int64)
        times[places] = table.column("event_time").to_numpy()
        times[[one.place for one in read.rejected]] = [read_event_time(one.value) for one in read.rejected]
        days = _assign_days(times, edges)
        is_inside = days[places] >= 0
        rows, erased = self._build_rows(table if is_inside.all() else table.filter(pa.array(is_inside)))
        rejected, more_erased = self._build_rejected(read, times, days)
        of_erased = Counter(more_erased.values())
        if erased:
            is_out = pc.is_in(table.column("event_id"), value_set=pa.array(erased, pa.string())).to_numpy()
            of_erased += _count_by_day(days[places][is_inside & is_out])
        timed = times[days >= 0]
        days_of_fields = _assign_days(np.array([time for time, _ in fields], np.int64), edges).tolist()
        found = DecodedEvents(
            runs=store.add(rows),
            received=_count_by_day(days[places]),
            outside_window=int(np.count_nonzero((times > 0) & (days < 0))),
            erased_keys=[*erased, *more_erased],
            erased_counts=of_erased,
            unknown_fields={(day, path) for day, (_, path) in zip(days_of_fields, fields, strict=True) if day >= 0},
            unreadable_values=self._count_unreadable(table, days[places]),
            unknown_agencies=Counter(get_agency(one.value) for one in read.rejected if one.reason == UNKNOWN_AGENCY),
        )
        return DecodedPart(found, rejected, times[places], int(timed[-1]) if timed.size else 0)

    def release_memory(self) -> None:
        """Free what DuckDB keeps of large parts; the next query connects again."""
        self._database = None

    def hash_texts(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """Hash texts to ID_HASH."""
        with self._cursor() as cursor:
            table = cursor.from_arrow(pa.table({"text": texts})).project(f"hash(text) AS {ID_HASH}").to_arrow_table()
            return table.column(ID_HASH)

    def build_quarantine_rows(self, rejected: list[dict[str, Any]], *, stored: bool) -> pa.Table:
        """Build sorted rows of REJECTED_SCHEMA with the columns that they are merged by."""
        table = pa.Table.from_pylist(rejected, REJECTED_SCHEMA)
        hashes = to_sort_numbers(self.hash_texts(table.column("event_key")).to_numpy())
        table = table.append_column(QUARANTINE.number, pa.array(hashes, pa.int64()))
        table = table.append_column(IS_STORED, pa.repeat(stored, table.num_rows))
        # one key may be on several days of the window; each day's merge keeps its own
        return table.sort_by([(QUARANTINE.number, "ascending"), (QUARANTINE.key, "ascending")])

    # --- reading ----------------------------------------------------------------------------------------------------

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._database is None:
                self._database = connect_decoder()
            return self._database.cursor()

    def _read_part(self, part: Part) -> _PartRows:
        """Read a part at once, or event by event if DuckDB refuses it."""
        read = _PartRows([event for event, _ in part.answers])
        if self._try_read(part, np.arange(part.events), read):
            return read
        text = part.read()
        spans = list(find_elements(text))
        read.answer_starts = [bisect_left(spans, (place, 0)) for _, place in part.answers]
        good: list[tuple[int, bytes]] = []
        for place, (start, end) in enumerate(spans):
            raw = text[start:end].strip()
            value, reason = self._validator.parse_and_check(raw)
            if reason is None:
                good.append((place, raw))
            else:
                read.rejected.append(RejectedEvent(place, raw, value, reason))
        self._read_by_halves([], read)  # the columns, should DuckDB refuse each of the events
        self._read_by_halves(good, read)
        return read

    def _read_by_halves(self, events: list[tuple[int, bytes]], read: _PartRows) -> None:
        """Read events with their places; halve them until those that DuckDB refuses are found."""
        with closing(Part.from_elements(b",".join(raw for _, raw in events), len(events))) as part:
            if self._try_read(part, np.array([place for place, _ in events], np.int64), read):
                return
        if len(events) > 1:
            middle = len(events) // 2
            self._read_by_halves(events[:middle], read)
            self._read_by_halves(events[middle:], read)
        else:
            [(place, raw)] = events
            read.rejected.append(
                RejectedEvent(place, raw, parse_event(raw.decode(errors="backslashreplace")), NOT_PARSED)
            )

    def _try_read(self, part: Part, places: Numbers, read: _PartRows) -> bool:
        """Read a part whose events have these places; False if DuckDB refuses it or sees other events."""
        try:
            with self._cursor() as cursor:
                table = cursor.sql(self._query, params={"part": part.path, "agencies": self._agencies}).to_arrow_table()
                doubtful = np.flatnonzero(table.column(json_sql.NEEDS_CHECK).to_numpy()).tolist()
                parameters = {"part": part.path, "places": doubtful}
                texts = cursor.execute(json_sql.EVENTS_AT, parameters).fetchall() if doubtful else []
        except (duckdb.FatalException, duckdb.InternalException, UnicodeDecodeError):
            self.release_memory()  # the error may have closed the database; its text may be cut within a character
            return False
        except duckdb.Error:
            return False
        if table.num_rows != len(places):
            return False
        keep = np.ones(table.num_rows, bool)
        for row, text in texts:
            value = parse_event(text)
            reason = NOT_PARSED if value is None else self._validator.find_reason(value)
            if reason is not None:
                read.rejected.append(RejectedEvent(int(places[row]), text.encode(), value, reason))
                keep[row] = False
        read.tables.append(table if keep.all() else table.filter(pa.array(keep)))
        read.places.append(places[keep])
        return True

    # --- what becomes of the events ---------------------------------------------------------------------------------

    def _build_rows(self, table: pa.Table) -> tuple[pa.Table, list[str]]:
        """Build the rows in the stored types, sorted; and the ids of those whose receiver was erased."""
        table, erased = self.policy.treat_rows(table.select([*self.kind.schema.names, ID_HASH]))
        table = table.append_column(IS_STORED, pa.repeat(False, table.num_rows))
        return sort_and_deduplicate(table.cast(self.schema), EVENTS), erased

    def _build_rejected(
        self, read: _PartRows, times: Numbers, days: Numbers
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Build the rejected rows of the window; and keys and days of those whose receiver was erased."""
        rows: list[dict[str, Any]] = []
        erased: dict[str, int] = {}
        last_timed = np.maximum.accumulate(np.where(days >= 0, np.arange(len(days)), -1))
        for one in read.rejected:
            if times[one.place] and days[one.place] < 0:
                continue
            # its own time, or that of the last event with a time before it in its answer and window
            timed = int(last_timed[one.place])
            is_timed = timed >= read.answer_starts[bisect_right(read.answer_starts, one.place) - 1]
            if self.policy.is_erased(one.value):
                erased[one.key] = int(days[timed]) if is_timed else 0
                continue
            placed = int(times[timed]) if is_timed else 0
            event = self.policy.contact.treat_event(one.value, one.raw)
            rows.append({"placed": placed, "event_key": one.key, "reason": one.reason, "event": event})
        return rows, erased

    def _count_unreadable(self, table: pa.Table, days: Numbers) -> Counter[tuple[int, str]]:
        masks = table.column(json_sql.UNREADABLE).to_numpy()
        columns = json_sql.list_nullable_columns(self.kind) if masks.any() else []
        return +Counter(
            {
                (day, column.name): count
                for bit, column in enumerate(columns)
                for day, count in _count_by_day(days[masks & (1 << bit) > 0]).items()
            }
        )


def to_sort_numbers(hashes: npt.NDArray[np.uint64]) -> Numbers:
    """Convert ID_HASH to the number that rejected events are sorted by."""
    return (hashes >> np.uint64(2)).astype(np.int64)


def _assign_days(times: Numbers, edges: Edges) -> Numbers:
    """Assign each time to the number of its day in the window; -1 outside."""
    days = np.searchsorted(np.asarray(edges), times, side="right") - 1
    return np.where(days < len(edges) - 1, days, -1)


def _count_by_day(days: Numbers) -> Counter[int]:
    """Count the days of the window; -1 is not counted."""
    return Counter(dict(enumerate(np.bincount(days[days >= 0]).tolist())))
