"""Run `np6-assets doctor`: its output and exit status."""

import json
import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from np6_assets import cli
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.rude_server import RudeServer

KEY = "s3cret-key-of-the-account"
PERSON = "canary.person@example.com"
VERDICTS = {"ok", "warning", "wrong", "unknown"}


@pytest.fixture
def run_doctor(tmp_path, monkeypatch, capsys, caplog):
    """Runs the doctor in this process; returns exit status, standard output, and standard error with logs."""
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


def build_hits():
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
    """A server that puts contact data and the key into all fields and headers."""

    def headers():
        return {
            "Date": format_datetime(datetime.now(UTC), usegmt=True),
            "X-RateLimit-Limit": KEY,
            "X-RateLimit-Reset": PERSON,
            "x-request-id": KEY,
        }

    account = Population(notifications=[{"id": 156, "name": PERSON}], hits=build_hits())
    with RudeServer(account, key=KEY, headers=headers) as running:
        yield running


def test_doctor_accepts_the_sandbox(run_doctor, tmp_path):
    status, output, errors = run_doctor(NP6_BASE_URL="sandbox://")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert max(map(len, lines)) <= 80
    verdicts = {line[8:24].strip(): line[:8].strip() for line in lines if line[:8].strip() in VERDICTS}
    for subject in ("settings", "reachability", "window end", "window content", "sort", "link types"):
        assert verdicts[subject] == "ok"
    assert "wrong" not in verdicts.values()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("act", [None, "401", "403", "503"])
def test_doctor_prints_neither_key_nor_contact_data(server, run_doctor, act):
    if act:
        server.script_always("/notifications", act)
    for arguments in ((), ("--json",)):
        status, output, errors = run_doctor(*arguments, NP6_API_KEY=KEY, NP6_BASE_URL=server.url)
        assert status == (1 if act else 0)
        for text in (output, errors):
            assert KEY not in text.replace("\n", "")
            assert "canary" not in text
    report = json.loads(output)
    assert report["verdict"] == ("wrong" if act else "warning")
    assert (report["traffic"]["requests"] > 1) != bool(act)
    for finding in report["findings"]:
        assert set(finding) == {"subject", "verdict", "text", "advice", "values"}
        assert finding["verdict"] in VERDICTS
        assert finding["text"]
    subjects = [finding["subject"] for finding in report["findings"]]
    assert len(set(subjects)) == len(subjects)


def test_env_file_overrides_the_key(server, run_doctor, tmp_path):
    (tmp_path / ".env").write_text("NP6_API_KEY=another-key\n")
    status, output, errors = run_doctor("--json", NP6_API_KEY=KEY, NP6_BASE_URL=server.url)
    assert (status, errors) == (1, "")
    [key] = [finding for finding in json.loads(output)["findings"] if finding["subject"] == "key"]
    assert "returned 401" in key["text"]
    assert "another-key" not in output


def test_doctor_exits_2_after_a_wrong_option():
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--watch", "0"])
    assert ended.value.code == 2
