"""`np6-assets doctor`: what it prints, and its exit status; once in a process of its own, as a user runs it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from np6_assets import cli
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.rude_server import RudeServer

KEY = "s3cret-key-of-the-account"
PERSON = "canary.person@example.com"
VERDICTS = {"ok", "warning", "wrong", "unknown"}


def doctor(folder, *arguments, **settings):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NP6_", "DAGSTER_"))}
    clean |= {"PYTHONPATH": str(Path(__file__).parents[2]), "NO_PROXY": "127.0.0.1,localhost"}
    return subprocess.run(
        [sys.executable, "-m", "np6_assets.cli", "doctor", *arguments],
        cwd=folder,
        env=clean | settings,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def doctor_here(tmp_path, monkeypatch, capsys, caplog):
    """The same in this process: exit status, standard output, and all else that is said."""
    for name in list(os.environ):
        if name.startswith(("NP6_", "DAGSTER_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **settings):
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        status = cli.main(["doctor", *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err + caplog.text

    return run


def hits():
    now = datetime.now(UTC)
    return [
        build_event(
            "hits",
            id=f"hit {number}",
            timestamp=round((now - timedelta(minutes=number + 1)).timestamp() * 1000),
            unicity=PERSON,
            hash=PERSON,
            link_type=PERSON,
            link_uri=PERSON,
        )
        for number in range(40)
    ]


@pytest.fixture
def server():
    """An account that puts a person and the key wherever it can."""

    def headers():
        return {
            "Date": format_datetime(datetime.now(UTC), usegmt=True),
            "X-RateLimit-Limit": KEY,
            "X-RateLimit-Reset": PERSON,
            "x-request-id": KEY,
        }

    account = Population(notifications=[{"id": 156, "name": PERSON}], hits=hits())
    with RudeServer(account, key=KEY, headers=headers) as running:
        yield running


def test_doctor_finds_nothing_wrong_with_the_sandbox(tmp_path):
    process = doctor(tmp_path, NP6_BASE_URL="sandbox://")
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    verdicts = {line[8:24].strip(): line[:8].strip() for line in lines if line[:8].strip() in VERDICTS}
    for subject in (
        "settings",
        "reachability",
        "window end",
        "window content",
        "sort",
        "link types",
        "compression",
    ):
        assert verdicts[subject] == "ok"
    assert "wrong" not in verdicts.values()
    assert list(tmp_path.iterdir()) == []


def test_doctor_prints_findings_as_json(doctor_here):
    status, output, errors = doctor_here("--json", NP6_BASE_URL="sandbox://")
    assert (status, errors) == (0, "")
    report = json.loads(output)
    assert report["verdict"] in ("ok", "unknown")
    assert 0 < report["traffic"]["requests"] <= 12
    for finding in report["findings"]:
        assert set(finding) == {"subject", "verdict", "text", "advice", "values"}
        assert finding["verdict"] in VERDICTS
        assert finding["text"]
    subjects = [finding["subject"] for finding in report["findings"]]
    assert len(set(subjects)) == len(subjects)


@pytest.mark.parametrize("arguments", [(), ("--json",)])
@pytest.mark.parametrize("act", [None, "401", "403", "503"])
def test_doctor_prints_neither_key_nor_contact_data(server, doctor_here, arguments, act):
    if act:
        server.script_always("/notifications", act)
    status, output, errors = doctor_here(*arguments, NP6_API_KEY=KEY, NP6_BASE_URL=server.url)
    assert status == (1 if act else 0)
    assert output
    for text in (output, errors):
        assert KEY not in text.replace("\n", "")
        assert "canary" not in text


def test_doctor_exits_1_where_something_is_wrong(server, doctor_here, tmp_path):
    (tmp_path / ".env").write_text("NP6_API_KEY=another-key\n")
    status, output, errors = doctor_here("--json", NP6_API_KEY=KEY, NP6_BASE_URL=server.url)
    assert (status, errors) == (1, "")
    report = json.loads(output)
    assert report["verdict"] == "wrong"
    [key] = [finding for finding in report["findings"] if finding["subject"] == "key"]
    assert "returned 401" in key["text"]  # .env wins
    assert "another-key" not in output


def test_doctor_exits_2_after_a_wrong_option(tmp_path):
    assert doctor(tmp_path, "--watch", "0").returncode == 2
