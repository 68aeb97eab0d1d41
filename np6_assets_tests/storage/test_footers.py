"""What is known of an asset's files from one look to the next, on a disk and on an object store."""

import uuid
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets.storage import footers as footers_module
from np6_assets.storage.files import Folder
from np6_assets.storage.footers import FooterCache, read_until
from np6_assets.storage.parquet import build_path, write_file

DAYS = [str(date(2026, 3, 1) + timedelta(days=ahead)) for ahead in range(20)]


class Opened:
    """The files of some days, and which of them were opened."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = Folder(url)
        self.files: list[str] = []
        self.footers = FooterCache("hits", "event_date", lambda footer, day: (day, footer.num_rows))
        footer = footers_module.read_footer

        def noted(folder: Folder, file: str) -> pq.FileMetaData:
            self.files.append(file)
            return footer(folder, file)

        monkeypatch.setattr(footers_module, "read_footer", noted)

    def write(self, day: str, rows: int) -> None:
        write_file(self.folder, build_path("hits", "event_date", day), pa.table({"id": range(rows)}))

    def look(self) -> list[str]:
        """The days whose files are opened where they are looked at again."""
        self.files = []
        self.footers.refresh(self.folder)
        self.footers.read_days(self.folder, DAYS)
        return sorted(file.split("=")[1][:10] for file in self.files)


@pytest.fixture(params=["local", "remote"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}", monkeypatch)


def test_footers_open_only_files_that_changed(opened: Opened):
    assert opened.look() == []
    for day in DAYS[1:]:
        opened.write(day, 3)
    assert opened.look() == DAYS[1:]
    assert opened.look() == []
    opened.write(DAYS[0], 1)  # new
    opened.write(DAYS[5], 4)  # replaced
    opened.folder.remove(build_path("hits", "event_date", DAYS[7]))
    assert opened.look() == [DAYS[0], DAYS[5]]
    rows = {day: opened.footers.get(day) for day in DAYS}
    assert rows == {day: (day, 3) for day in DAYS} | {DAYS[0]: (DAYS[0], 1), DAYS[5]: (DAYS[5], 4), DAYS[7]: None}


def test_footers_read_a_file_again_that_has_the_same_size(opened: Opened):
    opened.write(DAYS[0], 3)
    opened.look()
    opened.write(DAYS[0], 3)
    assert opened.look() == [DAYS[0]]


def test_footers_read_in_time_goes_on_where_it_stopped(opened: Opened):
    for day in DAYS:
        opened.write(day, 1)
    opened.footers.refresh(opened.folder)
    known = []
    for _ in range(3):
        read_until([opened.footers], opened.folder, DAYS, lambda: True)
        known.append(sum(map(opened.footers.is_known, DAYS)))
    assert known == [8, 16, 20]
