"""Parse the command line of `np6-assets`, run the command, and report errors in one line.

A command imports what it needs itself, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from np6_assets.doctor.loaded import LoadedAccounts

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: success; 1: an error (one line on stderr), or `doctor` found something wrong; 130: Ctrl-C.
    """
    parser = _build_parser()
    if "_ARGCOMPLETE" in os.environ:  # set by a shell that completes a command
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return _print_error(options.command, "stopped", INTERRUPTED)
    return status


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="np6-assets", description="NP6 push notification events as daily Parquet, and exact reactivity rates."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('np6-assets')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_doctor(commands)
    _add_sandbox(commands)
    _add_sql(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="materialize the last days of the simulated account and show the rates",
        description="Materializes every asset of the simulated account (sandbox://) through Dagster, whatever "
        "NP6_BASE_URL says, and shows what came of it. The other settings (NP6_DATA_DIR, NP6_TIMEZONE, ...) are "
        "read from the environment and from .env.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.set_defaults(run=_run_demo)
    demo.add_argument("--days", type=_parse_positive, default=10, metavar="N", help="event days, today included")


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check the settings, this machine and the account, and say what to do",
        description="Checks settings, key, clock, TLS, reachability, rate limit, folders and DAGSTER_HOME, and finds "
        "out what the API's reference leaves open. It makes about ten requests, reads at most 256 KiB of each answer, "
        "changes nothing in the account, and prints neither the key nor data of a contact.",
        epilog="Exit status: 0 where nothing is wrong (warnings and unknowns do not count), 1 where something is, "
        "2 for a wrong option, 130 after Ctrl-C.",
    )
    doctor.set_defaults(run=_run_doctor)
    doctor.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    doctor.add_argument("--account", metavar="NAME", help="one of several accounts, by its asset_key_prefix")
    doctor.add_argument(
        "--watch",
        type=_parse_positive,
        default=0,
        metavar="SECONDS",
        help="look every 15 s, for so long, how late events are published; default: do not",
    )


def _add_sandbox(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sandbox = commands.add_parser(
        "sandbox",
        help="serve the simulated account over HTTP on this machine",
        description="Serves the NP6 API of a simulated account on a loopback address until Ctrl-C.",
    )
    sandbox.set_defaults(run=_run_sandbox)
    sandbox.add_argument("--port", type=int, default=8006, help="TCP port, 0 for any free one; default: 8006")
    sandbox.add_argument("--key", help="what X-Key has to be; default: anything, or nothing")
    sandbox.add_argument(
        "--requests-per-minute",
        type=_parse_positive,
        metavar="N",
        help="requests in a minute beyond which the answer is 429; default: no limit",
    )
    sandbox.add_argument(
        "--sends-per-day",
        type=_parse_positive,
        default=6000,
        metavar="N",
        help="sends (activations) on an average day; default: 6000",
    )


def _add_sql(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from np6_assets.queries.ready import QUERIES, describe_query

    sql = commands.add_parser(
        "sql",
        help="query the rates and the events in DuckDB",
        description="Opens DuckDB with views of what is stored in NP6_DATA_DIR, in which no rate can be summed\n"
        "wrongly, and runs a query, or what is typed.",
        epilog="Ready queries:\n" + "\n".join(f"  {name:<17} {describe_query(name)}" for name in QUERIES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sql.set_defaults(run=_run_sql)
    query = sql.add_argument(
        "query", nargs="?", metavar="QUERY", help="a ready query's name, a .sql file or SQL; default: standard input"
    )
    query.completer = lambda **_: QUERIES  # type: ignore[attr-defined] # argcomplete reads it
    sql.add_argument("--account", metavar="NAME", help="one of several accounts, by its asset_key_prefix")
    form = sql.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV, with all digits")
    form.add_argument("--write", type=Path, metavar="FILE.duckdb", help="write a file of the views, for other tools")


def _parse_positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return number


def _print_error(command: str, line: str, status: int = 1) -> int:
    print(f"np6-assets {command}: {line}", file=sys.stderr)
    return status


def _run_demo(options: argparse.Namespace) -> int:
    from np6_assets import demo
    from np6_assets.settings import SettingsError

    try:
        os.environ.update(demo.read_env_file())  # as in Dagster, .env takes precedence
        demo.run(os.environ, options.days)
    except (demo.DemoError, SettingsError, OSError) as error:
        return _print_error(options.command, str(error))
    return 0


def _run_doctor(options: argparse.Namespace) -> int:
    from np6_assets.doctor import command
    from np6_assets.doctor.examination import Examination
    from np6_assets.sandbox import simulated_account

    loaded = _load_accounts()
    account = loaded.find(options.account)
    if account is None and not loaded.error:
        return _print_error(options.command, loaded.explain_choice(options.account))
    examination = Examination(os.environ, account, options.watch, simulated=simulated_account)
    return command.run(examination, loaded, as_json=options.json)


def _load_accounts() -> LoadedAccounts:
    from np6_assets import demo
    from np6_assets.doctor.loaded import load_accounts

    os.environ.update(demo.read_env_file())  # as in Dagster, .env takes precedence
    return load_accounts(os.environ)


def _run_sql(options: argparse.Namespace) -> int:
    from np6_assets.queries import command
    from np6_assets.settings import SettingsError

    loaded = _load_accounts()
    account = loaded.find(options.account)
    if account is None:
        return _print_error(options.command, loaded.error or loaded.explain_choice(options.account))
    try:
        settings = account.settings()
        if options.write:
            command.write(settings, options.write)
        else:
            command.run(settings, options.query, as_csv=options.csv)
    except (command.QueryError, SettingsError, OSError) as error:
        return _print_error(options.command, str(error))
    return 0


def _run_sandbox(options: argparse.Namespace) -> int:
    from np6_assets.sandbox.app import create_app
    from np6_assets.sandbox.population import Account
    from np6_assets.sandbox.server import serve

    app = create_app(
        Account(sends_per_day=options.sends_per_day),
        api_key=options.key,
        now=lambda: datetime.now(UTC),
        requests_per_minute=options.requests_per_minute,
    )
    try:
        listener = socket.create_server(("127.0.0.1", options.port))  # which other machines cannot reach
    except (OSError, OverflowError) as error:
        line = f"cannot listen on 127.0.0.1 port {options.port}: {error}; try --port 0"
        return _print_error(options.command, line)
    with listener:
        _print_instructions(listener.getsockname()[1], options.key)
        serve(app, listener)
    return 0


def _print_instructions(port: int, key: str | None) -> None:
    url = f"http://127.0.0.1:{port}"
    header = f" -H {shlex.quote(f'X-Key: {key}')}" if key else ""
    feed = f"{url}/notifications/reactivities/hits?sort=asc&reactivityStart={datetime.now(UTC):%Y-%m-%d}"
    print(f"The simulated account is at {url} (Ctrl-C stops it). Today's hits so far:")
    print(f"  curl -s --compressed{header} {shlex.quote(feed)}")
    print("The assets over it, in another terminal:")
    print(
        f"  NP6_BASE_URL={url} NP6_API_KEY={shlex.quote(key or 'any')} NP6_DATA_DIR=data/sandbox make dev", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
