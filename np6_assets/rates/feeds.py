"""What is stored of the event assets: which days are there, and what their files say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypeAlias

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from np6_assets.events.store import missing_in, newest_watermark, watermark_in
from np6_assets.partitions import EVENT_DATE, day_of
from np6_assets.rates.columns import Status
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import content_of, partitions_of, subset

REACTIONS = ("hits", "optouts", "bounces")
NEEDED = ("activations", *REACTIONS)
"""The assets without whose closed days a cohort's rates cannot be final."""


@dataclass(frozen=True)
class StoredDay:
    """A day of an event asset, as its file says.

    `missing_ids` are the notifications that could not be fetched; `content` tells its rows from other ones.
    """

    rows: int
    is_closed: bool
    missing_ids: frozenset[int]
    watermark: datetime | None
    content: str


StoredDays: TypeAlias = Callable[[str, str], StoredDay | None]
"""What is stored of an asset's day; None where the asset is not materialized for it."""


def stored_day(footer: pq.FileMetaData, day: str, timezone: str) -> StoredDay:
    """What a file of an event asset says."""
    watermark = watermark_in(footer)
    is_closed = watermark is not None and watermark >= day_of(day, timezone).end
    return StoredDay(footer.num_rows, is_closed, missing_in(footer), watermark, content_of(footer))


def status_of(stored: StoredDays, window: Collection[str], timezone: str, due: datetime | None) -> Status:
    """What the event days of a cohort's window allow its rates to be; see `Feeds` for `due`."""
    days = [(stored(asset, day), day) for day in window for asset in NEEDED]
    lacking = {day for one, day in days if one is None or not one.is_closed}
    if not lacking:
        return "final"
    return "incomplete" if _is_due(min(lacking), timezone, due) else "open"


def missing_of(stored: StoredDays, window: Collection[str], timezone: str, due: datetime | None) -> set[int]:
    """The notifications whose rows of a cohort are incomplete: a day that is due could not be fetched of them.

    Of a cohort whose days are all closed, any of its days counts: none of its rows is open.
    """
    is_closed = status_of(stored, window, timezone, due) == "final"
    days = [day for day in window if is_closed or _is_due(day, timezone, due)]
    found = (stored(asset, day) for day in days for asset in NEEDED)
    return {id_ for one in found if one is not None for id_ in one.missing_ids}


def _is_due(day: str, timezone: str, due: datetime | None) -> bool:
    return due is not None and day_of(day, timezone).end < due


@dataclass(frozen=True)
class Feeds:
    """The event days that are materialized, of each event asset. Each file's footer is read once.

    `due` says which days should be closed by now: those that ended before it; None where none should be.
    """

    datasets: Mapping[str, ds.FileSystemDataset]
    timezone: str
    due: datetime | None

    @cached_property
    def _fragments(self) -> Mapping[str, Mapping[str, ds.ParquetFileFragment]]:
        return {asset: partitions_of(data, EVENT_DATE) for asset, data in self.datasets.items()}

    @cached_property
    def _stored(self) -> dict[tuple[str, str], StoredDay | None]:
        return {}

    def stored(self, asset: str, day: str) -> StoredDay | None:
        """What is stored of a day; None where the asset is not materialized for it."""
        if (asset, day) not in self._stored:
            self._stored[asset, day] = self._read(asset, day)
        return self._stored[asset, day]

    def _read(self, asset: str, day: str) -> StoredDay | None:
        if day not in self._fragments[asset]:
            return None
        return stored_day(self._fragments[asset][day].metadata, day, self.timezone)

    def has(self, asset: str, day: str) -> bool:
        """Whether an asset is materialized for a day."""
        return day in self._fragments[asset]

    def rows(self, day: str) -> int:
        """How many events of all assets a day has."""
        return sum(stored.rows for asset in self.datasets if (stored := self.stored(asset, day)) is not None)

    def status(self, window: Collection[str]) -> Status:
        """What the event days of a cohort's window allow its rates to be."""
        return status_of(self.stored, window, self.timezone, self.due)

    def missing_ids(self, window: Collection[str]) -> set[int]:
        """The notifications whose rows of a cohort are incomplete."""
        return missing_of(self.stored, window, self.timezone, self.due)

    def of(self, asset: str, days: Iterable[str]) -> ds.FileSystemDataset:
        """Some days of an asset."""
        return subset(self.datasets[asset], [self._fragments[asset][day] for day in days if self.has(asset, day)])


def due(folder: Folder, settings: Settings) -> datetime | None:
    """The newest watermark of any event asset, less the lookback: days that ended before it should be closed by now."""
    newest = newest_watermark(folder)
    return None if newest is None else newest - settings.lookback
