"""This machine: settings, folders, and Dagster's home. Nothing that is written stays."""

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
from np6_assets.dagster_private import instigators_on
from np6_assets.settings import Settings, SettingsError
from np6_assets.storage.files import Folder


class Recorded(dict[str, str]):
    """An environment that remembers which variables were read."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """The variable, as a dict gives it."""
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
    recorded = Recorded(environment)
    try:
        settings = Settings.from_environment(recorded)
    except SettingsError as error:
        return SettingsRead(None, str(error), ())
    named = {name for name in environment if name.startswith("NP6_")}
    return SettingsRead(settings, "", tuple(sorted(named - recorded.read)))


def read_attributes(account: NP6Account) -> SettingsRead:
    """Read the settings of an account from YAML: Dagster refuses attributes that it does not know."""
    try:
        return SettingsRead(account.settings(), "", ())
    except SettingsError as error:
        return SettingsRead(None, str(error), ())


@dataclass(frozen=True)
class Place:
    """A folder that is written to. `free` is in bytes, None where that cannot be told; `error` where writing failed.

    `has_locks` is false where the file system refuses them, and where it is none.
    """

    shown: str
    exists: bool
    free: int | None
    error: str
    has_locks: bool = False


def data_folder(url: str) -> Place:
    """The data folder: written to and read back, as a run does, and left as it was."""
    visible = re.sub(r"//[^/@]*@", "//***@", url)
    try:
        folder = Folder(url)
        if folder.is_local:
            return _local(Path(folder.root), visible)
        name = f".np6-doctor-{uuid.uuid4().hex}"
        with folder.replacing(name) as file:
            file.write(b"np6")
        try:
            with folder.open(name) as file:
                same = file.read() == b"np6"
        finally:
            folder.remove(name)
    except Exception as error:  # noqa: BLE001 -- every file system has errors of its own
        return Place(visible, False, None, _one_line(error))
    return Place(visible, True, None, "" if same else "what was written is not what is read")


def temporary_folder() -> Place:
    """The folder for temporary files, where downloads are spooled."""
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        return Place("no folder", False, None, _one_line(error))
    return _local(Path(folder), folder)


def _local(folder: Path, visible: str) -> Place:
    """The folder, or where it would be made: the nearest one above it that is there."""
    there = folder
    try:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        free = shutil.disk_usage(there).free
        with tempfile.TemporaryFile(dir=there, prefix=".np6-doctor-") as file:
            file.write(b"np6")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Place(visible, there == folder, None, f"{error.strerror or error} ({there})")
    return Place(visible, there == folder, free, "", _has_locks(there))


def _has_locks(folder: Path) -> bool:
    """Whether a folder can be locked, or is locked by a run."""
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
    place: Place
    config: Mapping[str, Any] | None
    error: str


def dagster_home(environment: Mapping[str, str]) -> DagsterHome | None:
    """DAGSTER_HOME and its dagster.yaml; None where it is not set."""
    named = environment.get("DAGSTER_HOME", "")
    if not named:
        return None
    home = Path(named)
    place = _local(home, named)
    config, error = _config(home / "dagster.yaml")
    return DagsterHome(named, home.is_absolute(), place, config, error)


DEV_HOME = Path(".dagster_home")
"""Dagster's home of `make dev`, where DAGSTER_HOME names no other."""


def home_of(environment: Mapping[str, str]) -> Path:
    """Where Dagster's home is."""
    return Path(environment.get("DAGSTER_HOME") or DEV_HOME)


def has_records(home: Path) -> bool:
    """Whether Dagster keeps records, in its home or elsewhere: opening a home that nobody uses leaves files in it."""
    config, error = _config(home / "dagster.yaml")
    if error or not home.is_dir():
        return False
    is_elsewhere = config is not None and bool({"storage", "event_log_storage", "schedule_storage"} & config.keys())
    return is_elsewhere or any(entry.name != "dagster.yaml" for entry in home.iterdir())


@contextmanager
def dagster_records(home: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's records, where they are kept as its home says."""
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home.absolute())  # the one documented way to name it
    try:
        with dg.DagsterInstance.get() as instance:
            yield instance
    finally:
        del os.environ["DAGSTER_HOME"]
        if before is not None:
            os.environ["DAGSTER_HOME"] = before


def late_event_catchers(home: Path, names: Collection[str]) -> set[str] | None:
    """Which of these sensors and schedules, by name, are on; None where that cannot be told."""
    if not home.is_dir() or _config(home / "dagster.yaml")[1]:
        return None
    if not has_records(home):
        return set()
    try:
        with dagster_records(home) as instance:
            return instigators_on(instance, names)
    except Exception:  # noqa: BLE001 -- every database has errors of its own, and some name its password
        return None


def _config(file: Path) -> tuple[Mapping[str, Any] | None, str]:
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, "a link that leads nowhere" if file.is_symlink() else ""
    except (OSError, UnicodeDecodeError) as error:
        return None, _one_line(error)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # its text would quote the file, where passwords may stand
        return None, "not YAML" + (f" (line {mark.line + 1})" if mark else "")
    if value is None:
        return {}, ""
    return (value, "") if isinstance(value, dict) else (None, "not a YAML mapping")


def proxies(environment: Mapping[str, str]) -> Iterator[str]:
    """The names of the variables that send requests through a proxy."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        yield from (one for one in (name, name.lower()) if environment.get(one))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    text = re.sub(r"//[^/@\s]*@", "//***@", text)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
