"""Judge the settings and the folders of this machine. Nothing that is written stays."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from np6_assets.component import list_variables
from np6_assets.contact.policy import SHORT_KEY
from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.runs.dead_runs import SENSOR
from np6_assets.settings import Settings, SettingsError
from np6_assets.storage.files import Folder

FREE_WARNING, FREE_WRONG = 2 * 2**30, 200 * 2**20


def judge_settings(found: Settings | SettingsError, environment: Mapping[str, str], now: datetime) -> Diagnosis:
    """Judge the settings, without the key. `environment` is where they are read from; empty for an account of YAML."""
    if isinstance(found, SettingsError):
        return Diagnosis("settings", "wrong", str(found), "Correct it in .env or the environment; what .env says wins.")
    if unread := sorted({name for name in environment if name.startswith("NP6_")} - list_variables()):
        advice = "Is a name misspelt? docs/settings.md lists the settings."
        return Diagnosis("settings", "warning", f"nothing reads {', '.join(unread)}", advice, {"unread": unread})
    if found.start_date > now.date() + timedelta(days=1):
        text = f"NP6_START_DATE={found.start_date} has not come yet, so there is no day to fetch"
        return Diagnosis("settings", "warning", text, "Set it to the first day that you want.")
    if found.contact.has_short_key:
        advice = "Runs take it only where stored files have pseudonyms of it."
        return Diagnosis("settings", "warning", f"NP6_PSEUDONYM_KEY {SHORT_KEY}", advice)
    text = (
        f"{found.base_url}, days in {found.timezone} from {found.start_date}, window {found.window_days} days, "
        f"contact data: {found.contact.mode}"
    )
    return Diagnosis("settings", "ok", text)


def judge_data_folder(url: str) -> Diagnosis:
    """Write to the data folder and read back, as a run does; leaves it as it was."""
    subject, variable, visible = "data folder", "NP6_DATA_DIR", hide_credentials(url)
    try:
        folder = Folder(url)
        if folder.is_local:
            return _judge_local_folder(subject, Path(folder.root), variable, needs_locks=True)
        name = f".np6-doctor-{uuid.uuid4().hex}"
        with folder.replace(name) as file:
            file.write(b"np6")
        try:
            with folder.open(name) as file:
                file.read()
        finally:
            folder.remove(name)
    except Exception as error:  # noqa: BLE001 -- every file system has errors of its own
        return _judge_unwritable(subject, visible, variable, format_error(error))
    return Diagnosis(subject, "ok", f"{visible}: an object was written, read and removed")


def judge_temporary_folder() -> Diagnosis:
    """Write to the folder for temporary files, where downloads are kept."""
    subject, variable = "temporary files", "TMPDIR"
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        return _judge_unwritable(subject, "no folder", variable, format_error(error))
    return _judge_local_folder(subject, folder, variable)


def _judge_local_folder(subject: str, folder: Path, variable: str, *, needs_locks: bool = False) -> Diagnosis:
    there = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        free = shutil.disk_usage(there).free
        write_file(there)
        has_locks = not needs_locks or _has_locks(there)
    except OSError as error:
        return _judge_unwritable(subject, str(folder), variable, f"{error.strerror or error} ({there})")
    values = {"path": str(folder), "exists": there == folder, "free_bytes": free}
    state = "" if there == folder else ", which the first run makes"
    text = f"{folder}{state}: can be written to, {_format_size(free)} free"
    if free < FREE_WARNING:
        advice = f"Make room, or name a folder on a larger disk in {variable}."
        return Diagnosis(subject, "wrong" if free < FREE_WRONG else "warning", text, advice, values)
    if not has_locks:
        text += ", and its file system has no locks: runs cannot keep out of each other's way"
        return Diagnosis(subject, "warning", text, f"Name a folder on a local disk in {variable}.", values)
    return Diagnosis(subject, "ok", text, "", values)


def _judge_unwritable(subject: str, folder: str, variable: str, error: str) -> Diagnosis:
    advice = f"Let this user write there, or name another folder in {variable}."
    return Diagnosis(subject, "wrong", f"{folder} cannot be written to: {error}", advice, {"path": folder})


def write_file(folder: Path) -> None:
    """Write a file to a folder; nothing stays. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder, prefix=".np6-doctor-") as file:
        file.write(b"np6")
        file.flush()
        os.fsync(file.fileno())


def _has_locks(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # a run has locked it
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _format_size(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def judge_late_events(running: Collection[str] | None, sensor: str, schedule: str) -> Diagnosis:
    """Judge whether a sensor or schedule fetches late-arriving events; `running` is None where that is unknown."""
    subject, either = "late events", f"{sensor} nor {schedule}"
    if running is None:
        text = "there is no DAGSTER_HOME that says what is on"
        return Diagnosis(subject, "unknown", text, f"Where neither {either} is on, nothing fetches late events.")
    values = {"on": sorted(running)}
    if not running:
        text = f"neither {either} is on: nothing fetches late events"
        return Diagnosis(subject, "warning", text, f"Turn on {schedule}, in the UI under Automation.", values)
    if schedule not in running:
        text = f"{sensor} is on: it fetches events that are late by no more than NP6_LOOKBACK_MINUTES"
        return Diagnosis(subject, "ok", text, f"Turn on {schedule} as well for those that come later.", values)
    return Diagnosis(subject, "ok", f"{schedule} is on, and fetches them", "", values)


def judge_dead_runs(dead: Sequence[str]) -> Diagnosis:
    """Judge the runs of this machine whose process is gone: they hold their place in the pool until they are ended."""
    if not dead:
        return Diagnosis("runs", "ok", "none whose process is gone")
    text = f"the process is gone of {', '.join(dead)}; other runs may wait for them"
    advice = f"Dagster's daemon ends them within two minutes (sensor {SENSOR}): start it, or terminate them in the UI."
    return Diagnosis("runs", "warning", text, advice, {"dead": dead})


def format_error(error: BaseException) -> str:
    """Write an error in one line, without credentials."""
    text = hide_credentials(" ".join(str(error).split())[:200])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def hide_credentials(text: str) -> str:
    """Hide what stands before the @ of an address."""
    return re.sub(r"//[^/@\s]*@", "//***@", text)
