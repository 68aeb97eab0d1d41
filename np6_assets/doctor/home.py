"""Dagster's home on this machine: what its dagster.yaml sets, and the records in it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml  # type: ignore[import-untyped]

from np6_assets.dagster_private import list_running_instigators
from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.doctor.machine import format_error, write_file
from np6_assets.doctor.probe import get_nested

DEV_HOME = Path(".dagster_home")
"""Dagster's home of `make dev`, where DAGSTER_HOME names no other."""


class ConfigError(ValueError):
    """A dagster.yaml cannot be read; the text says why, and quotes nothing: passwords may stand there."""


def find_home(environment: Mapping[str, str]) -> Path:
    """Find Dagster's home."""
    return Path(environment.get("DAGSTER_HOME") or DEV_HOME)


def judge_home(environment: Mapping[str, str]) -> Diagnosis:
    """Judge DAGSTER_HOME, and whether its dagster.yaml sets what this project needs."""
    subject, home = "DAGSTER_HOME", find_home(environment)
    if not environment.get("DAGSTER_HOME"):
        return Diagnosis(subject, "ok", f"not set: make dev uses {DEV_HOME} here")
    if not home.is_absolute():
        return Diagnosis(subject, "wrong", f"{home} is not an absolute path", "Dagster takes no other; set it so.")
    if not home.exists():
        return Diagnosis(subject, "wrong", f"{home} does not exist", f"mkdir -p {home}")
    try:
        write_file(home)
        config = _read_config(home)
    except ConfigError as error:
        text = f"{home}/dagster.yaml cannot be read: {error}"
        return Diagnosis(subject, "wrong", text, "Put the project's dagster.yaml in its place, or a link to it.")
    except OSError as error:
        text = f"{home} cannot be written to: {format_error(error)}"
        return Diagnosis(subject, "wrong", text, "Let this user write there: Dagster keeps its records in it.")
    if config is None:
        advice = "Put the project's dagster.yaml, or a link to it, there: without it runs do not wait for each other."
        return Diagnosis(subject, "warning", f"{home} has no dagster.yaml", advice)
    if lacks := list(_find_missing_options(config)):
        text = f"{home}/dagster.yaml does not set {' or '.join(lacks)} as the project's does"
        advice = "Take them over: they keep to NP6_MAX_CONCURRENT_REQUESTS and end runs whose process died."
        return Diagnosis(subject, "warning", text, advice, {"lacks": lacks})
    return Diagnosis(subject, "ok", f"{home}, with a dagster.yaml, can be written to")


def _find_missing_options(config: Mapping[str, Any]) -> Iterator[str]:
    """Find what the project's dagster.yaml sets and this one does not."""
    pools = get_nested(config, "concurrency", "pools")
    if (get_nested(pools, "default_limit"), get_nested(pools, "granularity")) != (1, "run"):
        yield "concurrency.pools (granularity: run, default_limit: 1)"
    if get_nested(config, "run_monitoring", "enabled") is not True:
        yield "run_monitoring.enabled"


def _read_config(home: Path) -> Mapping[str, Any] | None:
    """Read a home's dagster.yaml; None where there is none. Raises ConfigError."""
    try:
        config = yaml.safe_load((home / "dagster.yaml").read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(format_error(error)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError("not YAML" + (f" (line {mark.line + 1})" if mark else "")) from None
    if not isinstance(config, dict):
        raise ConfigError("not a YAML mapping")
    return config


def has_records(home: Path) -> bool:
    """Tell whether Dagster keeps records, in its home or elsewhere: opening an unused home would leave files in it."""
    try:
        config = _read_config(home) or {}
    except ConfigError:
        return False
    is_elsewhere = bool({"storage", "event_log_storage", "schedule_storage"} & config.keys())
    return home.is_dir() and (is_elsewhere or any(entry.name != "dagster.yaml" for entry in home.iterdir()))


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
    try:
        _read_config(home)
        if not has_records(home):
            return set() if home.is_dir() else None
        with open_records(home) as instance:
            return list_running_instigators(instance, names)
    except Exception:  # noqa: BLE001 -- every database has errors of its own, and some name its password
        return None
