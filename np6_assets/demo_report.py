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
    SELECT count(DISTINCT activation_date), min(activation_date), max(activation_date), any_value(window_days)
    FROM cohorts
    WHERE status <> 'final' AND activation_date BETWEEN $first AND $last
"""

_PANDAS = """\
{python} <<'END'
import pandas
hits = pandas.read_parquet("{data}/hits")
print(hits.groupby(["event_date", "link_type"]).size())
END"""

_SEPARATE = """
There are settings or events of an account of your own, so the demo kept apart
from them: all of it is in {data}. Dagster's UI, with your account:

make dev"""

_SHARED = """
Dagster's UI, with what the demo made, on http://127.0.0.1:3000:

make dev

Your own account's events must not be mixed with simulated ones: remove
{data} and {home}, or name other folders (NP6_DATA_DIR, DAGSTER_HOME),
then:

NP6_API_KEY=... make dev

Settings can stand in .env too: see .env.example."""


def print_result(console: Console, settings: Settings, first: date, last: date, home: Path | None) -> None:
    """Print the rates of the cohorts `first` to `last`. `home`: DAGSTER_HOME; None for an ephemeral instance."""
    folder = Folder(settings.data_dir)
    with open_views(settings) as database:
        cohorts = {"first": first, "last": last}
        rates = database.execute(_RATES_BY_NOTIFICATION, cohorts).fetchall()
        [provisional] = database.execute(_PROVISIONAL_COHORTS, cohorts).fetchall()
    console.print("\nReactivity rates by notification, from the best hit rate to the worst:")
    console.print(_build_table(rates))
    console.print(_describe_finality(*provisional, of=(last - first).days + 1), soft_wrap=True)
    data = _shorten_path(Path(folder.root)) if folder.is_local else folder.root
    lines = [f"\nThe report, for a browser: {data}/{REPORT}"]
    if home is not None:
        lines.append("\nThe rates by week; without the name, any query (docs/queries.md):\n")
        lines.append(f"{_format_command('np6-assets')} sql weekly_hit_rate")
    lines.append(f"\nParquet: {data}, one folder for each asset.")
    if folder.is_local:
        lines.append(f"In pandas:\n\n{_PANDAS.format(python=_format_command('python'), data=data)}")
    lines.append(_SEPARATE.format(data=data) if home is None else _SHARED.format(data=data, home=_shorten_path(home)))
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _build_table(rates: Sequence[tuple[Any, ...]]) -> Table:
    table = Table("Notification", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for heading in ("Sends\ncount", "Delivered\ncount", "Hit rate\nof delivered", "Optout rate\nof delivered"):
        table.add_column(heading, justify="right")
    table.add_column("Bounce rate\nof sends", justify="right")
    for name, sends, delivered, *shares in rates:
        percents = ("-" if share is None else f"{share:.2%}" for share in shares)
        table.add_row(Text(name), f"{sends:,}", f"{delivered:,}", *percents)
    return table


def _describe_finality(provisional: int, first: date, last: date, window: int, *, of: int) -> str:
    if not provisional:
        return "All of these cohorts are final."
    days = str(first) if first == last else f"{first} to {last}"
    return (
        f"Provisional: {provisional} of {of} cohorts, {days}, as reactions\n"
        f"count until {window} days after the day of the send."
    )


def _shorten_path(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _format_command(name: str) -> str:
    """Return a command of this Python environment as a user would type it."""
    return shlex.quote(_shorten_path(Path(sys.executable).with_name(name)))
