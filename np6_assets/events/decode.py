"""Decoding: one part becomes one sorted run of typed rows, its rejected events, and what was counted in it.

Knows files and Arrow, nothing of HTTP. The SQL is in `json_sql.py`, the judgement of single events in `reject.py`.
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
from np6_assets.events.merge import EVENTS, IS_STORED, QUARANTINE, Numbers, Run, RunStore, sorted_unique
from np6_assets.events.reject import FOREIGN, NOT_PARSED, REJECTED_SCHEMA, Judge, Rejected, agency_of, parsed, published
from np6_assets.events.unknown_fields import known_fields, sample, unknown_fields
from np6_assets.np6.stream import Part, elements
from np6_assets.storage.query import connect_decoder

Edges = Sequence[int]
"""The window that a part was asked for, in ms: its start, the ends of its days but the last, its end."""


@dataclass
class Found:
    """What was found in parts; days are numbered as those of their window.

    Attributes:
        runs: the rows, with ID_HASH, and `rejected` the rejected events, of all days.
        received: how many events there are of each day, repeated ones included; `outside` of none.
        erased: keys of events whose receiver was erased; `of_erased` how many there are of each day.
        unknown: unknown fields, and `unreadable` values by column, by day.
        foreign: how many events are of an agency that is not known, by agency.
    """

    runs: list[Run] = field(default_factory=list)
    rejected: list[Run] = field(default_factory=list)
    received: Counter[int] = field(default_factory=Counter)
    outside: int = 0
    erased: list[str] = field(default_factory=list)
    of_erased: Counter[int] = field(default_factory=Counter)
    unknown: set[tuple[int, str]] = field(default_factory=set)
    unreadable: Counter[tuple[int, str]] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Found) -> Found:
        for name in vars(self):
            value, more = getattr(self, name), getattr(other, name)
            setattr(self, name, value | more if isinstance(value, set) else value + more)
        return self


@dataclass(frozen=True)
class Decoded:
    """A part's events.

    Attributes:
        found: all but the rejected events.
        rejected: rows of REJECTED_SCHEMA; `placed` is 0 where no event before was timed.
        times: when the rows were published, those outside the window included, in the order in which they came.
        timed: when the last event inside the window was published that says so, row or not; 0 without.
    """

    found: Found
    rejected: list[dict[str, Any]]
    times: Numbers
    timed: int


@dataclass
class _Read:
    """A part as it was read: `tables` have the events at `places`, which are all but those in `rejected`.

    `starts` has the place of the first event of each answer.
    """

    starts: list[int]
    tables: list[pa.Table] = field(default_factory=list)
    places: list[Numbers] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


class Decoder:
    """Decodes parts of one event kind. Safe to share between threads."""

    def __init__(
        self, kind: EventKind, contact: ContactPolicy, tombstones: Tombstones, agencies: frozenset[str] = frozenset()
    ) -> None:
        """`agencies` are the known ones; where there are none, every one is admitted."""
        self.kind = kind
        self._agencies = sorted(agencies)
        self.schema = pa.schema([*kind.schema, pa.field(ID_HASH, pa.uint64()), pa.field(IS_STORED, pa.bool_())])
        self.policy = RowPolicy(contact, tombstones)
        self._lock = threading.Lock()
        self._judge = Judge(kind, agencies)
        self._known = known_fields(kind)
        self._query = json_sql.part_query(kind)
        self._database: duckdb.DuckDBPyConnection | None = None

    def decode(self, part: Part, edges: Edges, store: RunStore) -> Decoded:
        """Decode a part, and close it. Its rows that are in the window become a run of the store."""
        with closing(part):
            read = self._read(part)
            fields = [(published(event), path) for event in sample(part) for path in unknown_fields(event, self._known)]
        table, places = pa.concat_tables(read.tables), np.concatenate(read.places)
        times = np.zeros(len(places) + len(read.rejected), np.int64)
        times[places] = table.column("event_time").to_numpy()
        times[[one.place for one in read.rejected]] = [published(one.value) for one in read.rejected]
        days = _days(times, edges)
        is_inside = days[places] >= 0
        rows, erased = self._rows(table if is_inside.all() else table.filter(pa.array(is_inside)))
        rejected, more_erased = self._rejected(read, times, days)
        of_erased = Counter(more_erased.values())
        if erased:
            is_out = pc.is_in(table.column("event_id"), value_set=pa.array(erased, pa.string())).to_numpy()
            of_erased += _counted(days[places][is_inside & is_out])
        timed = times[days >= 0]
        days_of_fields = _days(np.array([time for time, _ in fields], np.int64), edges).tolist()
        found = Found(
            runs=store.add(rows),
            received=_counted(days[places]),
            outside=int(np.count_nonzero((times > 0) & (days < 0))),
            erased=[*erased, *more_erased],
            of_erased=of_erased,
            unknown={(day, path) for day, (_, path) in zip(days_of_fields, fields, strict=True) if day >= 0},
            unreadable=self._unreadable(table, days[places]),
            foreign=Counter(agency_of(one.value) for one in read.rejected if one.reason == FOREIGN),
        )
        return Decoded(found, rejected, times[places], int(timed[-1]) if timed.size else 0)

    def release(self) -> None:
        """Give back what DuckDB keeps of large parts; the next query connects again."""
        self._database = None

    def hashes(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """ID_HASH of ids."""
        with self._cursor() as cursor:
            table = cursor.from_arrow(pa.table({"text": texts})).project(f"hash(text) AS {ID_HASH}").to_arrow_table()
            return table.column(ID_HASH)

    def keyed(self, rejected: list[dict[str, Any]], *, stored: bool) -> pa.Table:
        """Rows of REJECTED_SCHEMA with the helper columns by which they are merged, sorted."""
        table = pa.Table.from_pylist(rejected, REJECTED_SCHEMA)
        hashes = key_hashes(self.hashes(table.column("event_key")).to_numpy())
        table = table.append_column(QUARANTINE.number, pa.array(hashes, pa.int64()))
        table = table.append_column(IS_STORED, pa.repeat(stored, table.num_rows))
        # one key may be on several days of the window: they are told apart when a day is merged
        return table.sort_by([(QUARANTINE.number, "ascending"), (QUARANTINE.key, "ascending")])

    # --- reading ----------------------------------------------------------------------------------------------------

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._database is None:
                self._database = connect_decoder()
            return self._database.cursor()

    def _read(self, part: Part) -> _Read:
        """The part's events; one by one where DuckDB refuses the part."""
        read = _Read([event for event, _ in part.answers])
        if self._read_at_once(part, np.arange(part.events), read):
            return read
        text = part.read()
        spans = list(elements(text))
        read.starts = [bisect_left(spans, (place, 0)) for _, place in part.answers]
        good: list[tuple[int, bytes]] = []
        for place, (start, end) in enumerate(spans):
            raw = text[start:end].strip()
            value, reason = self._judge.parse(raw)
            if reason is None:
                good.append((place, raw))
            else:
                read.rejected.append(Rejected(place, raw, value, reason))
        self._read_some([], read)  # the columns, should DuckDB refuse each of the events
        self._read_some(good, read)
        return read

    def _read_some(self, events: list[tuple[int, bytes]], read: _Read) -> None:
        """Read events by their places; those that DuckDB refuses are found by halving."""
        with closing(Part.of(b",".join(raw for _, raw in events), len(events))) as part:
            if self._read_at_once(part, np.array([place for place, _ in events], np.int64), read):
                return
        if len(events) > 1:
            middle = len(events) // 2
            self._read_some(events[:middle], read)
            self._read_some(events[middle:], read)
        else:
            [(place, raw)] = events
            read.rejected.append(Rejected(place, raw, parsed(raw.decode(errors="backslashreplace")), NOT_PARSED))

    def _read_at_once(self, part: Part, places: Numbers, read: _Read) -> bool:
        """Read a part whose events have these places; False where DuckDB refuses it, or sees other events."""
        try:
            with self._cursor() as cursor:
                table = cursor.sql(self._query, params={"part": part.path, "agencies": self._agencies}).to_arrow_table()
                doubtful = np.flatnonzero(table.column(json_sql.IS_DOUBTFUL).to_numpy()).tolist()
                asked = {"part": part.path, "places": doubtful}
                texts = cursor.execute(json_sql.EVENTS_AT, asked).fetchall() if doubtful else []
        except (duckdb.FatalException, duckdb.InternalException):
            self.release()  # the error has closed the database
            return False
        except duckdb.Error:
            return False
        if table.num_rows != len(places):
            return False
        keep = np.ones(table.num_rows, bool)
        for row, text in texts:
            value = parsed(text)
            reason = NOT_PARSED if value is None else self._judge.reason(value)
            if reason is not None:
                read.rejected.append(Rejected(int(places[row]), text.encode(), value, reason))
                keep[row] = False
        read.tables.append(table if keep.all() else table.filter(pa.array(keep)))
        read.places.append(places[keep])
        return True

    # --- what becomes of the events ---------------------------------------------------------------------------------

    def _rows(self, table: pa.Table) -> tuple[pa.Table, list[str]]:
        """The rows in the stored types, sorted, and the ids of those whose receiver was erased."""
        table, erased = self.policy.treated(table.select([*self.kind.schema.names, ID_HASH]))
        table = table.append_column(IS_STORED, pa.repeat(False, table.num_rows))
        return sorted_unique(table.cast(self.schema), EVENTS), erased

    def _rejected(self, read: _Read, times: Numbers, days: Numbers) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The rejected events of the window, and keys and days of those whose receiver was erased."""
        rows: list[dict[str, Any]] = []
        erased: dict[str, int] = {}
        last_timed = np.maximum.accumulate(np.where(days >= 0, np.arange(len(days)), -1))
        for one in read.rejected:
            if times[one.place] and days[one.place] < 0:
                continue
            # its own time, or that of the last timed event before it in its answer and window
            timed = int(last_timed[one.place])
            is_timed = timed >= read.starts[bisect_right(read.starts, one.place) - 1]
            if self.policy.is_erased(one.value):
                erased[one.key] = int(days[timed]) if is_timed else 0
                continue
            placed = int(times[timed]) if is_timed else 0
            event = self.policy.contact.redact(one.value, one.raw)
            rows.append({"placed": placed, "event_key": one.key, "reason": one.reason, "event": event})
        return rows, erased

    def _unreadable(self, table: pa.Table, days: Numbers) -> Counter[tuple[int, str]]:
        masks = table.column(json_sql.UNREADABLE).to_numpy()
        columns = json_sql.nullable_columns(self.kind) if masks.any() else []
        return +Counter(
            {
                (day, column.name): count
                for bit, column in enumerate(columns)
                for day, count in _counted(days[masks & (1 << bit) > 0]).items()
            }
        )


def key_hashes(hashes: npt.NDArray[np.uint64]) -> Numbers:
    """ID_HASH as the number by which rejected events are sorted."""
    return (hashes >> np.uint64(2)).astype(np.int64)


def _days(times: Numbers, edges: Edges) -> Numbers:
    """The number of each time's day in the window; -1 outside."""
    days = np.searchsorted(np.asarray(edges), times, side="right") - 1
    return np.where(days < len(edges) - 1, days, -1)


def _counted(days: Numbers) -> Counter[int]:
    """How many there are of each day of the window."""
    return Counter(dict(enumerate(np.bincount(days[days >= 0]).tolist())))
