"""The files of an event asset: days with their watermark, and the quarantine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from np6_assets.events.decode import Decoder
from np6_assets.events.json_sql import ID_HASH
from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.events.merge import ALWAYS, EVENTS, IS_STORED, Run, sorted_unique
from np6_assets.events.reject import REJECTED_SCHEMA, Rejected, parsed
from np6_assets.events.written import MADE_WITH, policy_of
from np6_assets.np6.clock import TOLERANCE, AskedAt
from np6_assets.partitions import EVENT_DATE, Day, milliseconds
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import ANYTHING, Before, Folder, Version

WATERMARK = b"np6.fetched_until"
"""Key in a file's Parquet metadata: until when the day is known to be complete (ISO 8601, UTC)."""

MISSING_IDS = b"np6.missing_ids"
"""Key in the Parquet metadata of activations: notifications whose sends of the day are not complete, as a JSON list."""


@dataclass(frozen=True)
class Stored:
    """What a day's file says of itself; `watermark` is None in a file of another program.

    `last_event` is when the last of its events was published; None where it has none. `contact` is the fingerprint of
    the policy under which its contact data was stored. `missing` is MISSING_IDS.
    """

    rows: int
    last_event: datetime | None
    watermark: datetime | None
    contact: str
    missing: frozenset[int] = frozenset()

    def is_closed(self, day: Day) -> bool:
        """Whether it was fetched late enough after the day's end."""
        return self.watermark is not None and self.watermark >= day.end


def stored_in(footer: pq.FileMetaData) -> Stored:
    """What the file with that footer says."""
    last_event = parquet.greatest(footer, "event_time")
    return Stored(footer.num_rows, last_event, watermark_in(footer), policy_of(footer.metadata), missing_in(footer))


def watermark_in(footer: pq.FileMetaData) -> datetime | None:
    """A file's watermark; None in a file of another program."""
    until = (footer.metadata or {}).get(WATERMARK)
    return None if until is None else datetime.fromisoformat(until.decode())


def missing_in(footer: pq.FileMetaData) -> frozenset[int]:
    """A file's MISSING_IDS."""
    return frozenset(json.loads((footer.metadata or {}).get(MISSING_IDS, b"[]")))


