"""Run the command `np6-assets` in its own process and folder, as a user does."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import dagster as dg
import httpx
import pyarrow.parquet as pq
import pytest

from np6_assets import cli, demo
from np6_assets.sandbox import population
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity
from np6_assets_tests.support.dagster_processes import ROOT, build_environment

DAYS = 2
EVENT_ASSETS = ("hits", "optouts", "bounces", "impressions", "activations")
NAMES = {
    101: "Welcome",
    118: "Cart reminder",
    127: "Flash sale",
    133: "Order shipped",
    142: "Weekly digest",
    156: "Win-back",
}

# One notification's line of the table: name, sends, delivered, hit rate, optout rate, bounce rate.
ROW = re.compile(r"^ *(\S.*?) {2,}([\d,]+) +([\d,]+) +([\d.]+%|-) +([\d.]+%|-) +([\d.]+%|-) *$", re.MULTILINE)
SNIPPET = re.compile(r"^\S[^\n]* <<'END'\n.*?^END$", re.MULTILINE | re.DOTALL)


def build_command(*arguments):
    return [sys.executable, "-m", "np6_assets.cli", *arguments]


def run(folder, *arguments, **settings):
    return subprocess.run(
        build_command(*arguments),
        cwd=folder,
        env=build_environment(PYTHONPATH=str(ROOT), **settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def finished_demo(tmp_path_factory, new_home):
    """A demo of a third of the simulated sends: its folder, its days (one more if midnight passed), what it printed."""
    folder = tmp_path_factory.mktemp("a demo")  # with a space
    shutil.copytree(new_home, folder / ".dagster_home")  # making the tables takes a second
    first = datetime.now(UTC).date() - timedelta(days=DAYS - 1)
    with pytest.MonkeyPatch.context() as patch, (folder / "printed").open("w+") as printed:
        for name in [name for name in os.environ if name.startswith(("NP6_", "DAGSTER_"))]:
            patch.delenv(name)
        patch.setenv("DAGSTER_HOME", "")  # which the demo sets
        patch.chdir(folder)
        patch.setattr(sys, "stdout", printed)
        patch.setattr(population, "Account", partial(population.Account, sends_per_day=2000))
        assert cli.main(["demo", "--days", str(DAYS)]) == 0
    text = (folder / "printed").read_text()
    stated = re.search(r"Event days (\S+) to (\S+) \(UTC\)", text)
    assert stated
    start, end = date.fromisoformat(stated[1]), date.fromisoformat(stated[2])
    assert first <= start <= first + timedelta(days=1)
    return folder, [(start + timedelta(days=more)).isoformat() for more in range((end - start).days + 1)], text


def test_demo_writes_every_day(finished_demo):
    folder, days, printed = finished_demo
    assert "\x1b" not in printed
    assert max(len(line) for line in printed.splitlines() if sys.executable not in line) <= 80
    expected = {f"{asset}/event_date={day}/part-0.parquet" for asset in EVENT_ASSETS for day in days}
    expected |= {f"reactivity_rates/activation_date={day}/part-0.parquet" for day in days}
    expected |= {"notifications/part-0.parquet", "reactivity_report/report.html", "np6.json"}
    data = folder / "data"
    assert {str(file.relative_to(data)) for file in data.rglob("*") if file.is_file()} == expected


def group_sends(folder, asset, days, of_interest=lambda event: True):
    """Group the sends of the cohorts that have an event in an asset by notification, in plain Python."""
    sends = defaultdict(set)
    for file in (folder / "data" / asset).rglob("*.parquet"):
        for event in pq.ParquetFile(file).read().to_pylist():
            if event["activated_at"].date().isoformat() in days and of_interest(event):
                sends[event["activation_id"]].add((event["stamp_id"], event["subscription_id"]))
    return sends


def test_demo_prints_the_rates_of_each_notification(finished_demo):
    folder, days, printed = finished_demo
    sent = group_sends(folder, "activations", days)
    bounced = group_sends(folder, "bounces", days)
    muted = group_sends(folder, "optouts", days)
    hit = group_sends(folder, "hits", days, lambda event: event["link_type"] == "redirection")

    expected = {}
    for id_, sends in sent.items():
        delivered = len(sends) - len(bounced[id_])
        expected[NAMES[id_]] = (
            len(sends),
            delivered,
            len(hit[id_]) / delivered,
            len(muted[id_]) / delivered,
            len(bounced[id_]) / len(sends),
        )
    rows = {
        name: (int(sends.replace(",", "")), int(delivered.replace(",", "")), *rates)
        for name, sends, delivered, *rates in ROW.findall(printed)
    }
    assert rows.keys() == expected.keys()
    for name, (sends, delivered, *rates) in rows.items():
        assert (sends, delivered) == expected[name][:2]
        assert rates == [f"{rate:.2%}" for rate in expected[name][2:]]
    assert list(rows) == sorted(expected, key=lambda name: -expected[name][2])


def test_demo_names_provisional_cohorts_and_its_report(finished_demo):
    folder, days, printed = finished_demo
    assert f"Provisional: {DAYS} of {DAYS} cohorts, {days[0]} to {days[-1]}," in printed
    [path] = re.findall(r"^The report, for a browser: (.+)$", printed, re.MULTILINE)
    assert f"sends of {days[0]} to {days[-2]}" in (folder / path).read_text()
    assert list_materialized(folder, "hits") == days


@pytest.mark.slow
def test_printed_snippets_run(finished_demo):
    folder, days, printed = finished_demo
    [pandas] = SNIPPET.findall(printed)
    [sql] = re.findall(r"^\S* ?\S*np6-assets'? sql .+$", printed, re.MULTILINE)
    for snippet, text in ((sql, "Order shipped"), (pandas, "redirection")):
        pasted = subprocess.run(
            ["bash", "-c", snippet],
            cwd=folder,
            env=build_environment(PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (pasted.returncode, pasted.stderr) == (0, "")
        assert text in pasted.stdout
    assert days[0] in pasted.stdout


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"np6-assets {project['version']}\n"


def test_shells_complete_commands_options_and_queries(tmp_path):
    file = tmp_path / "completions"
    shell = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(file), "_ARGCOMPLETE_SHELL": "bash"}
    for line, completed in (
        ("np6-assets do", {"doctor "}),
        ("np6-assets sql --w", {"--write "}),
        ("np6-assets sql bounce", {"bounce_reasons "}),
    ):
        assert run(tmp_path, **shell, COMP_LINE=line, COMP_POINT=str(len(line))).returncode == 0
        assert set(file.read_text().split("\v")) == completed


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["no_such_query"], "np6-assets sql: there is no query 'no_such_query'; there are applications,"),
        (["--account", "Brand", "funnel"], "np6-assets sql: there is no account Brand: name one with --account"),
        (["no_such_file.sql"], "np6-assets sql: [Errno 2] No such file or directory: 'no_such_file.sql'"),
    ],
)
def test_sql_reports_an_error_in_one_line(arguments, start, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sql", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(start)
    assert error.count("\n") == 1


def list_materialized(folder, asset):
    """List the materialized partitions of an asset."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(folder / ".dagster_home"))
        with dg.DagsterInstance.get() as instance:
            records = instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    return sorted({record.partition_key or "" for record in records})


