"""What is stored of the event assets: which days are there, and what their files say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import pyarrow.dataset as ds

from np6_assets.events.store import WATERMARK
from np6_assets.partitions import EVENT_DATE, day_of
from np6_assets.storage.parquet import partitions_of, subset

REACTIONS = ("hits", "optouts", "bounces")
NEEDED = ("activations", *REACTIONS)
"""The assets without whose closed days a cohort's rates cannot be final."""


@dataclass(frozen=True)
class StoredDay:
    """A day of an event asset, as its file says: how many rows it has, and whether it is closed."""

    rows: int
    is_closed: bool


@dataclass(frozen=True)
class Feeds:
    """The event days that are materialized, of each event asset. Each file's footer is read once."""

    datasets: Mapping[str, ds.FileSystemDataset]
    timezone: str

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
        footer = self._fragments[asset][day].metadata
        until = (footer.metadata or {}).get(WATERMARK)
        is_closed = until is not None and datetime.fromisoformat(until.decode()) >= day_of(day, self.timezone).end
        return StoredDay(footer.num_rows, is_closed)

    def has(self, asset: str, day: str) -> bool:
        """Whether an asset is materialized for a day."""
        return day in self._fragments[asset]

    def is_closed(self, asset: str, day: str) -> bool:
        """Whether an asset was materialized for a day after that day had ended."""
        stored = self.stored(asset, day)
        return stored is not None and stored.is_closed

    def rows(self, day: str) -> int:
        """How many events of all assets a day has."""
        return sum(stored.rows for asset in self.datasets if (stored := self.stored(asset, day)) is not None)

    def of(self, asset: str, days: Iterable[str]) -> ds.FileSystemDataset:
        """Some days of an asset."""
        return subset(self.datasets[asset], [self._fragments[asset][day] for day in days if self.has(asset, day)])
