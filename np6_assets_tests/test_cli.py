"""The command `np6-assets`, run as a user runs it: in a process of its own, in a folder of its own."""

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
from pathlib import Path

import dagster as dg
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets import cli, demo
from np6_assets.settings import Settings
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


def command(*arguments):
    return [sys.executable, "-m", "np6_assets.cli", *arguments]


def run(folder, *arguments, **settings):
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=build_environment(PYTHONPATH=str(ROOT), **settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo that has run: its folder, its days (of which there is one more where midnight came) and its process."""
    folder = tmp_path_factory.mktemp("a demo")  # with a space
    first = datetime.now(UTC).date() - timedelta(days=DAYS - 1)
    process = run(folder, "demo", "--days", str(DAYS))
    stated = re.search(r"Event days (\S+) to (\S+) \(UTC\)", process.stdout)
    assert stated, process.stderr
    start, end = date.fromisoformat(stated[1]), date.fromisoformat(stated[2])
    assert first <= start <= first + timedelta(days=1)
    return folder, [(start + timedelta(days=more)).isoformat() for more in range((end - start).days + 1)], process


@pytest.mark.slow
def test_the_demo_ends_well_and_says_nothing_but_its_own_lines(finished):
    _, days, process = finished
    assert process.returncode == 0
    assert process.stderr == ""
    assert len(days) == DAYS
    assert "\x1b" not in process.stdout
    assert max(len(line) for line in process.stdout.splitlines() if sys.executable not in line) <= 80


def test_the_demo_writes_the_parquet_of_every_day(finished):
    folder, days, _ = finished
    expected = {f"{asset}/event_date={day}/part-0.parquet" for asset in EVENT_ASSETS for day in days}
    expected |= {f"reactivity_rates/activation_date={day}/part-0.parquet" for day in days}
    expected |= {"notifications/part-0.parquet", "reactivity_report/report.html", "np6.json"}
    data = folder / "data"
    assert {str(file.relative_to(data)) for file in data.rglob("*") if file.is_file()} == expected


def sends_of(folder, asset, days, of_interest=lambda event: True):
    """The sends of the cohorts that have an event in an asset, by notification: plain Python over the events."""
    sends = defaultdict(set)
    for file in (folder / "data" / asset).rglob("*.parquet"):
        for event in pq.ParquetFile(file).read().to_pylist():
            if event["activated_at"].date().isoformat() in days and of_interest(event):
                sends[event["activation_id"]].add((event["stamp_id"], event["subscription_id"]))
    return sends


def test_the_table_has_each_notifications_rates_from_the_best_to_the_worst(finished):
    folder, days, process = finished
    sent = sends_of(folder, "activations", days)
    bounced = sends_of(folder, "bounces", days)
    muted = sends_of(folder, "optouts", days)
    hit = sends_of(folder, "hits", days, lambda event: event["link_type"] == "redirection")

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
    shown = {
        name: (int(sends.replace(",", "")), int(delivered.replace(",", "")), *rates)
        for name, sends, delivered, *rates in ROW.findall(process.stdout)
    }
    assert shown.keys() == expected.keys()
    for name, (sends, delivered, *rates) in shown.items():
        assert (sends, delivered) == expected[name][:2]
        assert rates == [f"{rate:.2%}" for rate in expected[name][2:]]
    assert list(shown) == sorted(expected, key=lambda name: -expected[name][2])


def test_the_demo_says_which_cohorts_are_provisional(finished):
    _, days, process = finished
    assert f"Provisional: {DAYS} of {DAYS} cohorts, {days[0]} to {days[-1]}," in process.stdout


def test_the_demo_says_where_its_report_is(finished):
    folder, days, process = finished
    [path] = re.findall(r"^The report, for a browser: (.+)$", process.stdout, re.MULTILINE)
    assert f"sends of {days[0]} to {days[-2]}" in (folder / path).read_text()


@pytest.mark.slow
def test_the_snippets_work_as_printed(finished):
    folder, days, process = finished
    [pandas] = SNIPPET.findall(process.stdout)
    [sql] = re.findall(r"^\S* ?\S*np6-assets'? sql .+$", process.stdout, re.MULTILINE)
    for snippet, shows in ((sql, "Order shipped"), (pandas, "redirection")):
        pasted = subprocess.run(
            ["bash", "-c", snippet],
            cwd=folder,
            env=build_environment(PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (pasted.returncode, pasted.stderr) == (0, "")
        assert shows in pasted.stdout
    assert days[0] in pasted.stdout


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"np6-assets {project['version']}\n"


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("np6-assets do", {"doctor "}),
        ("np6-assets sql --w", {"--write "}),
        ("np6-assets sql bounce", {"bounce_reasons "}),
    ],
)
def test_shells_complete_commands_options_and_queries(line, completed, tmp_path):
    said = tmp_path / "completions"
    shell = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(said),
        "_ARGCOMPLETE_SHELL": "bash",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run(
        command(), cwd=tmp_path, env=build_environment(PYTHONPATH=str(ROOT), **shell), check=True, timeout=60
    )
    assert set(said.read_text().split("\v")) == completed


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        (["no_such_query"], "np6-assets sql: there is no query 'no_such_query'; there are applications,"),
        (["--account", "Brand", "funnel"], "np6-assets sql: there is no account Brand: name one with --account"),
        (["no_such_file.sql"], "np6-assets sql: [Errno 2] No such file or directory: 'no_such_file.sql'"),
    ],
)
def test_sql_says_in_one_line_what_is_wrong(arguments, shows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sql", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(shows)
    assert error.count("\n") == 1


def materialized(folder, asset):
    """The partitions of an asset that Dagster has on record."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(folder / ".dagster_home"))
        with dg.DagsterInstance.get() as instance:
            records = instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    return sorted({record.partition_key or "" for record in records})


def test_dagster_knows_what_the_demo_made(finished):
    folder, days, _ = finished
    assert materialized(folder, "hits") == days


@pytest.mark.slow
def test_a_second_demo_adds_to_what_dagster_knows(finished, tmp_path):
    first, days, _ = finished
    folder = shutil.copytree(first, tmp_path / "again")
    again = run(folder, "demo", "--days", "1")
    assert (again.returncode, again.stderr) == (0, "")
    after = materialized(folder, "hits")
    assert after[: len(days)] == days
    assert after[-1] in again.stdout


@pytest.mark.slow
def test_the_demo_keeps_apart_from_an_account(tmp_path):
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
def test_what_counts_as_an_account(settings, is_set):
    assert demo.is_account_set(Settings.from_environment(settings), settings) is is_set


def test_events_that_are_not_simulated_are_noticed(finished, tmp_path):
    folder, _, _ = finished
    assert not demo.holds_other_events(str(folder / "data"))
    assert not demo.holds_other_events(str(tmp_path / "nothing yet"))
    file = tmp_path / "optouts/event_date=2026-03-01/part-0.parquet"
    file.parent.mkdir(parents=True)
    for agency, customer in (("ACME", "028"), ("DEMO", "7"), (None, None)):
        pq.write_table(pa.table({"agency": [agency], "customer": [customer]}, EVENT_SCHEMA), file)
        assert demo.holds_other_events(str(tmp_path))
    pq.write_table(pa.table({"agency": ["DEMO"], "customer": ["028"]}, EVENT_SCHEMA), file)
    assert not demo.holds_other_events(str(tmp_path))


EVENT_SCHEMA = pa.schema([("agency", pa.string()), ("customer", pa.string())])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"NP6_TIMEZONE": "Mars/Base"}, "NP6_TIMEZONE='Mars/Base' is not an IANA time zone"),
        ({"NP6_WINDOW_DAYS": "many"}, "NP6_WINDOW_DAYS='many' is not a whole number"),
        ({"NP6_DATA_DIR": "nowhere://x"}, "NP6_DATA_DIR='nowhere://x' is neither a local folder nor an address"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, monkeypatch, capsys, settings, line):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("NP6_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["demo", "--days", "1"]) == 1
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
def test_what_is_found_wrong_as_it_runs_is_said_in_one_line(tmp_path, settings, line):
    (tmp_path / "file").write_text("a folder cannot be made in here\n")
    process = run(tmp_path, "demo", "--days", "1", **settings)
    assert process.returncode == 1
    assert re.fullmatch(r"np6-assets demo: .*\n", process.stderr)
    assert line in process.stderr


def test_the_env_file_wins_as_it_does_in_dagster(tmp_path):
    (tmp_path / ".env").write_text("NP6_TIMEZONE=Mars/Base\n")
    process = run(tmp_path, "demo", NP6_TIMEZONE="UTC")
    assert (process.returncode, process.stdout) == (1, "")
    assert "Mars/Base" in process.stderr


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command, running, its output to be read as it comes."""
    return subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=build_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_with_one_line(tmp_path):
    with started(tmp_path, "demo", "--days", "1") as process:
        assert process.stdout
        assert process.stderr
        while not process.stdout.readline().startswith("  "):  # the first asset is there
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "np6-assets demo: stopped\n"
    assert process.returncode == 130


def test_help_needs_nothing_heavy(tmp_path):
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


def test_the_sandbox_answers_the_printed_curl_command_until_ctrl_c(tmp_path):
    with started(tmp_path, "sandbox", "--port", "0", "--small", "--key", "a key") as process:
        assert process.stdout
        assert process.stderr
        assert "http://127.0.0.1:" in process.stdout.readline()
        program, *arguments = shlex.split(process.stdout.readline())
        while "running on" not in (line := process.stderr.readline()):
            assert line, "the sandbox ended"
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


def test_the_sandbox_says_where_it_cannot_listen(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run(tmp_path, "sandbox", "--port", str(port))
    assert (process.returncode, process.stdout) == (1, "")
    assert re.fullmatch(rf"np6-assets sandbox: cannot listen on 127\.0\.0\.1 port {port}: .*\n", process.stderr)


def test_the_sandbox_is_for_this_machine_alone(tmp_path):
    process = run(tmp_path, "sandbox", "--host", "0.0.0.0")
    assert process.returncode == 2
    assert "invalid choice: '0.0.0.0'" in process.stderr
