"""The files of an event asset: what a day's file says of itself, what is still to be fetched, and the quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import pyarrow as pa

from np6_assets.events.decode import MISFIT_SCHEMA
from np6_assets.events.ingest import DayEvents, Wanted
from np6_assets.events.kinds import EventKind
from np6_assets.partitions import EVENT_DATE, Day
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

FETCHED_UNTIL = b"np6.fetched_until"
"""Key in a file's Parquet metadata: until when the day was fetched (ISO 8601, UTC)."""

MADE_WITH = b"np6.made_with"
"""Key in a file's Parquet metadata: the settings that its rows depend on."""


@dataclass(frozen=True)
class Stored:
    """What a day's file says of itself; `fetched_until` is None in a file that another program wrote.

    `last_event` is when the last of its events happened; None where there is none.
    """

    rows: int
    last_event: datetime | None
    fetched_until: datetime | None
    made_with: str


class EventFiles:
    """The files of one event asset."""

    def __init__(self, folder: Folder, kind: EventKind, settings: Settings) -> None:
        self._folder = folder
        self._kind = kind
        self._overlap = settings.refresh_overlap
        self._made_with = f"{settings.timezone} {settings.contact.fingerprint}"

    def stored(self, day: Day) -> Stored | None:
        """What is there of a day; None where it was never fetched."""
        file = self._file(day)
        if not self._folder.exists(file):
            return None
        footer = parquet.footer(self._folder, file)
        said = footer.metadata or {}
        until = said.get(FETCHED_UNTIL)
        return Stored(
            footer.num_rows,
            parquet.greatest(footer, "event_time"),
            None if until is None else datetime.fromisoformat(until.decode()),
            said.get(MADE_WITH, b"").decode(),
        )

    def wanted(self, day: Day, *, full_refresh: bool) -> Wanted:
        """What is to be fetched of a day.

        What was published since, less the overlap, where the day was fetched before it was closed; else all of it. Also
        all of it where other settings were in force, and where events are in quarantine, for these are not merged.
        """
        stored = self.stored(day)
        if stored is None:
            return Wanted.in_full(day)
        since = day.start
        if stored.fetched_until is not None and stored.fetched_until < day.end and not full_refresh:
            since = stored.fetched_until - self._overlap
        if since <= day.start or not self._is_mergeable(stored, day):
            return Wanted.in_full(day, stored.rows)
        return Wanted(day, since, partial(self._rows, day), stored.rows)

    def _is_mergeable(self, stored: Stored, day: Day) -> bool:
        return stored.made_with == self._made_with and not self._folder.exists(self._quarantine(day))

    def schema(self, until: datetime) -> pa.Schema:
        """The schema of a file that was fetched until then."""
        return self._kind.schema.with_metadata(
            {FETCHED_UNTIL: until.isoformat().encode(), MADE_WITH: self._made_with.encode()}
        )

    def write_quarantine(self, day: DayEvents) -> int:
        """Write the day's events that do not fit, if it has any, and say how many there are."""
        if not day.misfits.rows:
            return 0
        schema = pa.schema([MISFIT_SCHEMA.field("reason"), MISFIT_SCHEMA.field("event")])
        tables = (table.select(schema.names) for table in day.misfits.tables())
        rows = pa.RecordBatchReader.from_batches(schema, (batch for table in tables for batch in table.to_batches()))
        return parquet.write(self._folder, self._quarantine(day.day), rows).rows

    def quarantined(self, day: Day) -> int:
        """How many of the day's events are in quarantine."""
        file = self._quarantine(day)
        return parquet.footer(self._folder, file).num_rows if self._folder.exists(file) else 0

    def remove_quarantine(self, day: Day) -> None:
        """Remove what an earlier fetch of the day put there."""
        self._folder.remove(self._quarantine(day))

    def _rows(self, day: Day, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        schema = self._kind.schema
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return (table.cast(wanted) for table in parquet.tables(self._folder, self._file(day), wanted.names))

    def _file(self, day: Day) -> str:
        return parquet.file_of(self._kind.asset, EVENT_DATE, day.key)

    def _quarantine(self, day: Day) -> str:
        return parquet.file_of(self._kind.quarantine, EVENT_DATE, day.key)


def fetched_until(day: Day, asked_at: datetime, overlap: timedelta) -> datetime:
    """Until when a day is known to be whole, if it was asked for at a time.

    The day's end once the day is closed, that is asked for later than its end by at least the overlap; before that, a
    time before the day's end.
    """
    if asked_at >= day.end + overlap:
        return day.end
    return min(asked_at, day.end - timedelta(milliseconds=1))
