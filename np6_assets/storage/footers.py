"""A cache of file footers by day: a footer is read again only if the listing says that the file changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import pyarrow.parquet as pq

from np6_assets.partitions import partition_day
from np6_assets.storage.files import Folder
from np6_assets.storage.parquet import FILE_NAME, build_path, read_footer

AT_ONCE = 8
"""Footers of an asset that are read in parallel: an object store is slow to answer."""

T = TypeVar("T")


class FooterCache(Generic[T]):
    """The days of an asset, as `parse` reads them from a file's footer and its day. For one thread.

    `refresh` lists the files and drops the footers that changed; `read_days` reads those that are not cached.
    """

    def __init__(self, asset: str, column: str, parse: Callable[[pq.FileMetaData, str], T]) -> None:
        self._asset = asset
        self._column = column
        self._parse = parse
        self._listed: dict[str, str] = {}
        self._known: dict[str, tuple[str, T]] = {}

    @property
    def days(self) -> Iterable[str]:
        """The days that had a file when they were listed."""
        return self._listed.keys()

    def refresh(self, folder: Folder) -> None:
        """List the files again."""
        found = folder.list_fingerprints(self._asset, FILE_NAME)
        days = {partition_day(name, self._column): fingerprint for name, fingerprint in found.items()}
        self._listed = {str(day): fingerprint for day, fingerprint in days.items() if day is not None}
        self._known = {day: known for day, known in self._known.items() if self._listed.get(day) == known[0]}

    def read_days(self, folder: Folder, days: Iterable[str]) -> None:
        """Read those of the days that are not cached, in parallel."""
        unknown = [day for day in days if not self.is_known(day)]
        if not unknown:
            return
        with ThreadPoolExecutor(min(AT_ONCE, len(unknown)), thread_name_prefix="np6-footers") as pool:
            for day, found in zip(unknown, pool.map(lambda day: self._read_footer(folder, day), unknown), strict=True):
                if found is None:
                    del self._listed[day]
                else:
                    self._known[day] = self._listed[day], self._parse(found, day)

    def is_known(self, day: str) -> bool:
        """Whether a day is cached, or known to have no file."""
        return day not in self._listed or day in self._known

    def get(self, day: str) -> T | None:
        """Return what a day's file says; None if it has none. Raises KeyError if it was not read."""
        return self._known[day][1] if day in self._listed else None

    def get_fingerprint(self, day: str) -> str | None:
        """Return the version tag of a day's file; None if it has none."""
        return self._listed.get(day)

    def _read_footer(self, folder: Folder, day: str) -> pq.FileMetaData | None:
        try:
            return read_footer(folder, build_path(self._asset, self._column, day))
        except FileNotFoundError:
            return None  # removed since it was listed


def read_until(
    assets: Sequence[FooterCache[Any]], folder: Folder, days: Sequence[str], is_time_up: Callable[[], bool]
) -> None:
    """Read the days of some assets in order until the time is up; the first AT_ONCE in any case."""
    unknown = [day for day in days if not all(footers.is_known(day) for footers in assets)]
    for start in range(0, len(unknown), AT_ONCE):
        for footers in assets:
            footers.read_days(folder, unknown[start : start + AT_ONCE])
        if is_time_up():
            return
