"""Print the result of `np6-assets demo`: rates by notification, where the Parquet is, and the next commands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from np6_assets.queries.views import open_views
from np6_assets.report.assets import REPORT
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

_RATES_BY_NOTIFICATION = """
    SELECT
        name,
        coalesce(denominator(bounce_rate), 0),
        coalesce(denominator(hit_rate), 0),
        rate(hit_rate),
        rate(optout_rate),
        rate(bounce_rate)
    FROM cohorts
    WHERE activation_date BETWEEN $first AND $last
    GROUP BY activation_id, name
    ORDER BY rate(hit_rate) DESC NULLS LAST, name
"""

_PROVISIONAL_COHORTS = """
    SELECT DISTINCT activation_date, window_days
    FROM cohorts
    WHERE status <> 'final' AND activation_date BETWEEN $first AND $last
    ORDER BY activation_date
"""

_PANDAS = """\
{python} <<'END'
import pandas
{opened}hits = pandas.read_parquet("{data}/hits"{reading})
print(hits.groupby(["event_date", "link_type"]).size())
END"""


def print_result(console: Console, settings: Settings, first: date, last: date, home: Path | None) -> None:
    """Print the rates of the cohorts `first` to `last`. `home`: DAGSTER_HOME; None for an ephemeral instance."""
    folder = Folder(settings.data_dir)
    with open_views(settings) as database:
        cohorts = {"first": first, "last": last}
        rates = database.execute(_RATES_BY_NOTIFICATION, cohorts).fetchall()
        provisional = database.execute(_PROVISIONAL_COHORTS, cohorts).fetchall()
    console.print("\nReactivity rates by notification, from the best hit rate to the worst:")
    console.print(_build_table(rates))
    console.print(_describe_finality(provisional, (last - first).days + 1), soft_wrap=True)
    data = _format_folder(folder)
    console.print(f"\nThe report, for a browser: {data}/{REPORT}", markup=False, soft_wrap=True)
    if home is not None:
        console.print("\nThe rates by week; without the name, any query (docs/queries.md):\n")
        console.print(f"{_format_command('np6-assets')} sql weekly_hit_rate", markup=False, soft_wrap=True)
    console.print(f"\nParquet: {data}, one folder for each asset. In pandas:\n", markup=False, soft_wrap=True)
    console.print(_write_snippet(_PANDAS, folder, data), markup=False, soft_wrap=True)
    console.print(_describe_next_steps(data, home), markup=False, soft_wrap=True)


def _build_table(rates: Sequence[tuple[Any, ...]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("Notification")
    for heading in ("Sends\ncount", "Delivered\ncount", "Hit rate\nof delivered", "Optout rate\nof delivered"):
        table.add_column(heading, justify="right")
    table.add_column("Bounce rate\nof sends", justify="right")
    for name, sends, delivered, *shares in rates:
        table.add_row(Text(name), f"{sends:,}", f"{delivered:,}", *(_format_percent(share) for share in shares))
    return table


def _format_percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _describe_finality(provisional: Sequence[tuple[Any, ...]], cohorts: int) -> str:
    if not provisional:
        return "All of these cohorts are final."
    (first, window), (last, _) = provisional[0], provisional[-1]
    days = str(first) if first == last else f"{first} to {last}"
    return (
        f"Provisional: {len(provisional)} of {cohorts} cohorts, {days}, as reactions\n"
        f"count until {window} days after the day of the send."
    )


def _format_folder(folder: Folder) -> str:
    """Return the data folder as a user would type it."""
    if not folder.is_local:
        return folder.root
    return _shorten_path(Path(folder.root))


def _shorten_path(path: Path) -> str:
    """Return the path, relative if it is below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _write_snippet(template: str, folder: Folder, data: str) -> str:
    """Return a shell command that reads the data."""
    if folder.is_local:
        return template.format(python=_format_command("python"), data=data, opened="", reading="")
    opened = f'from np6_assets.storage.files import Folder\nbucket = Folder("{data}").filesystem\n'
    return template.format(python=_format_command("python"), data=data, opened=opened, reading=", filesystem=bucket")


def _format_command(name: str) -> str:
    """Return a command of this Python environment as a user would type it."""
    return shlex.quote(_shorten_path(Path(sys.executable).with_name(name)))


def _describe_next_steps(data: str, home: Path | None) -> str:
    if home is None:
        return (
            "\nThere are settings or events of an account of your own, so the demo kept apart\n"
            f"from them: all of it is in {data}. Dagster's UI, with your account:\n\n"
            "make dev"
        )
    return (
        "\nDagster's UI, with what the demo made, on http://127.0.0.1:3000:\n\n"
        "make dev\n\n"
        "Your own account's events must not be mixed with simulated ones: remove\n"
        f"{data} and {_shorten_path(home)}, or name other folders (NP6_DATA_DIR, DAGSTER_HOME),\n"
        "then:\n\n"
        "NP6_API_KEY=... make dev\n\n"
        "Settings can stand in .env too: see .env.example."
    )
