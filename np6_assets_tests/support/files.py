"""Write and read a file of a folder."""

import uuid

from np6_assets.storage.files import Folder

PLACE = "hits/event_date=2026-03-20/part-0.parquet"


def create_remote_folder() -> Folder:
    """Create an empty folder in an object store in memory."""
    return Folder(f"memory://{uuid.uuid4().hex}/data")


def write_file(folder: Folder, content: bytes, relative: str = PLACE) -> None:
    with folder.replace(relative) as file:
        file.write(content)


def read_file(folder: Folder, relative: str = PLACE) -> bytes:
    with folder.open(relative) as file:
        return file.read()
