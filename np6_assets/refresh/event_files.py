"""Until when event days are fetched, by their files and Dagster's records; remembered from one tick to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import dagster as dg

from np6_assets.events.kinds import KINDS
from np6_assets.events.store import StoredDay, parse_footer
from np6_assets.partition_checks import read_metadata
from np6_assets.partitions import EVENT_DATE
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.footers import FooterCache, read_until


class EventFiles:
    """The files of all event assets. A file that the listing shows unchanged is neither opened nor looked up again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._footers = {
            kind.asset: FooterCache(kind.asset, EVENT_DATE, lambda footer, _: parse_footer(footer)) for kind in KINDS
        }
        self._recorded: dict[tuple[str, str], str | None] = {}
        """By asset and day the fingerprint of the file that Dagster has a record of."""

    def list_files(self, folder: Folder) -> None:
        """List the files that there are now."""
        for footers in self._footers.values():
            footers.refresh(folder)

    def read(self, folder: Folder, days: Sequence[str], is_time_up: Callable[[], bool]) -> set[str]:
        """Read the files of the days in order, unless they are known; returns the days that are left."""
        footers = list(self._footers.values())
        read_until(footers, folder, days, is_time_up)
        return {day for day in days if not all(one.is_known(day) for one in footers)}

    def read_all(self, folder: Folder, asset: str) -> dict[str, StoredDay]:
        """Read an asset's files of all days, oldest day first."""
        footers = self._footers[asset]
        footers.read_days(folder, list(footers.days))
        days = ((day, footers.get(day)) for day in sorted(footers.days))
        return {day: stored for day, stored in days if stored is not None}

    def find_watermark(self, instance: dg.DagsterInstance, asset: str, day: str) -> datetime | None:
        """Find until when a day, which was read, is fetched: the earlier of its file's word and Dagster's record."""
        stored = self._footers[asset].get(day)
        if stored is None or stored.watermark is None:
            return None
        fingerprint = self._footers[asset].get_fingerprint(day)
        if self._recorded.get((asset, day)) == fingerprint:
            return stored.watermark
        recorded = _read_recorded_watermark(instance, dg.AssetKey(self._settings.key(asset)), day)
        if recorded is None or recorded < stored.watermark:
            return recorded
        self._recorded[asset, day] = fingerprint
        return stored.watermark


def _read_recorded_watermark(instance: dg.DagsterInstance, asset: dg.AssetKey, day: str) -> datetime | None:
    records = instance.fetch_materializations(dg.AssetRecordsFilter(asset, asset_partitions=[day]), limit=1).records
    found = read_metadata(records[0], "fetched_until") if records else None
    return None if found is None else datetime.fromtimestamp(found, UTC)
