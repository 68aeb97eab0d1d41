"""Where data of receivers is stored: the event files and the quarantine, day by day."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from np6_assets.events.kinds import KINDS
from np6_assets.partitions import EVENT_DATE
from np6_assets.storage.files import Folder

QUARANTINE = "quarantine/"


@dataclass(frozen=True)
class DayFile:
    """A day's file of an event asset or, where `asset` begins with `quarantine/`, of what did not fit."""

    asset: str
    day: date

    @property
    def path(self) -> str:
        """Where it stands below the data folder."""
        return f"{self.asset}/{EVENT_DATE}={self.day}/part-0.parquet"

    @property
    def is_quarantine(self) -> bool:
        """Whether these are events that did not fit."""
        return self.asset.startswith(QUARANTINE)


def day_files(folder: Folder) -> Iterator[DayFile]:
    """Each file that is there, asset by asset, oldest day first."""
    for kind in KINDS:
        for asset in (kind.asset, f"{QUARANTINE}{kind.asset}"):
            for partition in folder.folders(asset):
                name, _, day = partition.partition("=")
                file = DayFile(asset, date.fromisoformat(day)) if name == EVENT_DATE else None
                if file is not None and folder.exists(file.path):
                    yield file
