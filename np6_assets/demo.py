"""Run `np6-assets demo`: materialize the last event days of the simulated account through Dagster.

This module chooses the folders, runs the assets and shows progress; `demo_report.py` prints the result.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from zoneinfo import ZoneInfo

from dotenv import dotenv_values
from rich.console import Console
from rich.status import Status

from np6_assets.settings import SANDBOX, Settings

if TYPE_CHECKING:
    import dagster as dg

SEPARATE_DATA_DIR = "data/demo"
"""The data folder of the demo if NP6_DATA_DIR may hold events of a real account."""


class DemoError(Exception):
    """The demo failed; the text is one line."""


def read_env_file() -> dict[str, str]:
    """Read the variables of `.env` in the working directory, as Dagster does; empty without the file."""
    return {name: value for name, value in dotenv_values(".env").items() if value is not None}


def run(environment: Mapping[str, str], days: int) -> None:
    """Materialize the last `days` event days, and print progress and result on standard output.

    Raises DemoError, SettingsError or OSError, each with a text of one line.
    """
    settings = Settings.from_environment(environment)
    first, last = _choose_event_days(settings, days)
    # Dagster redirects standard output into a step's log while the step runs; this copy is not redirected.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding) as output:
        console = Console(file=output, highlight=False)
        console.print(f"Event days {first} to {last} ({settings.timezone}) of the simulated account:", soft_wrap=True)
        with console.status("starting Dagster") as status:
            is_separate = is_account_set(settings, environment) or holds_other_events(settings.data_dir)
            data_dir = SEPARATE_DATA_DIR if is_separate else settings.data_dir
            simulated = replace(settings, base_url=SANDBOX, has_api_key=False, data_dir=data_dir)
            home = None if is_separate else _prepare_dagster_home()
            _materialize(simulated, first, last, home, _Display(console, status))

        from np6_assets import demo_report

        demo_report.print_result(console, simulated, date.fromisoformat(first), date.fromisoformat(last), home)


def _choose_event_days(settings: Settings, days: int) -> tuple[str, str]:
    """Return the first and the last event day of the demo, as partition keys."""
    today = datetime.now(ZoneInfo(settings.timezone)).date()
    if settings.start_date > today:
        raise DemoError(f"NP6_START_DATE={settings.start_date} has not come yet; set it to today or earlier")
    return max(today - timedelta(days=days - 1), settings.start_date).isoformat(), today.isoformat()


# --- Where the demo may write ---------------------------------------------------------------------
#
# Simulated events must never replace those of a real account. The demo uses the folders of `make dev` (so that the UI
# shows its result) only if no account is configured and every stored event is simulated. Otherwise it uses another
# data folder and an ephemeral Dagster instance.


def is_account_set(settings: Settings, environment: Mapping[str, str]) -> bool:
    """Return whether the settings name an account other than the simulated one."""
    named = environment.get("NP6_BASE_URL", "").strip()
    return not settings.is_sandbox and (settings.has_api_key or bool(named))


def holds_other_events(data_dir: str) -> bool:
    """Return whether the data folder may have events of another account. Raises DemoError or OSError."""
    from np6_assets.events.kinds import KINDS
    from np6_assets.storage.files import Folder
    from np6_assets.storage.identity import Identity, IdentityError

    try:
        folder = Folder(data_dir)
        identity = Identity.read(folder)
    except (ImportError, ValueError) as error:
        raise DemoError(f"NP6_DATA_DIR={data_dir!r} cannot be opened: {error}") from error
    except IdentityError:
        return True
    if identity is None:
        files = (Path(file).name for kind in KINDS for file in folder.list_files(kind.asset))
        return any(not name.startswith((".", "_")) for name in files)
    return identity.source != "sandbox"


def _prepare_dagster_home() -> Path:
    """Return DAGSTER_HOME, or, if it is not set, create and return the folder that `make dev` uses."""
    named = os.environ.get("DAGSTER_HOME")
    if named:
        return Path(named)
    home = Path(".dagster_home").absolute()
    home.mkdir(exist_ok=True)
    config = home / "dagster.yaml"
    if not config.is_symlink() and not config.exists():
        if Path("dagster.yaml").exists():
            config.symlink_to("../dagster.yaml")
        else:
            config.write_text("telemetry:\n  enabled: false\n")
    return home


# --- The run --------------------------------------------------------------------------------------


def _materialize(settings: Settings, first: str, last: str, home: Path | None, display: _Display) -> None:
    """Materialize all assets and days in one run. `home`: DAGSTER_HOME; None for an ephemeral instance."""
    import dagster as dg
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger().addHandler(logging.NullHandler())  # without a handler, libraries log to stderr
    from np6_assets.wiring import build_definitions

    @dg.logger
    def to_display(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("np6_assets.demo")
        logger.addHandler(display)
        return logger

    definitions = dg.Definitions.merge(build_definitions(settings), dg.Definitions(loggers={"demo": to_display}))
    job = definitions.resolve_implicit_global_asset_job_def()
    try:
        if home is not None:
            os.environ["DAGSTER_HOME"] = str(home)  # the only public way to choose the folder
        with dg.DagsterInstance.get() if home else dg.DagsterInstance.ephemeral() as instance:
            job.execute_in_process(
                instance=instance,
                # only the demo's logger: Dagster's own lines are not printed
                run_config={"loggers": {"demo": {}}},
                tags={
                    "dagster/asset_partition_range_start": first,
                    "dagster/asset_partition_range_end": last,
                    # Dagster's daemon must not retry a demo that was stopped
                    "dagster/max_retries": "0",
                },
            )
    except DemoError as error:
        raise DemoError(f"{error} (writing to {settings.data_dir})") from error
    except (dg.DagsterError, SQLAlchemyError) as error:
        text = " ".join(str(getattr(error, "orig", error)).split())
        raise DemoError(f"Dagster in {home}: {text}") from error


class _Display(logging.Handler):
    """Shows a run from the events that Dagster logs: the asset in work on a terminal, and a line for each one done."""

    def __init__(self, console: Console, status: Status) -> None:
        super().__init__()
        self._console = console
        self._status = status
        self._rows: dict[str, dict[str, int]] = defaultdict(dict)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a log record of Dagster. Raises DemoError or KeyboardInterrupt, which end the run, if a step failed."""
        event: dg.DagsterEvent | None = getattr(record, "dagster_event", None)
        if event is None:
            if record.levelno >= logging.WARNING:
                self._console.print(f"  {record.getMessage()}", markup=False)
            return
        asset = event.step_key or ""
        match event.event_type_value:
            case "STEP_START":
                self._status.update(asset)
            case "ASSET_MATERIALIZATION":
                materialization = event.step_materialization_data.materialization
                rows = materialization.metadata.get("dagster/partition_row_count")  # the report has none
                counts = self._rows[asset]
                if rows is not None:  # by partition, as a partition of a range has several records
                    counts[materialization.partition or ""] = int(str(rows.value))
            case "STEP_SUCCESS" if asset in self._rows:  # not a step of checks
                seconds = event.step_success_data.duration_ms / 1000
                counts = self._rows[asset]
                row_count = f"{sum(counts.values()):,} rows" if counts else ""
                self._console.print(f"  {asset:<17}{row_count:>14} {seconds:>6.1f} s")
            case "STEP_FAILURE" | "STEP_UP_FOR_RETRY":  # a demo does not wait half a minute for a retry
                _raise_failure(asset, getattr(event.event_specific_data, "error", None))


def _raise_failure(asset: str, error: Any) -> NoReturn:
    """Raise the cause of a failed step (Dagster's SerializableErrorInfo) as DemoError or KeyboardInterrupt."""
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        raise DemoError(f"{asset} failed")
    if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
        raise KeyboardInterrupt
    raise DemoError(f"{asset}: {re.sub(r'^[A-Za-z_][A-Za-z0-9_.]*: ', '', ' '.join(error.message.split()))}")
