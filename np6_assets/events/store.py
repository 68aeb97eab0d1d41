"""The files of an event asset: its days with their watermarks, and the quarantine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from np6_assets.events.decode import Decoder
from np6_assets.events.file_policy import MADE_WITH, get_policy
from np6_assets.events.json_sql import ID_HASH
from np6_assets.events.kinds import KINDS, EventKind
from np6_assets.events.merge import EVENTS, IS_STORED, UNBOUNDED, SortedRun, sort_and_deduplicate
from np6_assets.events.reject import REJECTED_SCHEMA, RejectedEvent, parse_event
from np6_assets.np6.clock import TOLERANCE, RequestTime
from np6_assets.partitions import EVENT_DATE, Day, to_epoch_ms
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import ANY_VERSION, ExpectedVersion, Folder, Version

WATERMARK = b"np6.fetched_until"
"""Key in a file's Parquet metadata: the watermark (ISO 8601, UTC)."""

MISSING_IDS = b"np6.missing_ids"
"""Key in the Parquet metadata of activations: a JSON list of notifications whose sends are not complete."""


@dataclass(frozen=True)
class StoredDay:
    """What a day's file says; `watermark` is None in a file of another program.

    Attributes:
        last_event: time of the last event; None if there is none.
        contact: fingerprint of the contact policy under which it was stored.
        missing_ids: see MISSING_IDS.
    """

    rows: int
    last_event: datetime | None
    watermark: datetime | None
    contact: str
    missing_ids: frozenset[int] = frozenset()

    def is_closed(self, day: Day) -> bool:
        """Whether the day is closed: fetched after its end plus the lookback."""
        return self.watermark is not None and self.watermark >= day.end


def parse_footer(footer: pq.FileMetaData) -> StoredDay:
    """Read a StoredDay from a file's footer."""
    last_event = parquet.get_maximum(footer, "event_time")
    return StoredDay(
        footer.num_rows, last_event, get_watermark(footer), get_policy(footer.metadata), get_missing_ids(footer)
    )


def get_watermark(footer: pq.FileMetaData) -> datetime | None:
    """Return a file's watermark; None in a file of another program."""
    until = (footer.metadata or {}).get(WATERMARK)
    return None if until is None else datetime.fromisoformat(until.decode())


def get_missing_ids(footer: pq.FileMetaData) -> frozenset[int]:
    """Return a file's MISSING_IDS."""
    return frozenset(json.loads((footer.metadata or {}).get(MISSING_IDS, b"[]")))


