"""What the files of an asset's days say of themselves, read again only where the listing says that a file changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import pyarrow.parquet as pq

from np6_assets.partitions import partition_day
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import FILE_NAME, file_of, footer

AT_ONCE = 8
"""How many files of an asset are read at once: an object store answers late, and many at a time."""

T = TypeVar("T")


class Footers(Generic[T]):
    """The days of an asset, as `parse` reads them from a file's footer and its day. For one thread at a time.

    `look` sees which there are and forgets those that changed; `read` reads what is not known yet.
    """

    def __init__(self, asset: str, column: str, parse: Callable[[pq.FileMetaData, str], T]) -> None:
        self._asset = asset
        self._column = column
        self._parse = parse
        self._listed: dict[str, str] = {}
        self._known: dict[str, tuple[str, T]] = {}

    @property
    def days(self) -> Iterable[str]:
        """The days that were there when they were listed."""
        return self._listed.keys()

    def look(self, folder: Folder) -> None:
        """Look at which files there are now."""
        found = folder.fingerprints(self._asset, FILE_NAME)
        days = {partition_day(name, self._column): fingerprint for name, fingerprint in found.items()}
        self._listed = {str(day): fingerprint for day, fingerprint in days.items() if day is not None}
        self._known = {day: known for day, known in self._known.items() if self._listed.get(day) == known[0]}

    def read(self, folder: Folder, days: Iterable[str]) -> None:
        """Read those of the days that are not known, many at once."""
        unknown = [day for day in days if not self.is_known(day)]
        if not unknown:
            return
        with ThreadPoolExecutor(min(AT_ONCE, len(unknown)), thread_name_prefix="np6-footers") as pool:
            for day, found in zip(unknown, pool.map(lambda day: self._footer(folder, day), unknown), strict=True):
                if found is None:
                    del self._listed[day]
                else:
                    self._known[day] = self._listed[day], self._parse(found, day)

    def is_known(self, day: str) -> bool:
        """Whether it is known what a day's file says, or that there is none."""
        return day not in self._listed or day in self._known

    def get(self, day: str) -> T | None:
        """What a day's file says; None where there is none. Raises KeyError where it was not read."""
        return self._known[day][1] if day in self._listed else None

    def fingerprint(self, day: str) -> str | None:
        """What tells a day's file from the one that it replaced; None where there is none."""
        return self._listed.get(day)

    def _footer(self, folder: Folder, day: str) -> pq.FileMetaData | None:
        try:
            return footer(folder, file_of(self._asset, self._column, day))
        except FileNotFoundError:
            return None  # removed since it was listed


def read_in_time(
    assets: Sequence[Footers[Any]], folder: Folder, days: Sequence[str], is_time_up: Callable[[], bool]
) -> None:
    """Read what is not known of the days of some assets, in order, as long as there is time; some in any case."""
    unknown = [day for day in days if not all(footers.is_known(day) for footers in assets)]
    for start in range(0, len(unknown), AT_ONCE):
        for footers in assets:
            footers.read(folder, unknown[start : start + AT_ONCE])
        if is_time_up():
            return
