"""What is stored of the event assets: which days, and what their files' metadata says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypeAlias

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from np6_assets.events.store import find_newest_watermark, get_missing_ids, get_watermark
from np6_assets.partitions import EVENT_DATE, parse_day
from np6_assets.rates.columns import Status
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import get_digest, list_partitions, select_fragments

REACTIONS = ("hits", "optouts", "bounces")
NEEDED = ("activations", *REACTIONS)
"""The assets without whose closed days a cohort's rates cannot be final."""


@dataclass(frozen=True)
class FeedDay:
    """A day of an event asset, as its file says.

    `missing_ids` are the notifications that could not be fetched; `content` is a digest of its rows.
    """

    rows: int
    is_closed: bool
    missing_ids: frozenset[int]
    watermark: datetime | None
    content: str


FeedDays: TypeAlias = Callable[[str, str], FeedDay | None]
"""Gives what is stored of an asset's day; None where nothing is."""


def read_feed_day(footer: pq.FileMetaData, day: str, timezone: str) -> FeedDay:
    """Read the footer of an event file."""
    watermark = get_watermark(footer)
    is_closed = watermark is not None and watermark >= parse_day(day, timezone).end
    return FeedDay(footer.num_rows, is_closed, get_missing_ids(footer), watermark, get_digest(footer))


def determine_status(stored: FeedDays, window: Collection[str], timezone: str, due: datetime | None) -> Status:
    """Determine the status that the event days of a cohort's window allow; see `Feeds` for `due`."""
    days = [(stored(asset, day), day) for day in window for asset in NEEDED]
    lacking = {day for one, day in days if one is None or not one.is_closed}
    if not lacking:
        return "final"
    return "incomplete" if _is_due(min(lacking), timezone, due) else "open"


def find_missing_ids(stored: FeedDays, window: Collection[str], timezone: str, due: datetime | None) -> set[int]:
    """Find the notifications whose rows of a cohort are incomplete: a day that is due could not be fetched for them.

    If all days of the cohort are closed, each of them counts: none of its rows is open.
    """
    is_closed = determine_status(stored, window, timezone, due) == "final"
    days = [day for day in window if is_closed or _is_due(day, timezone, due)]
    found = (stored(asset, day) for day in days for asset in NEEDED)
    return {id_ for one in found if one is not None for id_ in one.missing_ids}


def _is_due(day: str, timezone: str, due: datetime | None) -> bool:
    return due is not None and parse_day(day, timezone).end < due


@dataclass(frozen=True)
class Feeds:
    """The stored days of all event assets. Each file's footer is read once.

    Days that ended before `due` should be closed by now; None where no day should.
    """

    datasets: Mapping[str, ds.FileSystemDataset]
    timezone: str
    due: datetime | None

    @cached_property
    def _fragments(self) -> Mapping[str, Mapping[str, ds.ParquetFileFragment]]:
        return {asset: list_partitions(data, EVENT_DATE) for asset, data in self.datasets.items()}

    @cached_property
    def _stored(self) -> dict[tuple[str, str], FeedDay | None]:
        return {}

    def stored(self, asset: str, day: str) -> FeedDay | None:
        """Read what is stored of a day; None where nothing is."""
        if (asset, day) not in self._stored:
            self._stored[asset, day] = self._read(asset, day)
        return self._stored[asset, day]

    def _read(self, asset: str, day: str) -> FeedDay | None:
        if day not in self._fragments[asset]:
            return None
        return read_feed_day(self._fragments[asset][day].metadata, day, self.timezone)

    def has_day(self, asset: str, day: str) -> bool:
        """Tell whether an asset is stored for a day."""
        return day in self._fragments[asset]

    def rows(self, day: str) -> int:
        """Count a day's events of all assets."""
        return sum(stored.rows for asset in self.datasets if (stored := self.stored(asset, day)) is not None)

    def status(self, window: Collection[str]) -> Status:
        """Determine the status that a cohort's event days allow."""
        return determine_status(self.stored, window, self.timezone, self.due)

    def missing_ids(self, window: Collection[str]) -> set[int]:
        """Find the notifications whose rows of a cohort are incomplete."""
        return find_missing_ids(self.stored, window, self.timezone, self.due)

    def dataset(self, asset: str, days: Iterable[str]) -> ds.FileSystemDataset:
        """Select some days of an asset."""
        return select_fragments(
            self.datasets[asset], [self._fragments[asset][day] for day in days if self.has_day(asset, day)]
        )


def find_due_time(folder: Folder, settings: Settings) -> datetime | None:
    """Find the time before which days should be closed: the newest watermark of any event asset, less the lookback."""
    newest = find_newest_watermark(folder)
    return None if newest is None else newest - settings.lookback