class EventStore:
    """The files of one event asset, and which version of each was read: what is written takes its place alone."""

    def __init__(self, folder: Folder, kind: EventKind, settings: Settings) -> None:
        self._folder = folder
        self._kind = kind
        self._mode = settings.file_mode
        self._made_with = f"{settings.timezone} {settings.contact.fingerprint}"
        self._read: dict[str, Version | None] = {}

    def stored(self, day: Day) -> Stored | None:
        """What is stored of a day; None where it was never fetched."""
        file = self._file(day)
        self._read[file] = None
        try:
            with self._folder.open(file) as opened:
                self._read[file] = self._folder.version(opened)
                return stored_in(pq.read_metadata(opened))
        except FileNotFoundError:
            return None

    def before(self, day: Day) -> Before:
        """What was there of a day when it was looked at, whose place its new file takes."""
        return self._read[self._file(day)]

    def look_again(self, day: Day) -> Stored | None:
        """What is stored of a day that may have been written since."""
        for file in (self._file(day), self._quarantine(day)):
            self._folder.doubt(file)
        return self.stored(day)

    def schema(self, watermark: datetime, missing: Collection[int] = ()) -> pa.Schema:
        """The schema of a file with that watermark."""
        said = {WATERMARK: watermark.isoformat().encode(), MADE_WITH: self._made_with.encode()}
        named = {MISSING_IDS: json.dumps(sorted(missing)).encode()} if missing else {}
        return self._kind.schema.with_metadata(said | named)

    @contextmanager
    def runs(self, day: Day, stored: Stored | None, decoder: Decoder) -> Iterator[list[Run]]:
        """The stored rows of a day as runs, a batch a row group, treated as new ones are."""
        if stored is None:
            yield []
            return
        with self._folder.open(self._file(day), self._read.get(self._file(day))) as opened:
            file = pq.ParquetFile(opened)

            @lru_cache(maxsize=2)
            def read(group: int, _: int) -> pa.RecordBatch:
                rows = file.read_row_group(group, columns=self._kind.schema.names).cast(self._kind.schema)
                table = decoder.policy.treated(rows, stored.contact)[0]
                table = table.append_column(ID_HASH, decoder.hashes(table.column("event_id")))
                table = table.append_column(IS_STORED, pa.repeat(True, table.num_rows)).cast(decoder.schema)
                columns = [column.combine_chunks() for column in sorted_unique(table, EVENTS).itercolumns()]
                return pa.RecordBatch.from_arrays(columns, schema=decoder.schema)

            spans = [_span(file, group) for group in range(file.num_row_groups)]
            # a run each: another program may have written the file in another order
            yield [Run(partial(read, group), *np.array([span]).T) for group, span in enumerate(spans)]

    # --- quarantine -------------------------------------------------------------------------------------------------

    def quarantine(self, day: Day, stored: Stored | None, decoder: Decoder) -> Iterator[pa.Table]:
        """The stored rejected events of a day, treated as new ones are, with helper columns, table by table."""
        file = self._quarantine(day)
        self._read[file] = None
        try:
            schema, self._read[file] = parquet.schema(self._folder, file)
        except FileNotFoundError:
            return
        # a file of version 0.1 does not say: it is of the same fetch as the day
        stored_as = policy_of(schema.metadata) or (stored.contact if stored else "")
        texts: Counter[str] = Counter()
        for table in parquet.tables(self._folder, file, schema.names, self._read[file]):
            rows = []
            for row in table.to_pylist():
                value = None if row["event"] is None else parsed(row["event"])
                if not decoder.policy.is_erased(value):
                    key = row.get("event_key") or self._key(row["event"] or "", value, texts)
                    event = decoder.policy.contact.redact_again(value, row["event"], stored_as)
                    rows.append({"placed": day.start_ms, "event_key": key, "reason": row["reason"], "event": event})
            yield decoder.keyed(rows, stored=True)

    def write_quarantine(self, day: Day, tables: Iterator[pa.Table]) -> int:
        """Write the day's rejected events in place of those that were read, if there are any; gives how many."""
        first = next((table for table in tables if table.num_rows), None)
        if first is None:
            self._folder.remove(self._quarantine(day))
            return 0
        schema = pa.schema([REJECTED_SCHEMA.field(name) for name in ("reason", "event", "event_key")])
        schema = schema.with_metadata({MADE_WITH: self._made_with.encode()})
        rows = parquet.stream(chain([first], tables), schema)
        file = self._quarantine(day)
        return parquet.write(self._folder, file, rows, self._mode, self._read.get(file, ANYTHING)).rows

    @staticmethod
    def _key(text: str, value: Any, texts: Counter[str]) -> str:
        """The key of an event that version 0.1 rejected; of several with one text, each has its own."""
        texts[text] += 1
        return Rejected(0, text.encode() * texts[text], value, "").key

    def _file(self, day: Day) -> str:
        return parquet.file_of(self._kind.asset, EVENT_DATE, day.key)

    def _quarantine(self, day: Day) -> str:
        return parquet.file_of(self._kind.quarantine, EVENT_DATE, day.key)


def newest_watermark(folder: Folder) -> datetime | None:
    """The latest of the event assets' newest watermarks: of each, that of its newest day whose file says one."""
    return newest_of(_watermarks(folder, kind) for kind in KINDS)


def newest_of(assets: Iterable[Iterable[datetime | None]]) -> datetime | None:
    """The latest of the first watermarks of each asset, whose days come newest first."""
    newest = (next((until for until in days if until is not None), None) for days in assets)
    return max((until for until in newest if until is not None), default=None)


def _watermarks(folder: Folder, kind: EventKind) -> Iterator[datetime | None]:
    """The watermarks of an asset's days, newest day first."""
    for day in reversed(parquet.days_stored(folder, kind.asset, EVENT_DATE)):
        file = parquet.file_of(kind.asset, EVENT_DATE, str(day))
        yield watermark_in(parquet.footer(folder, file)) if folder.exists(file) else None


def watermark(day: Day, asked: AskedAt, lookback: timedelta, stored: Stored | None = None) -> datetime:
    """Until when a day is known to be complete, once it was asked for.

    The day's end once the day is closed, that is asked for later than its end by at least the lookback; before that, a
    time before the day's end. It moves back only where what is stored was wrong.
    """
    until = day.end if asked.at >= day.end + lookback else min(asked.at, day.end - timedelta(milliseconds=1))
    if stored is None or stored.watermark is None or is_wrong(stored, asked):
        return until
    return max(until, min(stored.watermark, day.end))


def is_wrong(stored: Stored, asked: AskedAt) -> bool:
    """Whether a file says that it is complete until a time that is yet to come by the API's own clock."""
    by_api = asked.by_api
    return stored.watermark is not None and by_api is not None and stored.watermark > by_api + TOLERANCE


def _span(file: pq.ParquetFile, group: int) -> tuple[int, int, int]:
    """The first and last time of a row group, in ms, and how many rows it has."""
    found = file.metadata.row_group(group)
    statistics = found.column(file.schema_arrow.names.index("event_time")).statistics
    if statistics is None or not statistics.has_min_max:
        return *ALWAYS, found.num_rows
    return milliseconds(statistics.min), milliseconds(statistics.max), found.num_rows