class EventStore:
    """The files of one event asset. A file that is written replaces only the version that was read."""

    def __init__(self, folder: Folder, kind: EventKind, settings: Settings) -> None:
        self._folder = folder
        self._kind = kind
        self._mode = settings.file_mode
        self._made_with = f"{settings.timezone} {settings.contact.fingerprint}"
        self._versions_read: dict[str, Version | None] = {}

    def read_day(self, day: Day) -> StoredDay | None:
        """Read what is stored of a day; None if it was never fetched."""
        file = self._day_file(day)
        self._versions_read[file] = None
        try:
            with self._folder.open(file) as opened:
                self._versions_read[file] = self._folder.get_version(opened)
                return parse_footer(pq.read_metadata(opened))
        except FileNotFoundError:
            return None

    def get_expected_version(self, day: Day) -> ExpectedVersion:
        """Return the version of a day's file when it was read, which its new file replaces."""
        return self._versions_read[self._day_file(day)]

    def reread_day(self, day: Day) -> StoredDay | None:
        """Read again what is stored of a day, which may have been written since."""
        for file in (self._day_file(day), self._quarantine_file(day)):
            self._folder.invalidate(file)
        return self.read_day(day)

    def build_schema(self, watermark: datetime, missing: Collection[int] = ()) -> pa.Schema:
        """Build the schema of a file with that watermark."""
        metadata = {WATERMARK: watermark.isoformat().encode(), MADE_WITH: self._made_with.encode()}
        if missing:
            metadata[MISSING_IDS] = json.dumps(sorted(missing)).encode()
        return self._kind.schema.with_metadata(metadata)

    @contextmanager
    def open_runs(self, day: Day, stored: StoredDay | None, decoder: Decoder) -> Iterator[list[SortedRun]]:
        """Open the stored rows of a day as runs, a batch a row group, treated like new rows."""
        if stored is None:
            yield []
            return
        with self._folder.open(self._day_file(day), self._versions_read.get(self._day_file(day))) as opened:
            file = pq.ParquetFile(opened)

            def read(group: int, _: int) -> pa.RecordBatch:
                rows = file.read_row_group(group, columns=self._kind.schema.names).cast(self._kind.schema)
                table = decoder.policy.treat_rows(rows, stored.contact)[0]
                table = table.append_column(ID_HASH, decoder.hash_texts(table.column("event_id")))
                table = table.append_column(IS_STORED, pa.repeat(True, table.num_rows)).cast(decoder.schema)
                columns = [column.combine_chunks() for column in sort_and_deduplicate(table, EVENTS).itercolumns()]
                return pa.RecordBatch.from_arrays(columns, schema=decoder.schema)

            spans = [_read_span(file, group) for group in range(file.num_row_groups)]
            # a run each: another program may have written the file in another order
            yield [SortedRun(partial(read, group), *np.array([span]).T) for group, span in enumerate(spans)]

    # --- quarantine -------------------------------------------------------------------------------------------------

    def read_quarantine(self, day: Day, stored: StoredDay | None, decoder: Decoder) -> Iterator[pa.Table]:
        """Yield the stored rejected events of a day with helper columns, treated like new ones."""
        file = self._quarantine_file(day)
        self._versions_read[file] = None
        try:
            schema, self._versions_read[file] = parquet.read_schema(self._folder, file)
        except FileNotFoundError:
            return
        # a quarantine of version 0.1 does not say, and was written by the same fetch as its day
        stored_as = get_policy(schema.metadata) or (stored.contact if stored else "")
        texts: Counter[str] = Counter()
        for table in parquet.read_tables(self._folder, file, schema.names, self._versions_read[file]):
            rows = []
            for row in table.to_pylist():
                value = None if row["event"] is None else parse_event(row["event"])
                if not decoder.policy.is_erased(value):
                    key = row.get("event_key") or self._build_event_key(row["event"] or "", value, texts)
                    event = decoder.policy.contact.treat_stored_event(value, row["event"], stored_as)
                    rows.append({"placed": day.start_ms, "event_key": key, "reason": row["reason"], "event": event})
            yield decoder.build_quarantine_rows(rows, stored=True)

    def write_quarantine(self, day: Day, tables: Iterator[pa.Table]) -> int:
        """Replace the day's rejected events, or remove the file if there are none; return their number."""
        first = next((table for table in tables if table.num_rows), None)
        if first is None:
            self._folder.remove(self._quarantine_file(day))
            return 0
        schema = pa.schema([REJECTED_SCHEMA.field(name) for name in ("reason", "event", "event_key")])
        schema = schema.with_metadata({MADE_WITH: self._made_with.encode()})
        rows = parquet.stream_tables(chain([first], tables), schema)
        file = self._quarantine_file(day)
        return parquet.write_file(self._folder, file, rows, self._mode, self._versions_read.get(file, ANY_VERSION)).rows

    @staticmethod
    def _build_event_key(text: str, value: Any, texts: Counter[str]) -> str:
        """Build the key of an event that version 0.1 rejected; of several with one text, each has its own."""
        texts[text] += 1
        return RejectedEvent(0, text.encode() * texts[text], value, "").key

    def _day_file(self, day: Day) -> str:
        return parquet.build_path(self._kind.asset, EVENT_DATE, day.key)

    def _quarantine_file(self, day: Day) -> str:
        return parquet.build_path(self._kind.quarantine, EVENT_DATE, day.key)


def find_newest_watermark(folder: Folder) -> datetime | None:
    """Find the latest of the event assets' newest watermarks."""
    return pick_newest(_iter_watermarks(folder, kind) for kind in KINDS)


def pick_newest(assets: Iterable[Iterable[datetime | None]]) -> datetime | None:
    """Pick the latest of the assets' first watermarks that are not None; days come newest first."""
    newest = (next((until for until in days if until is not None), None) for days in assets)
    return max((until for until in newest if until is not None), default=None)


def _iter_watermarks(folder: Folder, kind: EventKind) -> Iterator[datetime | None]:
    """Yield the watermarks of an asset's days, newest day first."""
    for day in reversed(parquet.list_days(folder, kind.asset, EVENT_DATE)):
        file = parquet.build_path(kind.asset, EVENT_DATE, str(day))
        yield get_watermark(parquet.read_footer(folder, file)) if folder.exists(file) else None


def compute_watermark(
    day: Day, requested: RequestTime, lookback: timedelta, stored: StoredDay | None = None
) -> datetime:
    """Compute the watermark of a day that was requested.

    The day's end if it was requested after its end plus the lookback, else a time before its end. It moves back only if
    the stored one was wrong.
    """
    until = day.end if requested.at >= day.end + lookback else min(requested.at, day.end - timedelta(milliseconds=1))
    if stored is None or stored.watermark is None or is_watermark_wrong(stored, requested):
        return until
    return max(until, min(stored.watermark, day.end))


def is_watermark_wrong(stored: StoredDay, requested: RequestTime) -> bool:
    """Whether a stored watermark is in the future by the API's own clock."""
    by_api = requested.by_api
    return stored.watermark is not None and by_api is not None and stored.watermark > by_api + TOLERANCE


def _read_span(file: pq.ParquetFile, group: int) -> tuple[int, int, int]:
    """Read the first and last time of a row group, in ms, and its number of rows."""
    found = file.metadata.row_group(group)
    statistics = found.column(file.schema_arrow.names.index("event_time")).statistics
    if statistics is None or not statistics.has_min_max:
        return *UNBOUNDED, found.num_rows
    return to_epoch_ms(statistics.min), to_epoch_ms(statistics.max), found.num_rows
