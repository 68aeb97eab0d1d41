"""What `np6-assets demo` says of its result: the rates by notification, where the Parquet is, and how to go on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from np6_assets.partitions import ACTIVATION_DATE
from np6_assets.rates.columns import SCHEMA
from np6_assets.report.assets import REPORT
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

_NAMES = pa.schema([("activation_id", pa.int64()), ("name", pa.string())])

# A rate over several rows is the sum of numerators over the sum of denominators, never a mean of rates.
_BY_NOTIFICATION = """
    SELECT
        coalesce(name, 'notification ' || activation_id) AS notification,
        sum(activations) AS sends,
        sum(delivered) AS delivered,
        sum(hit_activations) / nullif(sum(delivered), 0) AS hit_rate,
        sum(optout_activations) / nullif(sum(delivered), 0) AS optout_rate,
        sum(bounced) / nullif(sum(activations), 0) AS bounce_rate
    FROM rates LEFT JOIN notifications USING (activation_id)
    GROUP BY activation_id, name
    ORDER BY hit_rate DESC NULLS LAST, notification
"""

_PROVISIONAL = """
    SELECT DISTINCT activation_date, window_days FROM rates WHERE NOT is_final ORDER BY activation_date
"""


_DUCKDB = '''\
{python} <<'END'
import duckdb
{opened}{registered}duckdb.sql("""
    SELECT
        activation_date, name,
        sum(hit_activations) / sum(delivered) AS hit_rate -- not a mean of rates
    FROM '{data}/reactivity_rates/*/*.parquet'
    JOIN '{data}/notifications/*.parquet' USING (activation_id)
    GROUP BY ALL ORDER BY ALL
""").show()
END'''

_PANDAS = """\
{python} <<'END'
import pandas
{opened}hits = pandas.read_parquet("{data}/hits"{reading})
print(hits.groupby(["event_date", "link_type"]).size())
END"""


def show(console: Console, data_dir: str, first: str, last: str, home: Path | None) -> None:
    """Print the result of a demo of the cohorts `first` to `last` (YYYY-MM-DD).

    `home`: Dagster's folder; None where nothing was kept of the run.
    """
    folder = Folder(data_dir)
    cohorts = _days(first, last)
    rates, provisional = _results(folder, cohorts)
    console.print("\nReactivity rates by notification, from the best hit rate to the worst:")
    console.print(_table(rates))
    console.print(_finality(provisional, len(cohorts)), soft_wrap=True)
    data = _shown(folder)
    console.print(f"\nThe report, for a browser: {data}/{REPORT}", markup=False, soft_wrap=True)
    console.print(f"\nParquet: {data}, one folder for each asset. In DuckDB:\n", markup=False, soft_wrap=True)
    console.print(_snippet(_DUCKDB, folder, data), markup=False, soft_wrap=True)
    console.print("\nIn pandas:\n")
    console.print(_snippet(_PANDAS, folder, data), markup=False, soft_wrap=True)
    console.print(_next_steps(data, home), markup=False, soft_wrap=True)


def _days(first: str, last: str) -> list[str]:
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [(start + timedelta(days=more)).isoformat() for more in range((end - start).days + 1)]


def _results(folder: Folder, cohorts: Sequence[str]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    with duckdb.connect() as database:
        rates = parquet.partitioned_dataset(folder, "reactivity_rates", SCHEMA, ACTIVATION_DATE, cohorts)
        database.register("rates", rates.to_table())
        database.register("notifications", parquet.dataset(folder, "notifications", _NAMES).to_table())
        return database.sql(_BY_NOTIFICATION).fetchall(), database.sql(_PROVISIONAL).fetchall()


def _table(rates: Sequence[tuple[Any, ...]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("Notification")
    for heading in ("Sends\ncount", "Delivered\ncount", "Hit rate\nof delivered", "Optout rate\nof delivered"):
        table.add_column(heading, justify="right")
    table.add_column("Bounce rate\nof sends", justify="right")
    for name, sends, delivered, *shares in rates:
        table.add_row(Text(name), f"{sends:,}", f"{delivered:,}", *(_percent(share) for share in shares))
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _finality(provisional: Sequence[tuple[Any, ...]], cohorts: int) -> str:
    if not provisional:
        return "All of these cohorts are final."
    (first, window), (last, _) = provisional[0], provisional[-1]
    days = str(first) if first == last else f"{first} to {last}"
    return (
        f"Provisional: {len(provisional)} of {cohorts} cohorts, {days}, as reactions\n"
        f"count until {window} days after the day of the send."
    )


def _shown(folder: Folder) -> str:
    """The data folder as one would type it."""
    if not folder.is_local:
        return folder.root
    return _from_here(Path(folder.root))


def _from_here(path: Path) -> str:
    """A path, relative where it is below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _snippet(template: str, folder: Folder, data: str) -> str:
    python = shlex.quote(_from_here(Path(sys.executable)))
    if folder.is_local:
        return template.format(python=python, data=data, opened="", registered="", reading="")
    return template.format(
        python=python,
        data=data,
        opened=f'from np6_assets.storage.files import Folder\nbucket = Folder("{data}").filesystem\n',
        registered="duckdb.register_filesystem(bucket)\n",
        reading=", filesystem=bucket",
    )


def _next_steps(data: str, home: Path | None) -> str:
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
        f"{data} and {_from_here(home)}, or name other folders (NP6_DATA_DIR, DAGSTER_HOME),\n"
        "then:\n\n"
        "NP6_API_KEY=... make dev\n\n"
        "Settings can stand in .env too: see .env.example."
    )
