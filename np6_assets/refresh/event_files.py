"""Until when event days are fetched, by their files and Dagster's records; remembered from one tick to the next."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import dagster as dg

from np6_assets.events.kinds import KINDS
from np6_assets.events.store import Stored, stored_in
from np6_assets.partitions import EVENT_DATE
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.footers import Footers


class EventFiles:
    """The days of all event assets. A file that the listing shows unchanged is neither opened nor looked up again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._footers = {
            kind.asset: Footers(kind.asset, EVENT_DATE, lambda footer, _: stored_in(footer)) for kind in KINDS
        }
        self._recorded: dict[tuple[str, str], str | None] = {}
        """By asset and day the fingerprint of the file that Dagster has a record of."""

    def look(self, folder: Folder) -> None:
        """Look at which files there are now."""
        for footers in self._footers.values():
            footers.look(folder)

    def read(self, folder: Folder, days: Collection[str]) -> None:
        """Read what is not known of the days."""
        for footers in self._footers.values():
            footers.read(folder, days)

    def stored(self, asset: str, day: str) -> Stored | None:
        """What an asset's file of a day says; None where there is none."""
        return self._footers[asset].get(day)

    def all_stored(self, folder: Folder, asset: str) -> dict[str, Stored]:
        """What the files of all days of an asset say, oldest day first; those that are not known are read."""
        footers = self._footers[asset]
        footers.read(folder, list(footers.days))
        days = ((day, footers.get(day)) for day in sorted(footers.days))
        return {day: stored for day, stored in days if stored is not None}

    def until(self, instance: dg.DagsterInstance, asset: str, day: str) -> datetime | None:
        """Until when a day is known to be fetched: in its file, and in Dagster's records."""
        stored = self.stored(asset, day)
        if stored is None or stored.watermark is None:
            return None
        fingerprint = self._footers[asset].fingerprint(day)
        if self._recorded.get((asset, day)) == fingerprint:
            return stored.watermark
        recorded = _recorded_until(instance, dg.AssetKey(self._settings.key(asset)), day)
        if recorded is None or recorded < stored.watermark:
            return recorded
        self._recorded[asset, day] = fingerprint
        return stored.watermark


def _recorded_until(instance: dg.DagsterInstance, asset: dg.AssetKey, day: str) -> datetime | None:
    records = instance.fetch_materializations(dg.AssetRecordsFilter(asset, asset_partitions=[day]), limit=1).records
    materialization = records[0].asset_materialization if records else None
    said = materialization.metadata.get("fetched_until") if materialization else None
    return datetime.fromtimestamp(said.value, UTC) if isinstance(said, dg.TimestampMetadataValue) else None