@pytest.mark.slow
def test_second_demo_adds_to_the_records_of_the_first(finished_demo, tmp_path):
    first, days, _ = finished_demo
    folder = shutil.copytree(first, tmp_path / "again")
    again = run(folder, "demo", "--days", "1")
    assert (again.returncode, again.stderr) == (0, "")
    after = list_materialized(folder, "hits")
    assert after[: len(days)] == days
    assert after[-1] in again.stdout


@pytest.mark.slow
def test_demo_leaves_an_account_alone(tmp_path):
    (tmp_path / ".env").write_text("NP6_API_KEY=not-a-real-key\n")
    process = run(tmp_path, "demo", "--days", "1", NP6_DATA_DIR="account")
    assert (process.returncode, process.stderr) == (0, "")
    assert "account of your own" in process.stdout
    assert "not-a-real-key" not in process.stdout
    assert {path.name for path in tmp_path.iterdir()} == {".env", "data"}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["demo"]
    assert len(list((tmp_path / "data/demo/hits").rglob("*.parquet"))) == 1


@pytest.mark.parametrize(
    ("settings", "is_set"),
    [
        ({}, False),
        ({"NP6_BASE_URL": "sandbox://"}, False),
        ({"NP6_BASE_URL": "sandbox://", "NP6_API_KEY": "key"}, False),
        ({"NP6_API_KEY": "key"}, True),
        ({"NP6_BASE_URL": "http://127.0.0.1:8006"}, True),
    ],
)
def test_account_is_set_by_a_key_or_another_address(settings, is_set):
    assert demo.is_account_set(Settings.from_environment(settings), settings) is is_set


