"""What is stored of the event assets: which days, and what their files' metadata says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from np6_assets.events.kinds import KINDS
from np6_assets.events.store import find_newest_watermark, get_missing_ids, get_watermark
from np6_assets.partitions import EVENT_DATE, parse_day
from np6_assets.rates.columns import Status
from np6_assets.rates.inputs import Inputs, compute_digest
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import get_digest, list_partitions, open_partitioned_dataset, select_fragments

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


def read_feed_day(footer: pq.FileMetaData, day: str, timezone: str) -> FeedDay:
    """Read the footer of an event file."""
    watermark = get_watermark(footer)
    is_closed = watermark is not None and watermark >= parse_day(day, timezone).end
    return FeedDay(footer.num_rows, is_closed, get_missing_ids(footer), watermark, get_digest(footer))


class EventDays:
    """The stored days of all event assets, and what they allow for cohorts, given the event days of their windows.

    `stored` gives what is stored of an asset's day, or None. Days that ended before `due` should be closed by now; None
    where no day should.
    """

    def __init__(self, stored: Callable[[str, str], FeedDay | None], timezone: str, due: datetime | None) -> None:
        self.stored = stored
        self.timezone = timezone
        self.due = due
        self._digest = cache(self._digest_day)  # a day is in the windows of several cohorts

    def determine_status(self, window: Collection[str]) -> Status:
        """Determine the status of a cohort, but for its missing ids."""
        days = [(self.stored(asset, day), day) for day in window for asset in NEEDED]
        lacking = {day for one, day in days if one is None or not one.is_closed}
        if not lacking:
            return "final"
        return "incomplete" if self._is_due(min(lacking)) else "open"

    def find_missing_ids(self, window: Collection[str]) -> list[int]:
        """Find the notifications whose rows of a cohort are incomplete: a due day could not be fetched for them.

        If all days of the cohort are closed, each of them counts: none of its rows is open.
        """
        is_closed = self.determine_status(window) == "final"
        found = (self.stored(asset, day) for day in window if is_closed or self._is_due(day) for asset in NEEDED)
        return sorted({id_ for one in found if one is not None for id_ in one.missing_ids})

    def read_inputs(self, window: Collection[str]) -> Inputs:
        """Read what a cohort's rates follow from."""
        digests = ((day, self._digest(day)) for day in window)
        days = {day: digest for day, digest in digests if digest is not None}
        return Inputs(self.determine_status(window), self.find_missing_ids(window), days)

    def _is_due(self, day: str) -> bool:
        return self.due is not None and parse_day(day, self.timezone).end < self.due

    def _digest_day(self, day: str) -> str | None:
        """Digest what rates use of an event day; None where no asset has it."""
        stored = ((asset, self.stored(asset, day)) for asset in (*NEEDED, "impressions"))
        contents = [(asset, one.content) for asset, one in stored if one is not None]
        return compute_digest(repr(contents).encode()) if contents else None


class Feeds(EventDays):
    """The event days in `datasets`, by asset. Each file's footer is read once."""

    def __init__(self, datasets: Mapping[str, ds.FileSystemDataset], timezone: str, due: datetime | None) -> None:
        self.datasets = datasets
        self._files = {asset: list_partitions(data, EVENT_DATE) for asset, data in datasets.items()}
        super().__init__(cache(self._read_day), timezone, due)

    def _read_day(self, asset: str, day: str) -> FeedDay | None:
        file = self._files[asset].get(day)
        return None if file is None else read_feed_day(file.metadata, day, self.timezone)

    def has_day(self, asset: str, day: str) -> bool:
        """Tell whether an asset is stored for a day."""
        return day in self._files[asset]

    def count_rows(self, day: str) -> int:
        """Count a day's events of all assets."""
        return sum(stored.rows for asset in self.datasets if (stored := self.stored(asset, day)) is not None)

    def select_days(self, asset: str, days: Iterable[str]) -> ds.FileSystemDataset:
        """Select some days of an asset."""
        files = [self._files[asset][day] for day in days if self.has_day(asset, day)]
        return select_fragments(self.datasets[asset], files)


def open_feeds(folder: Folder, days: Sequence[str], settings: Settings) -> Feeds:
    """Open some event days of all assets, of which none is due."""
    datasets = {
        kind.asset: open_partitioned_dataset(folder, kind.asset, kind.schema, EVENT_DATE, days) for kind in KINDS
    }
    return Feeds(datasets, settings.timezone, None)


def find_due_time(folder: Folder, settings: Settings) -> datetime | None:
    """Find the time before which days should be closed: the newest watermark of any event asset, less the lookback."""
    newest = find_newest_watermark(folder)
    return None if newest is None else newest - settings.lookback
