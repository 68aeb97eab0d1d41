"""Until when event days are fetched, by their files and Dagster's records; remembered from one tick to the next."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import dagster as dg

from np6_assets.events.kinds import KINDS
from np6_assets.events.store import StoredDay, parse_footer
from np6_assets.partitions import EVENT_DATE
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.footers import FooterCache


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

    def read(self, folder: Folder, days: Collection[str]) -> None:
        """Read the files of the days, unless they are known."""
        for footers in self._footers.values():
            footers.read_days(folder, days)

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
    materialization = records[0].asset_materialization if records else None
    found = materialization.metadata.get("fetched_until") if materialization else None
    return datetime.fromtimestamp(found.value, UTC) if isinstance(found, dg.TimestampMetadataValue) else None
