"""Decoding: one spool part becomes typed Arrow rows, and a note of every event that does not fit.

What belongs here: which way a part is read, and what becomes of the events that do not fit. The SQL is in
`json_sql.py`, the plain-Python look at odd events in `oddities.py`. Knows files and Arrow; of HTTP only its errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from np6_assets.contact import ContactPolicy
from np6_assets.events import json_sql
from np6_assets.events.json_sql import ID_HASH
from np6_assets.events.kinds import CONTACT_COLUMNS, KNOWN_UNREAD, TIME, EventKind, Reading
from np6_assets.events.oddities import stated_time, strangers, structure, unreadable, value_at
from np6_assets.np6.errors import BadResponseError, CutResponseError
from np6_assets.np6.spool import Part, elements
from np6_assets.privacy.tombstones import Tombstones

IDENTITY = "identity"

MISFIT_SCHEMA = pa.schema(
    [("event_time", TIME), (IDENTITY, pa.string()), ("reason", pa.string()), ("event", pa.string())]
)
"""Misfits: `event_time` is when the event says that it happened, or else the last good time before it in the stream.
IDENTITY tells events apart that are alike without their contact data."""

NO_TIME = 0
"""The time of a misfit before which there is no good time in its part."""

_SMALL_PART = 4 * 2**20
_HEAD_BYTES = 2**16

_TENS = 10 ** np.arange(1, 19)

Misfit = tuple[int, str, str, str | None]
"""A row of MISFIT_SCHEMA, the time in ms since 1970; no event where its receiver was erased."""


@dataclass(frozen=True)
class Decoded:
    """A part's events.

    `rows` have the kind's schema and ID_HASH, in the order of the part; `misfits` have MISFIT_SCHEMA;
    `unknown_fields` are the paths of fields that the contract does not know.
    """

    rows: pa.Table
    misfits: pa.Table
    unknown_fields: frozenset[str]


class Decoder:
    """Decodes parts of one event kind, without the events of erased receivers. Safe to share between threads."""

    def __init__(self, kind: EventKind, contact: ContactPolicy, erased: Tombstones) -> None:
        self.kind = kind
        self._contact = contact
        self._erased = erased
        self._containers = json_sql.tree(column.path for column in kind.columns)
        self._known = json_sql.tree([*(column.path for column in kind.columns), *KNOWN_UNREAD])
        self._plain_columns = [column for column in kind.columns if json_sql.is_plain(column)]
        self._plain = json_sql.plain_query(kind)
        self._strict = json_sql.strict_query(kind)
        # One thread a query, as parts are decoded side by side. Extensions are built in; nothing is fetched, spilled,
        # or cached: the spool's paths are used again.
        self._database = duckdb.connect(
            config={
                "threads": 1,
                "memory_limit": "1GB",
                "temp_directory": "",
                "enable_external_file_cache": False,
                "autoinstall_known_extensions": False,
                "TimeZone": "UTC",
            }
        )

    def decode(self, part: Part) -> Decoded:
        """Decode a part, and close it. Raises BadResponseError where it is not JSON."""
        try:
            misfits: list[Misfit] = []
            shapes = self._shapes(part)
            table = self._read_plainly(part, shapes)
            if table is None:
                table, misfits = self._read_strictly(part)
                if misfits:
                    shapes = self._shapes(part)  # without the events that were sifted out
            if table.num_rows + len(misfits) < part.events:
                raise BadResponseError("the decoder saw fewer events than the body holds")
            unknown = frozenset(path for shape in shapes for path in strangers(shape, self._known, ""))
            return Decoded(self._typed(table), _misfit_table(misfits), unknown)
        finally:
            part.close()

    def hashed(self, table: pa.Table) -> pa.Table:
        """Stored rows, with ID_HASH beside them."""
        with self._database.cursor() as cursor:
            hashes = cursor.from_arrow(table.select(["event_id"])).project(f"hash(event_id) AS {ID_HASH}")
            return table.append_column(ID_HASH, hashes.to_arrow_table().column(ID_HASH))

    def _shapes(self, part: Part) -> list[Any]:
        """What events look like, as `json_structure` tells: all events of a small part, the first ones of a large one.

        None at all where DuckDB cannot read the part.
        """
        if part.size > _SMALL_PART:
            return [structure(event) for _, _, event in _leading(_head(part))]
        try:
            with self._database.cursor() as cursor:
                return [
                    json.loads(shape or "null")
                    for (shape,) in cursor.execute(json_sql.STRUCTURES, [part.path]).fetchall()
                ]
        except duckdb.Error:
            return []  # the strict way says what is wrong

    def _query(self, query: str, part: Part) -> pa.Table:
        with self._database.cursor() as cursor:
            return cursor.sql(query, params=[part.path]).to_arrow_table()

    def _typed(self, table: pa.Table) -> pa.Table:
        """The rows in the stored types, contact data treated."""
        table = self._erased.without(table.select([*self.kind.schema.names, ID_HASH]))
        for name in CONTACT_COLUMNS:
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, self._contact.treated(table.column(name)))
        # again: who is erased may be known by a pseudonym alone
        return self._erased.without(table.cast(pa.schema([*self.kind.schema, pa.field(ID_HASH, pa.uint64())])))

    # --- the plain way ----------------------------------------------------------------------------------------------

    def _read_plainly(self, part: Part, shapes: list[Any]) -> pa.Table | None:
        """The rows, where nothing in the part is out of the ordinary; None where something is or may be."""
        if part.quotes is None or not shapes or not all(map(self._is_ordinary, shapes)):
            return None
        try:
            table = self._query(self._plain, part)
        except duckdb.Error:
            return None  # the strict way says what is wrong
        return table if self._fits(table) and self._is_accounted_for(part, table) else None

    def _is_ordinary(self, shape: Any) -> bool:
        """Whether an event of this shape has the right types in all plain columns, and no field that is not known."""
        types = ((value_at(shape, column.path), json_sql.plain_types(column)) for column in self._plain_columns)
        return all(type_ in (None, "NULL", *right) for type_, right in types) and not any(
            strangers(shape, self._known, "")
        )

    def _fits(self, table: pa.Table) -> bool:
        """Whether all values that are not plain text fit, and none that is required is missing."""
        if not table.num_rows or table.column(json_sql.REST_BYTES).null_count:
            return False
        for column in self.kind.columns:
            values = table.column(column.name)
            if column.required and values.null_count:
                return False
            if column.reading is Reading.REQUIRED_TEXT and not pc.min(pc.binary_length(values)).as_py():
                return False
            if column.reading is Reading.MILLISECONDS:
                ends = pc.min_max(values).as_py()
                if ends["min"] is not None and not json_sql.EARLIEST <= ends["min"] <= ends["max"] <= json_sql.LATEST:
                    return False
        return True

    def _is_accounted_for(self, part: Part, table: pa.Table) -> bool:
        """Whether the rows explain every byte and every quotation mark of the part.

        What is the same in each event is learned from the first one. Where a value in a text column is no text, or a
        field is missing, or is one too many, the sums differ. Of a large part only the first events were looked at, and
        two oddities of exactly opposite sums further on would pass: a renamed field whose name is as long, say,
        together with a number for a text.
        """
        head = _head(part)
        events = list(islice(_leading(head), 2))
        if not events:
            return False
        (start, end, _), *second = events
        raw = head[start:end]
        gap = second[0][0] - end if second else 0  # of one event there is none
        explained = self._explained(table)
        of_first = self._explained(table.slice(0, 1))
        count = table.num_rows
        size = start + count * (len(raw.encode()) - of_first[0]) + explained[0] + gap * (count - 1) + len("]")
        quotes = count * (raw.count('"') - of_first[1]) + explained[1]
        return bool(size == part.size and quotes == part.quotes)

    def _explained(self, table: pa.Table) -> tuple[int, int]:
        """How many bytes and quotation marks of JSON the values of the rows stand for."""
        size = pc.sum(table.column(json_sql.REST_BYTES)).as_py()
        quotes = pc.sum(table.column(json_sql.REST_QUOTES)).as_py()
        for column in self._plain_columns:
            values = table.column(column.name)
            size += len("null") * values.null_count + _json_size(values.drop_null())
            if pa.types.is_string(values.type):
                quotes += len('""') * (len(values) - values.null_count)
        return size, quotes

    # --- the strict way ---------------------------------------------------------------------------------------------

    def _read_strictly(self, part: Part) -> tuple[pa.Table, list[Misfit]]:
        """The rows that fit, and the events that do not."""
        misfits: list[Misfit] = []
        try:
            table = self._query(self._strict, part)
        except duckdb.Error:
            misfits = self._sift(part)
            try:
                table = self._query(self._strict, part)
            except duckdb.Error as error:
                raise BadResponseError(f"the body cannot be decoded: {type(error).__name__}") from None
        reasons = table.column(json_sql.REASON)
        if reasons.null_count < table.num_rows:
            misfits += self._misfits(part, reasons)
            table = table.filter(pc.is_null(reasons))
        return table, misfits

    def _misfits(self, part: Part, reasons: pa.ChunkedArray) -> list[Misfit]:
        """The events of the part that have a reason not to fit."""
        wanted = {int(place): reasons[int(place)].as_py() for place in np.flatnonzero(pc.is_valid(reasons).to_numpy())}
        found = []
        last = NO_TIME
        for place, (_, _, event) in enumerate(elements(_text(part))):
            last = stated_time(event, last)
            if place in wanted:
                found.append(self._misfit(last, wanted[place], event))
        return found

    def _misfit(self, time: int, reason: str, event: Any) -> Misfit:
        identity = blake2b(json.dumps(event, sort_keys=True).encode(), digest_size=16).hexdigest()
        return time, identity, reason, None if self._erased.name(event) else self._contact.redact(event)

    def _sift(self, part: Part) -> list[Misfit]:
        """Take the events that DuckDB cannot read out of the part, and rewrite it without them."""
        good: list[str] = []
        found: list[Misfit] = []
        last = NO_TIME
        text = _text(part)
        try:
            for start, end, event in elements(text):
                raw = text[start:end]
                last = stated_time(event, last)
                if (reason := unreadable(raw, event, self._containers)) is None:
                    good.append(raw)
                else:
                    found.append(self._misfit(last, reason, event))
        except CutResponseError as error:
            raise BadResponseError(str(error)) from None
        part.file.seek(0)
        part.file.truncate()
        part.file.write(f"[{','.join(good)}]".encode())
        part.file.flush()
        return found


def _json_size(values: pa.ChunkedArray) -> int:
    """How many bytes texts, whole numbers or truth values, none of them null, take in JSON that has no escapes."""
    if pa.types.is_string(values.type):
        return (pc.sum(pc.binary_length(values)).as_py() or 0) + len('""') * len(values)
    if pa.types.is_boolean(values.type):
        return len("false") * len(values) - (pc.sum(values).as_py() or 0)
    numbers = values.to_numpy()
    return int(np.searchsorted(_TENS, np.abs(numbers), side="right").sum() + len(numbers) + (numbers < 0).sum())


def _head(part: Part) -> str:
    part.file.seek(0)
    return part.file.read(_HEAD_BYTES).decode(errors="replace")


def _leading(head: str) -> Iterator[tuple[int, int, Any]]:
    """The events that are whole in the head of a part."""
    with suppress(BadResponseError):  # where the head ends
        yield from elements(head)


def _text(part: Part) -> str:
    part.file.seek(0)
    return part.file.read().decode(errors="surrogateescape")


def _misfit_table(misfits: list[Misfit]) -> pa.Table:
    misfits = sorted(misfit for misfit in misfits if misfit[-1] is not None)
    times, *texts = zip(*misfits, strict=True) if misfits else ((),) * len(MISFIT_SCHEMA)
    return pa.table([pa.array(times, pa.int64()).cast(TIME), *texts], schema=MISFIT_SCHEMA)
