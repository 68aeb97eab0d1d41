"""Decoding: one part becomes one sorted table of typed rows, and a table of the events that are rejected.

Knows files and Arrow, nothing of HTTP. The SQL is in `json_sql.py`, the judgement of single events in `reject.py`.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

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
from np6_assets.events.merge import EVENTS, IS_STORED, QUARANTINE, sorted_unique
from np6_assets.events.reject import REJECTED_SCHEMA, Judge, Rejected, Uncertain, parsed_or_none
from np6_assets.events.unknown_fields import known_fields, sample, unknown_fields
from np6_assets.np6.stream import Part, elements
from np6_assets.storage.query import connect_decoder

MOST_UNSURE = 100
"""So many of a part's events that Python cannot parse are given to DuckDB; more are rejected unseen."""

_NONE = np.empty(0, np.int64)

Edges = Sequence[int]
"""The window that a part was asked for, in ms: its start, the ends of its days but the last, its end."""


@dataclass(frozen=True)
class Decoded:
    """A part's events.

    Attributes:
        rows: the kind's schema, ID_HASH and IS_STORED, sorted, each id once a time; no other than the window's.
        rejected: REJECTED_SCHEMA, with the helper columns of its order; `placed` is 0 where no event before was timed.
        received: how many events there are of each day of the window, repeated ones included.
        outside: how many events are outside the window.
        erased: keys of events whose receiver was erased; `of_erased` how many there are of each day of the window.
        ascending: whether the rows, those outside the window included, arrived in order of time; their `first` and
            `last` time, None without.
        timed: when the last event inside the window was published that says so, row or not; None without.
        unknown: unknown fields by day of the window.
        unreadable: values that could not be read, by day of the window and column.
    """

    rows: pa.Table
    rejected: pa.Table
    received: npt.NDArray[np.int64]
    outside: int
    erased: list[str]
    of_erased: Counter[int]
    ascending: bool
    first: int | None
    last: int | None
    timed: int | None
    unknown: set[tuple[int, str]]
    unreadable: Counter[tuple[int, str]]


@dataclass
class _Read:
    """A part as it was read: `table` has the events at `places`, which are all but those in `rejected`.

    `answer_of` is the number of the answer that each event belongs to.
    """

    table: pa.Table
    places: npt.NDArray[np.int64]
    rejected: list[Rejected]
    answer_of: npt.NDArray[np.int64]

    def __add__(self, other: _Read) -> _Read:
        table = pa.concat_tables([self.table, other.table])
        return _Read(table, np.concatenate([self.places, other.places]), self.rejected + other.rejected, _NONE)