def test_demo_detects_events_that_are_not_simulated(finished_demo, tmp_path):
    folder, _, _ = finished_demo
    assert not demo.holds_other_events(str(folder / "data"))
    assert not demo.holds_other_events(str(tmp_path / "nothing yet"))
    file = tmp_path / "optouts/event_date=2026-03-01/part-0.parquet"
    file.parent.mkdir(parents=True)
    file.with_name(".unfinished").touch()
    assert not demo.holds_other_events(str(tmp_path))
    file.touch()  # of version 0.1, whose folders do not say whose they are
    assert demo.holds_other_events(str(tmp_path))
    for source, is_other in (("sandbox", False), ("api", True)):
        Identity(source, "UTC").write(Folder(str(tmp_path)))
        assert demo.holds_other_events(str(tmp_path)) is is_other
    (tmp_path / "np6.json").write_text("{")
    assert demo.holds_other_events(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"NP6_TIMEZONE": "Mars/Base"}, "NP6_TIMEZONE='Mars/Base' is not an IANA time zone"),
        ({"NP6_WINDOW_DAYS": "many"}, "NP6_WINDOW_DAYS='many' is not a whole number"),
        ({"NP6_DATA_DIR": "nowhere://x"}, "NP6_DATA_DIR='nowhere://x' is neither a local folder nor an address"),
    ],
)
def test_demo_reports_a_wrong_setting_in_one_line(tmp_path, monkeypatch, capsys, settings, line):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("NP6_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    for name in settings:
        monkeypatch.setenv(name, "")
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    assert cli.main(["demo", "--days", "1"]) == 1  # .env wins
    error = capsys.readouterr().err
    assert re.fullmatch(r"np6-assets demo: .*\n", error)
    assert line in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"NP6_START_DATE": "9999-01-01"}, "NP6_START_DATE=9999-01-01 has not come yet"),
        ({"NP6_DATA_DIR": "file/data"}, "file/data"),
    ],
)
def test_demo_reports_an_error_of_its_run_in_one_line(tmp_path, settings, line):
    (tmp_path / "file").write_text("a folder cannot be made in here\n")
    process = run(tmp_path, "demo", "--days", "1", **settings)
    assert process.returncode == 1
    assert re.fullmatch(r"np6-assets demo: .*\n", process.stderr)
    assert line in process.stderr


def start_command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command with pipes for its output."""
    return subprocess.Popen(
        build_command(*arguments),
        cwd=folder,
        env=build_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_with_one_line(tmp_path):
    with start_command(tmp_path, "demo", "--days", "1") as process:
        assert process.stdout
        assert process.stderr
        while not process.stdout.readline().startswith("  "):  # the first asset is there
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "np6-assets demo: stopped\n"
    assert process.returncode == 130


def test_help_imports_no_large_package(tmp_path):
    imports = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "np6_assets.cli", "sandbox", "--help"],
        cwd=tmp_path,
        env=build_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert imports.returncode == 0
    assert "--requests-per-minute" in imports.stdout
    for module in ("dagster", "pandas", "pyarrow", "numpy", "starlette"):
        assert not re.search(rf"\| +{module}\b", imports.stderr)


def test_sandbox_answers_the_printed_curl_command_until_ctrl_c(tmp_path):
    with start_command(tmp_path, "sandbox", "--port", "0", "--sends-per-day", "50", "--key", "a key") as process:
        assert process.stdout
        assert process.stderr
        assert "http://127.0.0.1:" in process.stdout.readline()
        program, *arguments = shlex.split(process.stdout.readline())
        *options, url = arguments
        assert (program, options) == ("curl", ["-s", "--compressed", "-H", "X-Key: a key"])
        hits = httpx.get(url, headers={"X-Key": "a key"})
        assert hits.status_code == 200
        assert {event["type"] for event in hits.json()} <= {"hit"}
        assert httpx.get(url).status_code == 401
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_sandbox_reports_a_taken_port(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run(tmp_path, "sandbox", "--port", str(port))
    assert (process.returncode, process.stdout) == (1, "")
    assert re.fullmatch(rf"np6-assets sandbox: cannot listen on 127\.0\.0\.1 port {port}: .*\n", process.stderr)
