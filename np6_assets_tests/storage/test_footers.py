"""Test the cache of footers, on a disk and on an object store."""

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


class RecordingFolder:
    """The files of some days, and a cache that records which of them it opens."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = Folder(url)
        self.files: list[str] = []
        self.footers = FooterCache("hits", "event_date", lambda footer, day: (day, footer.num_rows))
        footer = footers_module.read_footer

        def record(folder: Folder, file: str) -> pq.FileMetaData:
            self.files.append(file)
            return footer(folder, file)

        monkeypatch.setattr(footers_module, "read_footer", record)

    def write(self, day: str, rows: int) -> None:
        write_file(self.folder, build_path("hits", "event_date", day), pa.table({"id": range(rows)}))

    def refresh_days(self) -> list[str]:
        """Refresh the cache, and list the days whose files it opens."""
        self.files = []
        self.footers.refresh(self.folder)
        self.footers.read_days(self.folder, DAYS)
        return sorted(file.split("=")[1][:10] for file in self.files)


@pytest.fixture(params=["local", "remote"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingFolder:
    return RecordingFolder(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}", monkeypatch)


def test_footers_open_only_files_that_changed(files: RecordingFolder):
    assert files.refresh_days() == []
    for day in DAYS[1:]:
        files.write(day, 3)
    assert files.refresh_days() == DAYS[1:]
    assert files.refresh_days() == []
    files.write(DAYS[0], 1)  # new
    files.write(DAYS[5], 4)  # replaced
    files.write(DAYS[6], 3)  # replaced by one of the same size
    files.folder.remove(build_path("hits", "event_date", DAYS[7]))
    assert files.refresh_days() == [DAYS[0], DAYS[5], DAYS[6]]
    rows = {day: files.footers.get(day) for day in DAYS}
    assert rows == {day: (day, 3) for day in DAYS} | {DAYS[0]: (DAYS[0], 1), DAYS[5]: (DAYS[5], 4), DAYS[7]: None}


def test_footers_continue_where_the_last_read_stopped(files: RecordingFolder):
    for day in DAYS:
        files.write(day, 1)
    files.footers.refresh(files.folder)
    counts = []
    for _ in range(3):
        read_until([files.footers], files.folder, DAYS, lambda: True)
        counts.append(sum(map(files.footers.is_known, DAYS)))
    assert counts == [8, 16, 20]
