"""Where data of receivers is stored: the event files and the quarantine, day by day."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from np6_assets.events.kinds import KINDS
from np6_assets.partitions import EVENT_DATE
from np6_assets.storage.files import Folder


@dataclass(frozen=True)
class DayFile:
    """A day's file of an event asset or, where it `is_quarantine`, of what did not fit."""

    asset: str
    day: date
    is_quarantine: bool

    @property
    def path(self) -> str:
        """Where it stands below the data folder."""
        from np6_assets.storage import parquet

        return parquet.file_of(self.asset, EVENT_DATE, str(self.day))


def day_files(folder: Folder) -> Iterator[DayFile]:
    """Each file that is there, asset by asset, oldest day first."""
    for kind in KINDS:
        for asset in (kind.asset, kind.quarantine):
            for partition in folder.folders(asset):
                name, _, day = partition.partition("=")
                file = DayFile(asset, date.fromisoformat(day), asset == kind.quarantine) if name == EVENT_DATE else None
                if file is not None and folder.exists(file.path):
                    yield file
