"""Judge the settings, the folders and Dagster's home of this machine. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from np6_assets.contact.policy import SHORT_KEY
from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.doctor.machine import DagsterHome, FolderProbe, SettingsRead
from np6_assets.runs.dead_runs import SENSOR

FREE_WARNING, FREE_WRONG = 2 * 2**30, 200 * 2**20


def judge_settings(read: SettingsRead, today: datetime) -> list[Diagnosis]:
    """Judge the settings, and the key as far as that takes no request. `today` is an aware time."""
    if read.settings is None:
        return [
            Diagnosis("settings", "wrong", read.error, "Correct it in .env or the environment; what .env says wins."),
        ]
    if read.unknown:
        names = ", ".join(read.unknown)
        advice = "Is a name misspelt? docs/settings.md lists the settings."
        first = Diagnosis("settings", "warning", f"nothing reads {names}", advice, {"unread": list(read.unknown)})
    elif read.settings.start_date > today.date() + timedelta(days=1):
        text = f"NP6_START_DATE={read.settings.start_date} has not come yet, so there is no day to fetch"
        first = Diagnosis("settings", "warning", text, "Set it to the first day that you want.")
    else:
        found = read.settings
        text = (
            f"{found.base_url}, days in {found.timezone} from {found.start_date}, window {found.window_days} days, "
            f"contact data: {found.contact.mode}"
        )
        first = Diagnosis("settings", "ok", text)
        if found.contact.has_short_key:
            advice = "Runs take it only where stored files have pseudonyms of it."
            first = Diagnosis("settings", "warning", f"NP6_PSEUDONYM_KEY {SHORT_KEY}", advice)
    return [first] if read.settings.missing is None else [first, Diagnosis("key", "wrong", read.settings.missing)]


def judge_folder(subject: str, place: FolderProbe, variable: str) -> Diagnosis:
    """Judge a folder that is written to; `variable` is the setting that names it."""
    values = {"path": place.name, "exists": place.exists, "free_bytes": place.free}
    if place.error:
        advice = f"Let this user write there, or name another folder in {variable}."
        return Diagnosis(subject, "wrong", f"{place.name} cannot be written to: {place.error}", advice, values)
    if place.free is None:
        return Diagnosis(subject, "ok", f"{place.name}: an object was written, read and removed", "", values)
    state = "" if place.exists else ", which the first run makes"
    text = f"{place.name}{state}: can be written to, {_format_size(place.free)} free"
    if place.free < FREE_WARNING:
        advice = f"Make room, or name a folder on a larger disk in {variable}."
        return Diagnosis(subject, "wrong" if place.free < FREE_WRONG else "warning", text, advice, values)
    if variable == "NP6_DATA_DIR" and not place.has_locks:
        text += ", and its file system has no locks: runs cannot keep out of each other's way"
        return Diagnosis(subject, "warning", text, f"Name a folder on a local disk in {variable}.", values)
    return Diagnosis(subject, "ok", text, "", values)


def judge_dagster_home(home: DagsterHome | None) -> Diagnosis:
    """Judge DAGSTER_HOME, and whether its dagster.yaml sets what this project needs."""
    subject = "DAGSTER_HOME"
    if home is None:
        return Diagnosis(subject, "ok", "not set: make dev uses .dagster_home here")
    path = home.path
    faults = (
        (not home.is_absolute, "is not an absolute path", "Dagster takes no other; set it so."),
        (not home.folder.exists, "does not exist", f"mkdir -p {path}"),
        (
            bool(home.folder.error),
            f"cannot be written to: {home.folder.error}",
            "Let this user write there: Dagster keeps its records in it.",
        ),
    )
    for is_so, text, advice in faults:
        if is_so:
            return Diagnosis(subject, "wrong", f"{path} {text}", advice)
    if home.error:
        text = f"{path}/dagster.yaml cannot be read: {home.error}"
        return Diagnosis(subject, "wrong", text, "Put the project's dagster.yaml in its place, or a link to it.")
    if home.config is None:
        advice = "Put the project's dagster.yaml, or a link to it, there: without it runs do not wait for each other."
        return Diagnosis(subject, "warning", f"{path} has no dagster.yaml", advice)
    if lacks := _find_missing_options(home.config):
        text = f"{path}/dagster.yaml does not set {' or '.join(lacks)} as the project's does"
        advice = "Take them over: they keep to NP6_MAX_CONCURRENT_REQUESTS and end runs whose process died."
        return Diagnosis(subject, "warning", text, advice, {"lacks": lacks})
    return Diagnosis(subject, "ok", f"{path}, with a dagster.yaml, can be written to")


def _find_missing_options(config: object) -> list[str]:
    """Find what the project's dagster.yaml sets and this one does not."""
    pools = _get_section(config, "concurrency", "pools")
    lacks = []
    if pools.get("default_limit") != 1 or pools.get("granularity") != "run":
        lacks.append("concurrency.pools (granularity: run, default_limit: 1)")
    if _get_section(config, "run_monitoring").get("enabled") is not True:
        lacks.append("run_monitoring.enabled")
    return lacks


def _get_section(config: object, *names: str) -> dict[str, object]:
    for name in names:
        config = config.get(name) if isinstance(config, dict) else None
    return config if isinstance(config, dict) else {}


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
