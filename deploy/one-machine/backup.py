"""Make a backup of a local data folder and of Dagster's records: a folder a night, of which unchanged files are links.

Nothing has to be stopped for it: a file of the data folder is replaced and never changed, and a database is copied by
its own means. What Dagster logged (stdout, stderr) is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path


def main() -> None:
    """Read the options and make the backup."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder, NP6_DATA_DIR")
    parser.add_argument("--home", type=Path, required=True, help="DAGSTER_HOME")
    parser.add_argument("--to", type=Path, required=True, help="the folder of the backups; best on another disk")
    parser.add_argument("--keep", type=int, default=30, help="how many backups to keep (%(default)s)")
    options = parser.parse_args()
    made = back_up(options.data, options.home, options.to, f"{datetime.now(UTC):%Y-%m-%dT%H%M%S.%fZ}")
    for old in list_backups(options.to)[: -options.keep]:
        shutil.rmtree(old)
    print(made)


def back_up(data: Path, home: Path, to: Path, name: str) -> Path:
    """Make the backup of that name. It has its name once it is complete."""
    before = list_backups(to)
    unfinished = to / ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # records first: what is fetched meanwhile is then in the files, which say themselves until when they are complete
    if os.environ.get("DAGSTER_PG_HOST"):
        dump_postgres(unfinished / "dagster.dump")
    else:
        copy_databases(home, unfinished / "dagster")
    copy_files(data, unfinished / "data", before[-1] / "data" if before else None)
    return unfinished.rename(to / name)


def list_backups(to: Path) -> list[Path]:
    """List the backups, oldest first."""
    return sorted(path for path in to.glob("*Z") if path.is_dir())


def copy_files(source: Path, target: Path, previous: Path | None) -> None:
    """Copy a folder; a file that is the same in the previous copy becomes a link to that one."""
    for file in sorted(path for path in source.rglob("*") if path.is_file() and not path.name.endswith(".tmp")):
        relative = file.relative_to(source)
        copy = target / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        if previous is not None and is_same(file, previous / relative):
            copy.hardlink_to(previous / relative)
        else:
            shutil.copy2(file, copy)


def is_same(file: Path, copy: Path) -> bool:
    """Whether a copy that kept the time of its file is still one."""
    return copy.is_file() and (file.stat().st_size, file.stat().st_mtime_ns) == (
        copy.stat().st_size,
        copy.stat().st_mtime_ns,
    )


def copy_databases(home: Path, target: Path) -> None:
    """Copy each SQLite database of DAGSTER_HOME, however busy it is."""
    for file in sorted(home.rglob("*.db")):
        copy = target / file.relative_to(home)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as database, closing(sqlite3.connect(copy)) as into:
            database.backup(into)


def dump_postgres(target: Path) -> None:
    """Dump the database that the environment names; pg_restore reads it."""
    names = {"PGHOST": "HOST", "PGPORT": "PORT", "PGDATABASE": "DB", "PGUSER": "USERNAME", "PGPASSWORD": "PASSWORD"}
    settings = {name: os.environ[f"DAGSTER_PG_{ours}"] for name, ours in names.items()}
    subprocess.run(["pg_dump", "--format=custom", f"--file={target}"], env=os.environ | settings, check=True)


if __name__ == "__main__":
    main()
