"""Examine this machine: settings, folders and Dagster's home. Nothing that is written stays."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml  # type: ignore[import-untyped]

from np6_assets.component import NP6Account
from np6_assets.dagster_private import list_running_instigators
from np6_assets.settings import Settings, SettingsError
from np6_assets.storage.files import Folder


class TrackedEnvironment(dict[str, str]):
    """An environment that remembers which variables were read."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the variable, as a dict does."""
        self.read.add(name)
        return super().get(name, default)


@dataclass(frozen=True)
class SettingsRead:
    """The settings, or what is wrong with them; and variables that look like settings and are none."""

    settings: Settings | None
    error: str
    unknown: tuple[str, ...]


def read_settings(environment: Mapping[str, str]) -> SettingsRead:
    """Read the settings as Dagster's code location does."""
    tracked = TrackedEnvironment(environment)
    try:
        settings = Settings.from_environment(tracked)
    except SettingsError as error:
        return SettingsRead(None, str(error), ())
    named = {name for name in environment if name.startswith("NP6_")}
    return SettingsRead(settings, "", tuple(sorted(named - tracked.read)))


def read_attributes(account: NP6Account) -> SettingsRead:
    """Read the settings of an account from YAML: Dagster refuses attributes that it does not know."""
    try:
        return SettingsRead(account.settings(), "", ())
    except SettingsError as error:
        return SettingsRead(None, str(error), ())


@dataclass(frozen=True)
class FolderProbe:
    """A folder that was written to. `free` is in bytes, None if unknown; `error` says why writing failed.

    `has_locks`: the folder is on a file system, and that has locks.
    """

    name: str
    exists: bool
    free: int | None
    error: str
    has_locks: bool = False


def probe_data_folder(url: str) -> FolderProbe:
    """Write to the data folder and read back, as a run does; leaves it as it was."""
    visible = re.sub(r"//[^/@]*@", "//***@", url)
    try:
        folder = Folder(url)
        if folder.is_local:
            return _probe_local_folder(Path(folder.root), visible)
        name = f".np6-doctor-{uuid.uuid4().hex}"
        with folder.replace(name) as file:
            file.write(b"np6")
        try:
            with folder.open(name) as file:
                same = file.read() == b"np6"
        finally:
            folder.remove(name)
    except Exception as error:  # noqa: BLE001 -- every file system has errors of its own
        return FolderProbe(visible, False, None, _format_error(error))
    return FolderProbe(visible, True, None, "" if same else "what was written is not what is read")


def probe_temporary_folder() -> FolderProbe:
    """Write to the folder for temporary files, where downloads are kept."""
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        return FolderProbe("no folder", False, None, _format_error(error))
    return _probe_local_folder(Path(folder), folder)


def _probe_local_folder(folder: Path, visible: str) -> FolderProbe:
    """Write to the folder, or where it would be made: the nearest existing one above it."""
    there = folder
    try:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        free = shutil.disk_usage(there).free
        with tempfile.TemporaryFile(dir=there, prefix=".np6-doctor-") as file:
            file.write(b"np6")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return FolderProbe(visible, there == folder, None, f"{error.strerror or error} ({there})")
    return FolderProbe(visible, there == folder, free, "", _has_locks(there))


def _has_locks(folder: Path) -> bool:
    """Tell whether a folder can be locked, or is locked by a run."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass(frozen=True)
class DagsterHome:
    """DAGSTER_HOME. `config` is what its dagster.yaml says, None where there is none; `error` what is wrong with it."""

    path: str
    is_absolute: bool
    folder: FolderProbe
    config: Mapping[str, Any] | None
    error: str


def read_dagster_home(environment: Mapping[str, str]) -> DagsterHome | None:
    """Read DAGSTER_HOME and its dagster.yaml; None where it is not set."""
    named = environment.get("DAGSTER_HOME", "")
    if not named:
        return None
    home = Path(named)
    folder = _probe_local_folder(home, named)
    config, error = _read_config(home / "dagster.yaml")
    return DagsterHome(named, home.is_absolute(), folder, config, error)


DEV_HOME = Path(".dagster_home")
"""Dagster's home of `make dev`, where DAGSTER_HOME names no other."""


def find_dagster_home(environment: Mapping[str, str]) -> Path:
    """Find Dagster's home."""
    return Path(environment.get("DAGSTER_HOME") or DEV_HOME)


def has_records(home: Path) -> bool:
    """Tell whether Dagster keeps records, in its home or elsewhere: opening an unused home would leave files in it."""
    config, error = _read_config(home / "dagster.yaml")
    if error or not home.is_dir():
        return False
    is_elsewhere = config is not None and bool({"storage", "event_log_storage", "schedule_storage"} & config.keys())
    return is_elsewhere or any(entry.name != "dagster.yaml" for entry in home.iterdir())


@contextmanager
def open_records(home: Path) -> Iterator[dg.DagsterInstance]:
    """Open Dagster's records, where its home says that they are."""
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home.absolute())  # the one documented way to name it
    try:
        with dg.DagsterInstance.get() as instance:
            yield instance
    finally:
        del os.environ["DAGSTER_HOME"]
        if before is not None:
            os.environ["DAGSTER_HOME"] = before


def find_running(home: Path, names: Collection[str]) -> set[str] | None:
    """Find which of these sensors and schedules, by name, are on; None where that cannot be told."""
    if not home.is_dir() or _read_config(home / "dagster.yaml")[1]:
        return None
    if not has_records(home):
        return set()
    try:
        with open_records(home) as instance:
            return list_running_instigators(instance, names)
    except Exception:  # noqa: BLE001 -- every database has errors of its own, and some name its password
        return None


def _read_config(file: Path) -> tuple[Mapping[str, Any] | None, str]:
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, "a link that leads nowhere" if file.is_symlink() else ""
    except (OSError, UnicodeDecodeError) as error:
        return None, _format_error(error)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # its text would quote the file, where passwords may stand
        return None, "not YAML" + (f" (line {mark.line + 1})" if mark else "")
    if value is None:
        return {}, ""
    return (value, "") if isinstance(value, dict) else (None, "not a YAML mapping")


def list_proxies(environment: Mapping[str, str]) -> Iterator[str]:
    """List the variables that send requests through a proxy."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        yield from (one for one in (name, name.lower()) if environment.get(one))


def _format_error(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    text = re.sub(r"//[^/@\s]*@", "//***@", text)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