class Decoder:
    """Decodes parts of one event kind. Safe to share between threads."""

    def __init__(self, kind: EventKind, contact: ContactPolicy, tombstones: Tombstones) -> None:
        self.kind = kind
        self.schema = pa.schema([*kind.schema, pa.field(ID_HASH, pa.uint64()), pa.field(IS_STORED, pa.bool_())])
        self.policy = RowPolicy(contact, tombstones)
        self._lock = threading.Lock()
        self._judge = Judge(kind)
        self._known = known_fields(kind)
        self._nullable = [column.name for column in json_sql.nullable_columns(kind)]
        self._query = json_sql.part_query(kind)
        self._database: duckdb.DuckDBPyConnection | None = None
        self._no_rejected = self.keyed(REJECTED_SCHEMA.empty_table(), stored=False)

    def decode(self, part: Part, edges: Edges) -> Decoded:
        """Decode a part, and close it."""
        try:
            read = self._read(part)
            unknown = {
                (bisect_right(edges, time) - 1, path)
                for event in sample(part)
                if edges[0] <= (time := Rejected(0, b"", event, "").time) < edges[-1]
                for path in unknown_fields(event, self._known)
            }
        finally:
            part.close()
        times = self._times(read)
        days = np.searchsorted(np.asarray(edges), times[read.places], side="right") - 1
        inside = (days >= 0) & (days < len(edges) - 1)
        rows, erased = self._rows(read.table if inside.all() else read.table.filter(pa.array(inside)))
        rejected, more_erased, beyond = self._rejected(read, times, edges)
        of_erased = Counter(more_erased.values())
        if erased:
            is_out = pc.is_in(read.table.column("event_id"), value_set=pa.array(erased, pa.string())).to_numpy()
            of_erased += Counter(days[inside & is_out].tolist())
        arrived, timed = times[read.places], times[(times >= edges[0]) & (times < edges[-1])]
        return Decoded(
            rows,
            rejected,
            np.bincount(days[inside], minlength=len(edges) - 1),
            int(np.count_nonzero(~inside)) + beyond,
            [*erased, *more_erased],
            of_erased,
            bool((arrived[1:] >= arrived[:-1]).all()),
            int(arrived[0]) if arrived.size else None,
            int(arrived[-1]) if arrived.size else None,
            int(timed[-1]) if timed.size else None,
            unknown,
            self._unreadable(read, days, inside),
        )

    def release(self) -> None:
        """Give back what DuckDB keeps of large parts; the next query connects again."""
        self._database = None

    def hashes(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """ID_HASH of ids."""
        with self._cursor() as cursor:
            table = cursor.from_arrow(pa.table({"text": texts})).project(f"hash(text) AS {ID_HASH}").to_arrow_table()
            return table.column(ID_HASH)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(self, part: Part) -> _Read:
        """The part's events; one by one where DuckDB refuses the part, or sees other events than it has."""
        table = self._ask(part)
        if table is not None and table.num_rows == part.events:
            places = np.arange(table.num_rows)
            firsts = [event for event, _ in part.answers]
            return self._without_rejected(part, _Read(table, places, [], _numbered(places, firsts)))
        return self._read_one_by_one(part)

    def _ask(self, part: Part) -> pa.Table | None:
        """What the query gives of a part; None where DuckDB refuses it."""
        try:
            with self._cursor() as cursor:
                return cursor.sql(self._query, params={"part": part.path}).to_arrow_table()
        except (duckdb.FatalException, duckdb.InternalException):
            self.release()  # the error has closed the database
        except duckdb.Error:
            pass  # the events are read one by one
        return None

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._database is None:
                self._database = connect_decoder()
            return self._database.cursor()

    def _read_one_by_one(self, part: Part) -> _Read:
        text = part.read()
        spans = list(elements(text))
        sure: list[tuple[int, bytes]] = []
        unsure: list[tuple[int, bytes]] = []
        rejected: list[Rejected] = []
        for place, (start, end) in enumerate(spans):
            raw = text[start:end].strip()
            try:
                value, reason = self._judge.parse(raw)
            except Uncertain:
                if len(unsure) < MOST_UNSURE:
                    unsure.append((place, raw))
                else:
                    rejected.append(Rejected(place, raw, None, "the event cannot be parsed"))
            else:
                if reason is None:
                    sure.append((place, raw))
                else:
                    rejected.append(Rejected(place, raw, value, reason))
        read = self._read_some(sure) + self._read_some(unsure)
        read.rejected += rejected
        read.answer_of = _numbered(np.array([start for start, _ in spans], int), [at for _, at in part.answers])
        return read

    def _read_some(self, events: list[tuple[int, bytes]]) -> _Read:
        """Read events by their places; those that DuckDB refuses are found by halving."""
        part = Part.of(b",".join(raw for _, raw in events), len(events))
        with closing(part):
            table = self._ask(part)
            if table is not None and table.num_rows == len(events):
                places = np.array([place for place, _ in events], np.int64)
                return self._without_rejected(part, _Read(table, places, [], _NONE))
        if len(events) > 1:
            middle = len(events) // 2
            return self._read_some(events[:middle]) + self._read_some(events[middle:])
        [(place, raw)] = events
        value = parsed_or_none(raw.decode(errors="backslashreplace"))
        return replace(self._read_some([]), rejected=[Rejected(place, raw, value, "the event cannot be parsed")])

    def _without_rejected(self, part: Part, read: _Read) -> _Read:
        """Take the doubtful events that are rejected out of what was read of a part."""
        doubtful = np.flatnonzero(read.table.column(json_sql.IS_DOUBTFUL).to_numpy())
        if not doubtful.size:
            return read
        with self._cursor() as cursor:
            found = cursor.execute(json_sql.EVENTS_AT, {"part": part.path, "places": doubtful.tolist()}).fetchall()
        wrong = []
        for row, text in found:
            value = parsed_or_none(text)
            reason = "the event cannot be parsed" if value is None else self._judge.reason(value)
            if reason is not None or text == "null":
                read.rejected.append(Rejected(int(read.places[row]), text.encode(), value, reason or "it is null"))
                wrong.append(row)
        keep = np.ones(read.table.num_rows, bool)
        keep[wrong] = False
        return replace(read, table=read.table.filter(pa.array(keep)), places=read.places[keep])

    # --- what becomes of the events ---------------------------------------------------------------------------------

    def _rows(self, table: pa.Table) -> tuple[pa.Table, list[str]]:
        """The rows in the stored types, sorted, and the ids of those whose receiver was erased."""
        table, erased = self.policy.treated(table.select([*self.kind.schema.names, ID_HASH]))
        table = table.append_column(IS_STORED, pa.repeat(False, table.num_rows))
        return sorted_unique(table.cast(self.schema), EVENTS), erased

    def _times(self, read: _Read) -> npt.NDArray[np.int64]:
        """When each event of a part was published by its own word; 0 where it does not say."""
        times = np.zeros(len(read.places) + len(read.rejected), np.int64)
        times[read.places] = read.table.column("event_time").to_numpy()
        times[[one.place for one in read.rejected]] = [one.time for one in read.rejected]
        return times

    def _rejected(
        self, read: _Read, times: npt.NDArray[np.int64], edges: Edges
    ) -> tuple[pa.Table, dict[str, int], int]:
        """The rejected events, keys and days of those whose receiver was erased, how many are outside the window."""
        if not read.rejected:
            return self._no_rejected, {}, 0
        rows: list[tuple[int, str, str, str | None]] = []
        erased: dict[str, int] = {}
        beyond = 0
        inside = np.where((times >= edges[0]) & (times < edges[-1]), times, 0)
        for one in read.rejected:
            placed = _placed(one.place, inside, read.answer_of)
            if one.time and not edges[0] <= one.time < edges[-1]:
                beyond += 1
            elif self.policy.is_erased(one.value):
                erased[one.key] = max(bisect_right(edges, placed) - 1, 0)
            else:
                rows.append((placed, one.key, one.reason, self.policy.contact.redact(one.value, one.raw)))
        table = pa.Table.from_pylist(
            [dict(zip(REJECTED_SCHEMA.names, row, strict=True)) for row in rows], REJECTED_SCHEMA
        )
        return self.keyed(table, stored=False), erased, beyond

    def keyed(self, table: pa.Table, *, stored: bool) -> pa.Table:
        """Rejected events with the helper columns by which they are merged, sorted."""
        hashes = key_hashes(self.hashes(table.column("event_key")).to_numpy())
        table = table.append_column(QUARANTINE.number, pa.array(hashes, pa.int64()))
        table = table.append_column(IS_STORED, pa.repeat(stored, table.num_rows))
        # one key may be on several days of the window: they are told apart when a day is merged
        return table.sort_by([(QUARANTINE.number, "ascending"), (QUARANTINE.key, "ascending")])

    def _unreadable(
        self, read: _Read, days: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]
    ) -> Counter[tuple[int, str]]:
        masks = read.table.column(json_sql.UNREADABLE).to_numpy()
        found: Counter[tuple[int, str]] = Counter()
        if masks.any():
            for bit, name in enumerate(self._nullable):
                for day, count in enumerate(np.bincount(days[inside & (masks & (1 << bit) > 0)])):
                    found[day, name] += int(count)
        return +found


def key_hashes(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """ID_HASH as the number by which rejected events are sorted."""
    return (hashes >> np.uint64(2)).astype(np.int64)


def _placed(place: int, times: npt.NDArray[np.int64], answer_of: npt.NDArray[np.int64]) -> int:
    """An event's time, or that of the last timed event before it in its answer and window; 0 without."""
    first = int(np.searchsorted(answer_of, answer_of[place]))
    timed = np.flatnonzero(times[first : place + 1])
    return int(times[first + timed[-1]]) if timed.size else 0


def _numbered(places: npt.NDArray[np.int64], firsts: Sequence[int]) -> npt.NDArray[np.int64]:
    """For each place the number of the answer that it is in."""
    return np.searchsorted(np.asarray(firsts), places, side="right") - 1
